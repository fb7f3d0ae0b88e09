"""Convert published checkpoints to this project's files, and back.

    python -m models.convert latentsync_unet.pt out/     U-Net to a diffusers folder
    python -m models.convert out/ latentsync_unet.pt     and back
    python -m models.convert sd15_unet.safetensors out/  Stable Diffusion 1.5 as a stage 1 start
    python -m models.convert stable_syncnet.pt out/      also syncnet_v2.model, Whisper's tiny.pt
    python -m models.convert base_vox_iter5.pt out/      AV-HuBERT's encoder of sound

The kind of a checkpoint is recognised by its content. Nothing in a file is ever executed.
Every folder holds `config.json` and safetensors.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from models.audio.avhubert_files import is_fairseq, read_avhubert, write_avhubert
from models.audio.whisper_files import to_openai
from models.audio.whisper_tokens import WhisperTokens
from models.convert.stable_diffusion import (
    config_for,
    is_stable_diffusion,
    start_from_stable_diffusion,
)
from models.convert.unet import unet_from_reference
from models.files.errors import ModelFileError, is_disk_full
from models.files.new_output import check_free, new_file, new_folder
from models.files.state_dict import (
    check_archive,
    check_finite,
    read_checkpoint,
    read_state_dict,
    unwrap,
)
from models.syncnet.stable import Config, load_stable_syncnet
from models.syncnet.syncnet_v2 import load_syncnet
from models.unet import LipSyncUNet

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
LARGEST = 65_536
"""Largest size in a configuration that is believed."""
UNET_WEIGHTS = "diffusion_pytorch_model.safetensors"
Weights = Mapping[str, torch.Tensor]
Writer = Callable[[Path, Weights, Path], list[str]]


def convert(source: Path, target: Path) -> str:
    """Convert a checkpoint file to a folder, or such a folder back to a checkpoint file.

    Returns:
        What was converted, a line per remark.

    Raises:
        ModelFileError: the source is damaged or of an unknown kind, or the target is
            in the way.
    """
    check_free(target)
    if source.is_dir():
        return _back(source, target)
    if is_fairseq(source):
        check_archive(source)
        with new_folder(target) as folder:
            notes = _write_avhubert(source, folder)
        return "\n".join([f"AV-HuBERT encoder: {source} -> {target}", *notes])
    content = read_checkpoint(source)
    check_archive(source)
    weights: Weights = {}
    writer: Writer
    if isinstance(content, dict) and "dims" in content:
        kind, writer = "Whisper encoder", _write_whisper
    else:
        weights = unwrap(content, source)
        kind, writer = _recognise(weights, source)
    with new_folder(target) as folder:
        notes = writer(source, weights, folder)
    return "\n".join([f"{kind}: {source} -> {target}", *notes])


def _recognise(weights: Weights, source: Path) -> tuple[str, Writer]:
    if is_stable_diffusion(weights):
        return "Stable Diffusion U-Net", _write_sd
    if "conv_in.weight" in weights and "conv_out.weight" in weights:
        return "LatentSync U-Net", _write_unet
    if any(key.startswith("visual_encoder.") for key in weights):
        return "StableSyncNet", _write_stable_syncnet
    if any(key.startswith("netcnnlip.") for key in weights):
        return "SyncNet", _write_syncnet
    raise ModelFileError(
        f"model file {source} is of no known kind (its first entry is {next(iter(weights))}): "
        "expected a LatentSync or Stable Diffusion U-Net, StableSyncNet, SyncNet, Whisper or "
        "AV-HuBERT"
    )


def _write_unet(source: Path, weights: Weights, folder: Path) -> list[str]:
    try:
        unet = unet_from_reference(weights)
    except ModelFileError as error:
        raise ModelFileError(f"model file {source}: {error}") from error
    check_finite(weights, source)
    unet.save_pretrained(folder, max_shard_size="100GB")
    return [f"{len(weights)} entries, configuration inferred from their shapes"]


def _write_sd(source: Path, weights: Weights, folder: Path) -> list[str]:
    check_finite(weights, source)
    torch.manual_seed(0)
    try:
        unet = LipSyncUNet(**config_for(weights))
        notes = start_from_stable_diffusion(unet, weights)
    # Widths that no U-Net can have end in torch's own errors.
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ModelFileError(f"model file {source}: {error}") from error
    unet.save_pretrained(folder, max_shard_size="100GB")
    return notes


def _write_stable_syncnet(source: Path, weights: Weights, folder: Path) -> list[str]:
    network = load_stable_syncnet(source)
    return _write_plain(folder, {"kind": "stable_syncnet", **network.config}, network.state_dict())


def _write_syncnet(source: Path, weights: Weights, folder: Path) -> list[str]:
    return _write_plain(folder, {"kind": "syncnet"}, load_syncnet(source).state_dict())


def _write_whisper(source: Path, weights: Weights, folder: Path) -> list[str]:
    WhisperTokens.from_file(source).encoder.save_pretrained(folder)
    return ["the encoder only: lip-sync needs no decoder"]


def _write_avhubert(source: Path, folder: Path) -> list[str]:
    sizes, weights = read_avhubert(source)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_avhubert(folder, sizes, weights, digest)
    order = "before" if sizes["pre_norm"] else "after"
    return [
        f"the encoder of sound only, {sizes['layers']} blocks with norms {order} them, as the "
        "file's configuration says",
        "its licence allows non-commercial research only, also of what is made with it",
    ]


def _write_plain(folder: Path, config: Mapping[str, Any], weights: Weights) -> list[str]:
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / WEIGHTS)
    return [f"{len(weights)} entries"]


def _back(source: Path, target: Path) -> str:
    """A folder's weights in the form of the published file: LatentSync's own files are
    `{"global_step", "state_dict"}`, SyncNet's holds nothing but weights, Whisper's sizes, too."""
    try:
        config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(
            f"{source} is not a converted model: it has no {CONFIG}; give a checkpoint file, "
            "or a folder made by this program"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{source / CONFIG} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelFileError(
            f"{source} is not a converted model: {CONFIG} holds a {type(config).__name__} where a "
            "JSON object was expected"
        )
    content: Mapping[str, object]
    if config.get("_class_name") == "LipSyncUNet":
        kind, weights = "LatentSync U-Net", _read_unet(source, config)
        content = {"global_step": 0, "state_dict": dict(weights)}
    elif config.get("kind") == "stable_syncnet":
        kind, weights = "StableSyncNet", _read_stable_syncnet(source, config)
        content = {"global_step": 0, "state_dict": dict(weights)}
    elif config.get("kind") == "syncnet":
        kind, weights = "SyncNet", load_syncnet(source / WEIGHTS).state_dict()
        content = dict(weights)
    elif config.get("model_type") == "whisper":
        kind, content = "Whisper encoder", to_openai(source)
        weights = content["model_state_dict"]
    else:
        raise ModelFileError(
            f"{source} cannot be written as a checkpoint: expected a U-Net, "
            "StableSyncNet, SyncNet or Whisper encoder converted by this program"
        )
    with new_file(target) as file:
        torch.save(content, file)
    return f"{kind}: {source} -> {target}\n{len(weights)} entries"


def _read_unet(folder: Path, config: Mapping[str, Any]) -> Weights:
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    _check_numbers(options, folder)
    weights = read_state_dict(folder / UNET_WEIGHTS)
    try:
        return unet_from_reference(weights, options).state_dict()
    except ModelFileError as error:
        raise ModelFileError(f"model folder {folder}: {error}") from error
    except (TypeError, RuntimeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{folder / CONFIG} is not a LipSyncUNet's: {error}") from error


def _read_stable_syncnet(folder: Path, config: Mapping[str, Any]) -> Weights:
    _check_numbers(config, folder)
    options = cast(Config, {key: value for key, value in config.items() if key != "kind"})
    try:
        return load_stable_syncnet(folder / WEIGHTS, options).state_dict()
    except ModelFileError:
        raise
    except (TypeError, ValueError, KeyError, RuntimeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{folder / CONFIG} is not a StableSyncNet's: {error!r}") from error


def _check_numbers(values: Any, folder: Path) -> None:
    """Whether sizes are such that a network of them can be built in any time."""
    for each in values.values() if isinstance(values, dict) else values:
        if isinstance(each, dict | list):
            _check_numbers(each, folder)
        elif isinstance(each, int) and abs(each) > LARGEST:
            raise ModelFileError(
                f"{folder / CONFIG} describes a network that cannot be built: it says "
                f"{str(each)[:20]} but at most {LARGEST} was expected"
            )


def main(argv: Sequence[str] | None = None, prog: str = "python -m models.convert") -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="checkpoint file, or a folder made by this")
    parser.add_argument("target", type=Path, help="folder, or checkpoint file, to write")
    options = parser.parse_args(argv)
    try:
        print(convert(options.source, options.target))
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    except (ModelFileError, OSError, RuntimeError, SafetensorError, MemoryError) as error:
        if is_disk_full(error):
            print(
                f"the disk is full: free some space for {options.target} and run the same command "
                "again",
                file=sys.stderr,
            )
        elif isinstance(error, ModelFileError | OSError | MemoryError):
            print(str(error) or "there is not enough memory for this model", file=sys.stderr)
        else:
            raise
        return 2
    return 0
