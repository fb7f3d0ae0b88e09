"""The networks of a bundle of published weights: reading, checking and combining them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from datasets.errors import UserError
from models.audio.whisper_files import DIMS
from models.audio.whisper_tokens import WhisperTokens
from models.autoencoder.kl import sizes_from_shapes
from models.convert.stable_diffusion import is_stable_diffusion
from models.convert.unet import infer_config, shapes_of, unet_from_reference
from models.files.errors import ModelFileError
from models.files.state_dict import check_finite, read_state_dict
from models.latentsync.model import LatentSync
from models.syncnet.stable import Config, config_by_name, load_stable_syncnet
from models.unet import LipSyncUNet
from tasks.recipes.config import SyncNetConfig
from tasks.recipes.recipe import recipe
from tasks.sync.network_files import PAPER_THRESHOLD, save_syncnet

RECIPES = {256: "paper-256", 512: "paper-512"}
"""The recipe whose configuration the published networks of a resolution have."""
FOLDER_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
IMPLIED = ("in_channels", "out_channels", "cross_attention_dim")
"""Arguments of the U-Net that follow from the bundle's other parts."""
NOTE = "nothing was trained here: all weights are the published files'"


@dataclass(frozen=True)
class Files:
    """The weights that a bundle is made of: names in the weights table, or paths."""

    unet: str
    vae: str = "sd-vae-ft-mse"
    whisper: str = "whisper-tiny"
    syncnet: str = "latentsync-1.5-syncnet"
    syncnet_config: str = "16_pixel_attn"
    """A published configuration of StableSyncNet, or a JSON file with one."""


def judge_config(text: str) -> str | Config:
    """The name of a published configuration unchanged, or the content of a file.

    Raises:
        UserError: the text is neither.
        ModelFileError: the file does not describe a network.
    """
    path = Path(text)
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            parts = {name: dict(content[name]) for name in ("audio_encoder", "visual_encoder")}
            return cast(Config, parts)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"{path} is not a StableSyncNet configuration: expected a JSON object with "
                f"audio_encoder and visual_encoder ({type(error).__name__})"
            ) from error
    try:
        config_by_name(text)
    except ValueError as error:
        raise UserError(f"there is no file {text}, and {error}") from error
    return text


def assemble(paths: Mapping[str, Path], resolution: int) -> tuple[LatentSync, list[str]]:
    """The model, built without the copies that a fresh one would need, and notes."""
    base = recipe(RECIPES[resolution]).model
    unet, options = _read_unet(paths["unet"])
    whisper = paths["whisper"]
    # Hugging Face stores the sizes in a config.json next to the weights.
    audio = WhisperTokens.from_file(whisper.parent if whisper.name in FOLDER_FILES else whisper)
    try:
        channels, vae = sizes_from_shapes(shapes_of(read_state_dict(paths["vae"])))
    except (KeyError, IndexError) as error:
        raise ModelFileError(
            f"model file {paths['vae']} is not Stable Diffusion's autoencoder: {error} is missing"
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
        raise ModelFileError(f"model file {paths['vae']} has an unknown size: {error}") from error
    autoencoder: Any = model.autoencoder
    autoencoder.load_file(paths["vae"])
    model.unet, model.audio_encoder = unet, audio
    notes = [NOTE]
    if not unet.config.motion_resolutions:
        notes.append("the U-Net has no motion modules: every frame is painted on its own")
    return model, notes


def _read_unet(path: Path) -> tuple[LipSyncUNet, dict[str, object]]:
    """The network and the parts of its configuration that a bundle must store."""
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
    check_finite(weights, path)
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


def write_judge(
    folder: Path, path: Path, config: str | Config, files: Files, resolution: int
) -> None:
    """The StableSyncNet in the form in which training stores its own."""
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
