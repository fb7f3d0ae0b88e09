"""Stable Diffusion 1.5's 2-D U-Net as the start of a `LipSyncUNet`.

The names are the same. What a text-to-image network does not have is added: input
channels for mask, masked picture, reference and pose start at zero, so that the first step is
Stable Diffusion's; the cross-attentions read audio tokens of another width and start
fresh; so do motion modules, whose output is zero.
"""

from collections.abc import Mapping

import torch

from models.convert.unet import AUDIO_INPUTS, CONV_IN, POSE, differences, infer_config, shapes_of
from models.files.errors import ModelFileError
from models.unet import LipSyncUNet
from models.unet.network import UNetOptions

WHISPER_TINY = 384
"""Width of the audio tokens of the published networks."""


def is_stable_diffusion(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are the weights of a Stable Diffusion U-Net (its only input is noisy
    latents)."""
    first, last = state.get(CONV_IN), state.get("conv_out.weight")
    return (
        first is not None
        and last is not None
        and first.ndim == last.ndim == 4
        and first.shape[1] == last.shape[0]
    )


def config_for(state: Mapping[str, torch.Tensor]) -> UNetOptions:
    """`LipSyncUNet`'s arguments for a stage 1 network of Stable Diffusion's widths.

    Raises:
        ModelFileError: the entries are not such a network's.
    """
    try:
        config = infer_config(shapes_of(state))
    except (KeyError, IndexError) as error:
        raise ModelFileError(f"this is not a Stable Diffusion U-Net: {error} is missing") from error
    return {
        **config,
        "in_channels": 3 * config["out_channels"] + 1,
        "cross_attention_dim": WHISPER_TINY,
    }


def start_from_stable_diffusion(unet: LipSyncUNet, state: Mapping[str, torch.Tensor]) -> list[str]:
    """Load the weights of Stable Diffusion's U-Net into a freshly initialised one.

    Args:
        unet: its widths must be Stable Diffusion's; weights without a counterpart are kept.
        state: entries of the 2-D U-Net in diffusers' names.

    Returns:
        One sentence per kind of weight that is not Stable Diffusion's.

    Raises:
        ModelFileError: the entries are not that network's, or have other widths.
    """
    if not is_stable_diffusion(state):
        raise ModelFileError(
            "these are not the weights of a Stable Diffusion U-Net: expected diffusers' names, "
            "with as many channels going in as coming out"
        )
    own = unet.state_dict()
    weights = {key: value.float() for key, value in state.items()}
    notes = [_widen_input(weights, own, unet.pose_channels)]
    fresh_audio = [
        key
        for key in own
        if key.endswith(AUDIO_INPUTS) and _width(weights, key) != own[key].shape[1]
    ]
    if fresh_audio:
        notes.append(
            f"{len(fresh_audio)} key and value weights of the cross-attentions are fresh: audio "
            f"tokens are {own[fresh_audio[0]].shape[1]} wide, text tokens "
            f"{_width(weights, fresh_audio[0])}"
        )
    motion = [key for key in own if "motion_modules." in key]
    if motion:
        notes.append(f"{len(motion)} motion-module entries are fresh, with output zero")
    pose = [key for key in own if key.startswith(POSE)]
    weights.update({key: own[key] for key in (*fresh_audio, *motion, *pose)})
    problem = differences(shapes_of(weights), shapes_of(own))
    if problem:
        raise ModelFileError(f"this Stable Diffusion U-Net does not fit: {problem}")
    unet.load_state_dict(weights)
    return notes


def _widen_input(
    weights: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor], posed: int
) -> str:
    """Put the noisy latents' input weights first and zeros after them."""
    narrow = weights[CONV_IN]
    wide = torch.zeros(narrow.shape[0], own[CONV_IN].shape[1], *narrow.shape[2:])
    if wide.shape[1] < narrow.shape[1]:
        raise ModelFileError(
            f"this Stable Diffusion U-Net takes {narrow.shape[1]} channels, ours "
            f"{wide.shape[1]}: expected at least as many"
        )
    wide[:, : narrow.shape[1]] = narrow
    weights[CONV_IN] = wide
    return (
        f"the input weights of {wide.shape[1] - narrow.shape[1]} channels (mask, masked picture, "
        f"reference{', pose' * bool(posed)}) are zero"
    )


def _width(weights: Mapping[str, torch.Tensor], key: str) -> int:
    value = weights.get(key)
    return int(value.shape[1]) if value is not None and value.ndim == 2 else -1
