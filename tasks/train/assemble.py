"""The model of a run, put together from what its stages learned and from published weights."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.audio.avhubert_tokens import AVHubertTokens
from models.audio.whisper_tokens import WhisperTokens
from models.autoencoder import build_autoencoder
from models.convert.stable_diffusion import is_stable_diffusion, start_from_stable_diffusion
from models.convert.unet import with_own_audio, with_pose_inputs
from models.files.errors import ModelFileError
from models.files.state_dict import read_state_dict
from models.latentsync.config import LatentSyncConfig
from models.latentsync.model import LatentSync
from tasks.recipes.config import Recipe, SyncNetConfig, UNetConfig
from tasks.sync.network_files import LoadedSyncNet, build_syncnet
from tasks.train.context import StageContext, stage_metrics
from tasks.train.hearing import UNET, load_hearing, part_of
from tasks.train.kept import trained_weights
from tasks.weights.by_name import weight_file

MOTION = "motion_modules."
"""Part of the names of all motion-module entries."""


def model_config(recipe: Recipe, stage: str) -> LatentSyncConfig:
    """The bundle's configuration for one stage, with that stage's motion modules."""
    config: UNetConfig = getattr(recipe, stage)
    return replace(recipe.model, unet={**recipe.model.unet, **config.motion})


def build_model(recipe: Recipe, stage: str, output: Path) -> LatentSync:
    """A model with a fresh U-Net; autoencoder and audio encoder are trained or published ones."""
    model = LatentSync(model_config(recipe, stage))
    _fill_autoencoder(model.autoencoder, recipe, output)
    if recipe.audio_weights:
        load_third_party_audio(model, weight_file(recipe.audio_weights))
    return model


def load_autoencoder(recipe: Recipe, output: Path, device: torch.device) -> nn.Module:
    """The model's autoencoder alone, trained or published, frozen."""
    model = recipe.model
    network = build_autoencoder(model.autoencoder, model.latent_channels, model.scaling_factor)
    _fill_autoencoder(network, recipe, output)
    return network.requires_grad_(False).to(device).eval()


def _fill_autoencoder(network: Any, recipe: Recipe, output: Path) -> None:
    if recipe.autoencoder is not None:
        network.load_state_dict(trained_weights(output / "autoencoder"))
    elif recipe.autoencoder_weights:
        network.load_file(weight_file(recipe.autoencoder_weights))


def load_third_party_audio(model: LatentSync, path: Path) -> None:
    """Put the weights of a published encoder, Whisper or AV-HuBERT, into the model's.

    Raises:
        ModelFileError: the file does not fit.
    """
    if isinstance(model.audio_encoder, AVHubertTokens):
        model.audio_encoder.load_file(path)
        return
    published = WhisperTokens.from_file(path)
    encoder: Any = model.audio_encoder
    try:
        encoder.load_state_dict(published.state_dict())
    except RuntimeError as error:
        raise ModelFileError(
            f"model file {path} is not a Whisper encoder of the recipe's size"
        ) from error


def load_earlier(unet: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Load the weights of an earlier stage; only motion modules may be new.

    Raises:
        ModelFileError: other weights are missing or left over.
    """
    shapes = {name: value.shape for name, value in unet.state_dict().items()}
    wrong = [key for key, value in weights.items() if shapes.get(key) != value.shape]
    missing = [key for key in shapes.keys() - weights.keys() if MOTION not in key]
    if wrong or missing:
        raise ModelFileError(
            f"the U-Net in {where} has another size: {len(missing)} weights are missing and "
            f"{len(wrong)} do not fit, such as {(missing or wrong)[0]}"
        )
    unet.load_state_dict(weights, strict=False)


def start_weights(stage: StageContext, config: UNetConfig, model: LatentSync) -> list[str]:
    """Load the weights this stage starts from into the U-Net; returns notes for the user.

    Stage 2 goes on from stage 1; if stage 1 had no motion modules, stage 2 takes them from the
    published checkpoint that stage 1 began with.

    Raises:
        ModelFileError: the weights belong to another network.
    """
    if stage.name == "stage2":
        folder = stage.output / "stage1"
        learned = trained_weights(folder)
        load_hearing(model, learned, str(folder))
        learned = part_of(learned, UNET)
        load_earlier(model.unet, learned, str(folder))
        return _load_third_party_motion(model.unet, learned, stage.recipe.stage1.weights)
    if not config.weights:
        return []
    path = weight_file(config.weights)
    state = read_state_dict(path)
    if is_stable_diffusion(state):
        return start_from_stable_diffusion(model.unet, state)
    own = model.unet.state_dict()
    # A stage may have fewer motion modules than the checkpoint, or none at all.
    kept = {key: v for key, v in state.items() if key in own or MOTION not in key}
    left = len(state) - len(kept)
    kept, notes = with_pose_inputs(kept, model.unet, str(path))
    kept, more = with_own_audio(kept, model.unet)
    load_earlier(model.unet, kept, str(path))
    note = f"{left} motion-module entries in {path} are not used in this stage"
    if stage.recipe.stage2 is not None:
        note += ": stage2 takes its own"
    return [*notes, *more, *[note] * bool(left)]


def _load_third_party_motion(
    unet: nn.Module, learned: Mapping[str, Tensor], weights: str
) -> list[str]:
    """Fill the motion modules that no earlier stage has trained, from a published checkpoint.

    Args:
        learned: the earlier stage's entries, which are left as they are.
        weights: file or name of the checkpoint; empty for no checkpoint.

    Raises:
        ModelFileError: the checkpoint's motion modules have another size.
    """
    own = unet.state_dict()
    new = [key for key in own if key not in learned]
    if not new or not weights:
        return []
    path = weight_file(weights)
    state = read_state_dict(path)
    found = {key: state[key] for key in new if key in state}
    wrong = [key for key, value in found.items() if value.shape != own[key].shape]
    if wrong:
        raise ModelFileError(
            f"the motion modules in {path} have another size: {len(wrong)} entries do not fit, "
            f"such as {wrong[0]}"
        )
    unet.load_state_dict(found, strict=False)
    notes = [f"{len(found)} motion-module entries are from {path}"] * bool(found)
    fresh = len(new) - len(found)
    return notes + [f"{fresh} motion-module entries are fresh, with output zero"] * bool(fresh)


def load_trained_syncnet(
    recipe: Recipe, output: Path, device: torch.device, stage: str = "syncnet"
) -> LoadedSyncNet:
    """A sync network of the run, frozen.

    Args:
        stage: what trained it, `syncnet` or `syncnet_latents`.
    """
    config = recipe.stage(stage)
    assert isinstance(config, SyncNetConfig)
    network = build_syncnet(config.network, config.options)
    network.load_state_dict(trained_weights(output / stage))
    network.requires_grad_(False)
    threshold = float(stage_metrics(output, stage)["threshold"])
    return LoadedSyncNet(network.to(device).eval(), config, threshold)


def load_trained_model(recipe: Recipe, output: Path) -> LatentSync:
    """The model as the last stage left it, on the CPU."""
    last = "stage1" if recipe.stage2 is None else "stage2"
    model = build_model(recipe, last, output)
    if recipe.stage1.audio_blocks and last != "stage1":
        # Blocks of the audio encoder that stage 2 leaves alone are those of stage 1.
        load_hearing(model, trained_weights(output / "stage1"), str(output / "stage1"))
    folder = output / last
    learned = trained_weights(folder)
    load_hearing(model, learned, str(folder))
    load_earlier(model.unet, part_of(learned, UNET), str(folder))
    return model.eval()
