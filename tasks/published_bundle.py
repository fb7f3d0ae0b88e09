"""Published weights as a bundle that every flow takes: nothing is trained, no dataset is needed.

    python -m tasks.published_bundle OUT --unet latentsync-1.5-unet --resolution 256
    python -m flows.lip_sync VIDEO AUDIO OUT.mp4 --model OUT

Weights are names of `python -m models.weights`, or paths. `--register NAME` also makes the
bundle a version of that model. `OUT/bundle.json` says from which files it is made.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from datasets.errors import UserError
from models.autoencoder import sizes_from_shapes
from models.checkpoint_files import read_state_dict
from models.convert_sd import is_stable_diffusion
from models.convert_unet import infer_config, shapes_of, unet_from_reference
from models.download import free_bytes
from models.files import ModelFileError
from models.latentsync import LatentSync
from models.latentsync_config import LatentSyncConfig
from models.stable_syncnet import Config, config_by_name, load_stable_syncnet
from models.unet import LipSyncUNet
from models.weights import sha256_of
from models.whisper_files import DIMS
from models.whisper_tokens import WhisperTokens
from tasks.bundle import ABOUT, bundle_digest
from tasks.failures import sentence_for
from tasks.published import weight_file
from tasks.recipes import SyncNetConfig, recipe
from tasks.registry import Registry
from tasks.tracking import Tracker, default_uri
from tasks.train_bundle import MASK, code_version
from tasks.train_syncnet import PAPER_THRESHOLD, save_syncnet

RECIPES = {256: "paper-256", 512: "paper-512"}
"""Whose configuration the published networks of a resolution have."""
RESOLUTIONS = {"latentsync-1.5-unet": 256, "latentsync-1.6-unet": 512}
"""What the shapes of a U-Net do not tell."""
FOLDER_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
IMPLIED = ("in_channels", "out_channels", "cross_attention_dim")
"""Arguments of the U-Net that follow from the bundle's other parts."""
NOTE = "nothing was trained here: all weights are the published files'"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Files:
    """The weights that a bundle is made of: names of the weights table, or paths."""

    unet: str
    vae: str = "sd-vae-ft-mse"
    whisper: str = "whisper-tiny"
    syncnet: str = "latentsync-1.5-syncnet"
    syncnet_config: str = "16_pixel_attn"
    """A published configuration of StableSyncNet, or a JSON file with one."""


def build_bundle(output: Path, files: Files, resolution: int, say: Say = print) -> list[str]:
    """Write a bundle of published weights, all or nothing.

    Args:
        output: folder to make.
        files: the weights.
        resolution: side of the faces that the U-Net was trained on, 256 or 512 pixels.
        say: told in lines how far it is.

    Returns:
        Remarks for the user, which `bundle.json` holds too.

    Raises:
        UserError: a file is not there, the options contradict each other, the output is in the
            way, or there is no room for it.
        ModelFileError: a file is damaged or of another network, or two do not fit together.
    """
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise UserError(f"{output} is there already: give a new name or remove it")
    _check_resolution(files.unet, resolution)
    judge = _judge_config(files.syncnet_config)
    paths = {name: _file(getattr(files, name)) for name in ("unet", "vae", "whisper", "syncnet")}
    temporary = output.with_name(output.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _check_room(temporary, paths.values())
        say("putting the model together")
        model, notes = _model(paths, resolution)
        model.save(temporary)
        _write_judge(temporary / "syncnet", paths["syncnet"], judge, files, resolution)
        say("reading the files' sha256")
        text = json.dumps(_about(model.config, files, paths, notes), indent=1, sort_keys=True)
        (temporary / ABOUT).write_text(text, encoding="utf-8")
        temporary.replace(output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return notes


def _check_resolution(unet: str, resolution: int) -> None:
    if resolution not in RECIPES:
        raise UserError(
            f"no published network is for faces of {resolution} pixels: give --resolution 256 "
            "(LatentSync 1.5) or 512 (1.6)"
        )
    expected = RESOLUTIONS.get(unet, resolution)
    if expected != resolution:
        raise UserError(
            f"{unet} was trained on faces of {expected} pixels, not {resolution}: give "
            f"--resolution {expected}"
        )


def _judge_config(text: str) -> str | Config:
    """The name of a published configuration as it is, or the content of a file.

    Raises:
        UserError: it is neither.
        ModelFileError: the file describes no network.
    """
    path = Path(text)
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return {name: dict(content[name]) for name in ("audio_encoder", "visual_encoder")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"{path} describes no StableSyncNet: expected a JSON object with audio_encoder "
                f"and visual_encoder ({error!r})"
            ) from error
    try:
        config_by_name(text)
    except ValueError as error:
        raise UserError(f"there is no file {text}, and {error}") from error
    return text


def _file(name: str) -> Path:
    """A file of weights; of a folder, such as Hugging Face's, the one in it."""
    path = weight_file(name)
    if not path.is_dir():
        return path
    found = [path / file for file in FOLDER_FILES if (path / file).is_file()]
    if not found:
        raise UserError(f"the folder {path} holds no {' or '.join(FOLDER_FILES)}: give a file")
    return found[0]


def _check_room(folder: Path, paths: Any) -> None:
    needed = sum(path.stat().st_size for path in paths)
    free = free_bytes(folder)
    if needed > free:
        raise UserError(
            f"the bundle needs {needed / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f} GB "
            "free: free some space or choose another folder"
        )


def _model(paths: Mapping[str, Path], resolution: int) -> tuple[LatentSync, list[str]]:
    """The model without the copies that a fresh one would cost, and remarks."""
    base = recipe(RECIPES[resolution]).model
    unet, options = _read_unet(paths["unet"])
    whisper = paths["whisper"]
    # Hugging Face's sizes are in a config.json beside the weights.
    audio = WhisperTokens.from_file(whisper.parent if whisper.name in FOLDER_FILES else whisper)
    try:
        channels, vae = sizes_from_shapes(shapes_of(read_state_dict(paths["vae"])))
    except (KeyError, IndexError) as error:
        raise ModelFileError(
            f"model file {paths['vae']} is no autoencoder of Stable Diffusion: {error} is missing"
        ) from error
    _check_fit(unet, audio, channels, paths)
    if unet.config.motion_resolutions and unet.config.motion_max_frames < base.num_frames:
        raise ModelFileError(
            f"the U-Net in {paths['unet']} sees {unet.config.motion_max_frames} frames at most, "
            f"a window has {base.num_frames}: expected a checkpoint of LatentSync 1.5 or 1.6"
        )
    config = replace(
        base,
        latent_channels=channels,
        unet=options,
        autoencoder={"kind": "kl", **vae},
        audio_encoder={
            ours: getattr(audio.encoder.config, theirs) for ours, theirs in DIMS.values()
        },
    )
    try:
        model = LatentSync(config, empty=True)
    except ValueError as error:
        raise ModelFileError(f"model file {paths['vae']} is of an unknown size: {error}") from error
    autoencoder: Any = model.autoencoder
    autoencoder.load_file(paths["vae"])
    model.unet, model.audio_encoder = unet, audio
    notes = [NOTE]
    if not unet.config.motion_resolutions:
        notes.append("the U-Net has no motion modules: every frame is painted on its own")
    return model, notes


def _read_unet(path: Path) -> tuple[LipSyncUNet, dict[str, Any]]:
    """The network and what of its configuration a bundle has to say."""
    weights = read_state_dict(path)
    if is_stable_diffusion(weights):
        raise ModelFileError(
            f"model file {path} is Stable Diffusion's U-Net, which has never heard speech: give "
            "LatentSync's, such as latentsync-1.5-unet"
        )
    try:
        unet = unet_from_reference(weights)
    except ModelFileError as error:
        raise ModelFileError(f"model file {path}: {error}") from error
    told = infer_config(shapes_of(weights))
    return unet, {name: value for name, value in told.items() if name not in IMPLIED}


def _check_fit(
    unet: LipSyncUNet, audio: WhisperTokens, channels: int, paths: Mapping[str, Path]
) -> None:
    options = unet.config
    if options.cross_attention_dim != audio.width:
        raise ModelFileError(
            f"the U-Net in {paths['unet']} hears tokens {options.cross_attention_dim} wide, the "
            f"Whisper in {paths['whisper']} gives {audio.width}: the published networks go with "
            "whisper-tiny"
        )
    if (options.in_channels, options.out_channels) != (3 * channels + 1, channels):
        raise ModelFileError(
            f"the U-Net in {paths['unet']} takes {options.in_channels} channels and gives "
            f"{options.out_channels}, the autoencoder in {paths['vae']} has {channels}: the "
            "published networks go with sd-vae-ft-mse"
        )


def _write_judge(
    folder: Path, path: Path, config: str | Config, files: Files, resolution: int
) -> None:
    """The StableSyncNet in the form in which training leaves its own."""
    whole = config_by_name(config) if isinstance(config, str) else config
    chosen: SyncNetConfig = replace(
        recipe(RECIPES[resolution]).syncnet,
        steps=0,
        weights=files.syncnet,
        options={"config": config},
    )
    side = chosen.resolution
    try:
        network = load_stable_syncnet(path, whole)
        with torch.no_grad():
            network(
                torch.zeros(1, chosen.num_frames, 3, side // 2, side), torch.zeros(1, 1, 80, 52)
            )
    except ModelFileError:
        raise
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise ModelFileError(
            f"the sync network {files.syncnet_config} does not take windows of "
            f"{chosen.num_frames} RGB frames of {side} pixels, which a bundle needs: {error}"
        ) from error
    save_syncnet(folder, network, chosen, PAPER_THRESHOLD)


def _about(
    config: LatentSyncConfig, files: Files, paths: Mapping[str, Path], notes: list[str]
) -> dict[str, Any]:
    """What `bundle.json` says."""
    return {
        "recipe": "published",
        "resolution": config.resolution,
        "dataset_digest": "none",
        "mask": MASK,
        "audio": config.audio,
        "code_version": code_version(),
        "notes": notes,
        "files": {
            part: {
                "name": getattr(files, part),
                "file": path.name,
                "bytes": path.stat().st_size,
                "sha256": sha256_of(path),
            }
            for part, path in paths.items()
        },
    }


def register_bundle(bundle: Path, name: str, uri: str) -> int:
    """Make a bundle of published weights the candidate of a model, once.

    Returns:
        The version's number.

    Raises:
        UserError: the store cannot be used.
    """
    registry, digest = Registry(uri), bundle_digest(bundle)
    for known in registry.versions(name):
        if known.tags.get("bundle_digest") == digest:
            return registry.register(bundle, name, known.run_id)
    tracker = Tracker(uri, name)
    run_id = tracker.start_run("published weights", tags={"recipe": "published"})
    try:
        version = registry.register(bundle, name, run_id)
    except BaseException:
        tracker.end_run("FAILED")
        raise
    tracker.end_run()
    return version


def main(argv: Sequence[str] | None = None) -> int:
    defaults = Files("")
    parser = argparse.ArgumentParser(
        prog="python -m tasks.published_bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--unet", required=True, help="such as latentsync-1.5-unet")
    parser.add_argument("--resolution", type=int, required=True, help="256 for 1.5, 512 for 1.6")
    for name in ("vae", "whisper", "syncnet"):
        parser.add_argument(f"--{name}", default=getattr(defaults, name), help="%(default)s")
    parser.add_argument(
        "--syncnet-config",
        default=defaults.syncnet_config,
        help="of the sync network: %(default)s, or a JSON file",
    )
    parser.add_argument("--register", metavar="NAME", help="also a version of this model")
    parser.add_argument("--tracking-uri", default=None, help="MLflow's store, for --register")
    given = parser.parse_args(argv)
    files = Files(given.unet, given.vae, given.whisper, given.syncnet, given.syncnet_config)
    try:
        for note in build_bundle(given.output, files, given.resolution):
            print(note)
        print(
            f"{given.output}: --model {given.output} of the flows lip_sync and evaluate_latentsync"
        )
        if given.register:
            version = register_bundle(
                given.output, given.register, given.tracking_uri or default_uri()
            )
            print(f"registered {given.register} version {version} as candidate")
    except Exception as error:
        sentence = sentence_for(error)
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
