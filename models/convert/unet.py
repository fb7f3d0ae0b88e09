"""LatentSync's U-Net checkpoints, and Stable Diffusion 1.5's, as a `LipSyncUNet` and back.

Our parameter names are the reference's, so a LatentSync checkpoint needs no renaming, only
a configuration. Most of that shows in the shapes; what does not (number of heads) is the
published networks', unless a configuration is passed.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

import torch

from models.files.errors import ModelFileError
from models.unet import LipSyncUNet
from models.unet.network import UNetOptions

StateDict = Mapping[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]

_MOTION = "motion_modules.0.temporal_transformer."
_POSITION = _MOTION + "transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
_CROSS = "attn2.to_k.weight"
_TWICE = ["Temporal_Self", "Temporal_Self"]


def config_from_reference(reference: Mapping[str, Any]) -> UNetOptions:
    """`LipSyncUNet`'s arguments for the `model` section of a LatentSync U-Net configuration.

    There `attention_head_dim` is the number of heads, as in Stable Diffusion 1.5.

    Raises:
        ValueError: it asks for what neither release of LatentSync uses.
    """
    fixed = {
        "act_fn": "silu",
        "center_input_sample": False,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "resnet_time_scale_shift": "default",
    }
    for key, value in fixed.items():
        if reference.get(key, value) != value:
            raise ValueError(f"{key} = {reference[key]!r} is not supported, only {value!r}")
    moving = bool(reference.get("use_motion_module", False))
    motion = reference.get("motion_module_kwargs", {})
    kinds = list(motion.get("attention_block_types", _TWICE))
    unlike = {
        "add_audio_layer": (reference.get("add_audio_layer", True), True),
        "temporal_position_encoding": (motion.get("temporal_position_encoding", True), True),
        "temporal_attention_dim_div": (motion.get("temporal_attention_dim_div", 1), 1),
        "attention_block_types": (kinds, _TWICE),
    }
    for key, (value, only) in unlike.items():
        if value != only:
            raise ValueError(f"{key} = {value!r} is not supported, only {only!r}")
    return {
        "in_channels": reference["in_channels"],
        "out_channels": reference["out_channels"],
        "block_out_channels": list(reference["block_out_channels"]),
        "layers_per_block": reference["layers_per_block"],
        "attention": [
            "full" if name.startswith("CrossAttn") else "none"
            for name in reference["down_block_types"]
        ],
        "cross_attention_dim": reference["cross_attention_dim"],
        "attention_heads": reference["attention_head_dim"],
        "norm_num_groups": reference.get("norm_num_groups", 32),
        "norm_eps": reference.get("norm_eps", 1e-5),
        "motion_resolutions": list(reference["motion_module_resolutions"]) if moving else [],
        "motion_decoder_only": bool(reference.get("motion_module_decoder_only", False)),
        "motion_mid_block": moving and bool(reference.get("motion_module_mid_block", False)),
        "motion_heads": motion.get("num_attention_heads", 8),
        "motion_layers": motion.get("num_transformer_block", 1),
        "motion_max_frames": motion.get("temporal_position_encoding_max_len", 24),
    }


def shapes_of(state: StateDict) -> dict[str, tuple[int, ...]]:
    """The shape of every entry."""
    return {key: tuple(value.shape) for key, value in state.items()}


def infer_config(shapes: Shapes) -> UNetOptions:
    """`LipSyncUNet`'s arguments as far as the shapes of a checkpoint give them.

    Heads and norm groups are those of the published networks (8, 8 and 32).

    Raises:
        KeyError: an entry that every such U-Net has is missing.
    """
    levels = 0
    while f"down_blocks.{levels}.resnets.0.conv1.weight" in shapes:
        levels += 1
    layers = 0
    while f"down_blocks.0.resnets.{layers}.conv1.weight" in shapes:
        layers += 1
    down = [f"down_blocks.{level}." for level in range(levels)]
    up = [f"up_blocks.{levels - 1 - level}." for level in range(levels)]
    moving = [level for level in range(levels) if up[level] + _MOTION + "norm.weight" in shapes]
    config: UNetOptions = {
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": [shapes[key + "resnets.0.conv1.weight"][0] for key in down],
        "layers_per_block": layers,
        "attention": [
            "full" if key + "attentions.0.norm.weight" in shapes else "none" for key in down
        ],
        "cross_attention_dim": shapes["mid_block.attentions.0.transformer_blocks.0." + _CROSS][1],
        "motion_resolutions": [2**level for level in moving],
        "motion_decoder_only": bool(moving)
        and down[moving[0]] + _MOTION + "norm.weight" not in shapes,
        "motion_mid_block": "mid_block." + _MOTION + "norm.weight" in shapes,
    }
    if moving:
        first = up[moving[0]]
        config["motion_max_frames"] = shapes[first + _POSITION][1]
        config["motion_layers"] = sum(
            key.startswith(first + _MOTION) and key.endswith(".ff_norm.weight") for key in shapes
        )
    return config


def reference_keys(state: StateDict) -> dict[str, torch.Tensor]:
    """A checkpoint's entries under the reference's names (a DDP run puts `module.` before)."""
    return {key.removeprefix("module."): value for key, value in state.items()}


def differences(found: Shapes, expected: Shapes) -> str:
    """A phrase that says what is missing, left over or of another shape; empty if all is equal."""
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    wrong = sorted(key for key in found.keys() & expected.keys() if found[key] != expected[key])
    parts = []
    if missing:
        parts.append(f"{len(missing)} entries are missing (such as {missing[0]})")
    if extra:
        parts.append(f"{len(extra)} entries are unknown (such as {extra[0]})")
    if wrong:
        key = wrong[0]
        parts.append(
            f"{len(wrong)} entries have another shape (such as {key}: {list(found[key])} "
            f"where {list(expected[key])} is expected)"
        )
    return ", ".join(parts)


def empty_unet(config: Mapping[str, Any]) -> LipSyncUNet:
    """A U-Net without storage, to be given its weights by `load_state_dict(assign=True)`."""
    with torch.device("meta"):
        return LipSyncUNet(**config)


def unet_from_reference(state: StateDict, config: Mapping[str, Any] | None = None) -> LipSyncUNet:
    """A LatentSync U-Net from the `state_dict` of its checkpoint.

    Args:
        state: the checkpoint's entries; they become the network's own, without a copy.
        config: arguments of `LipSyncUNet`; inferred from the shapes when not given.

    Raises:
        ModelFileError: an entry is missing, left over or of another shape.
    """
    entries = reference_keys(state)
    try:
        unet = empty_unet(config if config is not None else infer_config(shapes_of(entries)))
    except (KeyError, IndexError, ValueError) as error:
        raise ModelFileError(
            f"this is not a LatentSync U-Net: its configuration cannot be inferred ({error})"
        ) from error
    problem = differences(shapes_of(entries), shapes_of(unet.state_dict()))
    if problem:
        raise ModelFileError(f"this is not a LatentSync U-Net of the expected size: {problem}")
    unet.load_state_dict(entries, assign=True)
    return unet


class ReferenceCheckpoint(TypedDict):
    """Content of a LatentSync checkpoint file."""

    global_step: int
    state_dict: dict[str, torch.Tensor]


def unet_to_reference(unet: LipSyncUNet, global_step: int = 0) -> ReferenceCheckpoint:
    """The content of a LatentSync checkpoint file."""
    return {"global_step": global_step, "state_dict": dict(unet.state_dict())}
