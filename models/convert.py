"""Convert published checkpoints to this project's files, and back.

    python -m models.convert latentsync_unet.pt out/     U-Net to a diffusers folder
    python -m models.convert out/ latentsync_unet.pt     and back
    python -m models.convert sd15_unet.safetensors out/  Stable Diffusion 1.5 as a stage 1 start
    python -m models.convert stable_syncnet.pt out/      also syncnet_v2.model, Whisper's tiny.pt

The kind of a checkpoint is told from its contents. Nothing in a file is ever executed.
Every folder holds `config.json` and safetensors.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.checkpoint_files import read_checkpoint, read_state_dict, unwrap
from models.files import ModelFileError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
UNET_WEIGHTS = "diffusion_pytorch_model.safetensors"
Weights = Mapping[str, torch.Tensor]
Writer = Callable[[Path, Weights, Path], list[str]]


def convert(source: Path, target: Path) -> str:
    """Convert a checkpoint file to a folder, or such a folder back to a checkpoint file.

    Returns:
        What was converted, a line per remark.

    Raises:
        ModelFileError: the source is none of the known kinds or damaged, or the target is
            in the way.
    """
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise ModelFileError(f"{target} is there already: give a new name or remove it")
    if source.is_dir():
        return _back(source, target)
    content = read_checkpoint(source)
    weights: Weights = {}
    writer: Writer
    if isinstance(content, dict) and "dims" in content:
        kind, writer = "Whisper encoder", _write_whisper
    else:
        weights = unwrap(content, source)
        kind, writer = _recognise(weights, source)
    temporary = target.with_name(target.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        notes = writer(source, weights, temporary)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return "\n".join([f"{kind}: {source} -> {target}", *notes])


def _recognise(weights: Weights, source: Path) -> tuple[str, Writer]:
    from models.convert_sd import is_stable_diffusion

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
        "expected a LatentSync or Stable Diffusion U-Net, StableSyncNet, SyncNet or Whisper"
    )


def _write_unet(source: Path, weights: Weights, folder: Path) -> list[str]:
    from models.convert_unet import unet_from_reference

    try:
        unet = unet_from_reference(weights)
    except ModelFileError as error:
        raise ModelFileError(f"model file {source}: {error}") from error
    unet.save_pretrained(folder, max_shard_size="100GB")
    return [f"{len(weights)} entries, configuration told from their shapes"]


def _write_sd(source: Path, weights: Weights, folder: Path) -> list[str]:
    from models.convert_sd import config_for, start_from_stable_diffusion
    from models.unet import LipSyncUNet

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
    from models.stable_syncnet import load_stable_syncnet

    network = load_stable_syncnet(source)
    return _write_plain(folder, {"kind": "stable_syncnet", **network.config}, network.state_dict())


def _write_syncnet(source: Path, weights: Weights, folder: Path) -> list[str]:
    from models.syncnet import load_syncnet

    return _write_plain(folder, {"kind": "syncnet"}, load_syncnet(source).state_dict())


def _write_whisper(source: Path, weights: Weights, folder: Path) -> list[str]:
    from models.whisper_tokens import WhisperTokens

    WhisperTokens.from_file(source).encoder.save_pretrained(folder)
    return ["the encoder only: lip-sync needs no decoder"]


def _write_plain(folder: Path, config: Mapping[str, Any], weights: Weights) -> list[str]:
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / WEIGHTS)
    return [f"{len(weights)} entries"]


def _back(source: Path, target: Path) -> str:
    """A folder's weights as `{"global_step", "state_dict"}`, as LatentSync's own files are; those
    of Whisper as OpenAI's."""
    try:
        config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{source} is no converted model: {CONFIG} {error}") from error
    if not isinstance(config, dict):
        raise ModelFileError(
            f"{source} is no converted model: {CONFIG} holds a {type(config).__name__} where a "
            "JSON object was expected"
        )
    content: dict[str, Any]
    if config.get("_class_name") == "LipSyncUNet":
        kind, weights = "LatentSync U-Net", _read_unet(source, config)
        content = {"global_step": 0, "state_dict": dict(weights)}
    elif config.get("kind") in ("stable_syncnet", "syncnet"):
        kind, weights = str(config["kind"]), read_state_dict(source / WEIGHTS)
        content = {"global_step": 0, "state_dict": dict(weights)}
    elif config.get("model_type") == "whisper":
        from models.whisper_files import to_openai

        kind, content = "Whisper encoder", to_openai(source)
        weights = content["model_state_dict"]
    else:
        raise ModelFileError(
            f"{source} holds no model that can be written as a checkpoint: expected a U-Net, "
            "StableSyncNet, SyncNet or Whisper encoder converted by this program"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    try:
        torch.save(content, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return f"{kind}: {source} -> {target}\n{len(weights)} entries"


def _read_unet(folder: Path, config: Mapping[str, Any]) -> Weights:
    from models.convert_unet import unet_from_reference

    options = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        return unet_from_reference(read_state_dict(folder / UNET_WEIGHTS), options).state_dict()
    except (TypeError, RuntimeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{folder / CONFIG} describes no LipSyncUNet: {error}") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m models.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="checkpoint file, or a folder made by this")
    parser.add_argument("target", type=Path, help="folder, or checkpoint file, to write")
    options = parser.parse_args(argv)
    try:
        print(convert(options.source, options.target))
    except (ModelFileError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
