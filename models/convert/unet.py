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

CONV_IN, CONV_OUT = "conv_in.weight", "conv_out.weight"
AUDIO_INPUTS = ("attn2.to_k.weight", "attn2.to_v.weight")
"""Ends of the names of weights that read audio tokens."""
POSE = "bottleneck."
"""Beginning of the names of a pose's bottleneck."""
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
        "in_channels": shapes[CONV_IN][1],
        "out_channels": shapes[CONV_OUT][0],
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
    if config is None and (count := _pose_columns(entries)):
        raise ModelFileError(
            f"this U-Net has {count} input channels for the pose of an earlier frame, which shapes "
            "do not explain: use the bundle it is from instead of its weights alone"
        )
    problem = differences(shapes_of(entries), shapes_of(unet.state_dict()))
    if problem:
        raise ModelFileError(f"this is not a LatentSync U-Net of the expected size: {problem}")
    unet.load_state_dict(entries, assign=True)
    return unet


def with_own_audio(
    weights: dict[str, torch.Tensor], unet: LipSyncUNet
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights that a U-Net with other audio tokens can start from.

    Returns:
        The weights, with the U-Net's fresh ones where tokens of another width are read, and a note
        if there are any.
    """
    own = unet.state_dict()
    fresh = {
        key: own[key]
        for key in own
        if key.endswith(AUDIO_INPUTS) and key in weights and weights[key].shape != own[key].shape
    }
    if not fresh:
        return weights, []
    key, value = next(iter(fresh.items()))
    note = (
        f"{len(fresh)} key and value weights of the cross-attentions are fresh: audio tokens are "
        f"{value.shape[-1]} wide, those that these weights know {weights[key].shape[-1]}"
    )
    return {**weights, **fresh}, [note]


def _pose_columns(state: StateDict) -> int:
    """How many input channels a U-Net has besides noise, mask, masked picture and reference."""
    first, last = state.get(CONV_IN), state.get(CONV_OUT)
    if first is None or last is None or first.ndim < 2:
        return 0
    return max(0, first.shape[1] - 3 * last.shape[0] - 1)


def with_pose_inputs(
    weights: dict[str, torch.Tensor], unet: LipSyncUNet, where: str
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights that a U-Net with a pose can start from, where they are of one without.

    Args:
        weights: a U-Net's entries; they are not changed.
        unet: the one that is to start from them.
        where: what they are from, for messages.

    Returns:
        The weights, with zeros for the pose's input channels and the bottleneck's fresh weights
        added, and a note if anything was.

    Raises:
        ModelFileError: they are of a U-Net with another pose.
    """
    found, own = _pose_columns(weights), unet.pose_channels
    if found and found != own:
        raise ModelFileError(
            f"{where} was trained with {found} input channels for the pose of an earlier frame, "
            f"this model has {own}: set model.pose accordingly, or start from other weights"
        )
    if found == own or CONV_IN not in weights:
        return weights, []
    narrow, state = weights[CONV_IN], unet.state_dict()
    zeros = torch.zeros_like(narrow[:, :1]).expand(-1, own, *narrow.shape[2:])
    fresh = {key: value for key, value in state.items() if key.startswith(POSE)}
    wide = torch.cat([narrow, zeros], dim=1)
    note = f"the input weights of the pose's {own} channels are zero, its bottleneck is fresh"
    return {**weights, CONV_IN: wide, **fresh}, [note]


class ReferenceCheckpoint(TypedDict):
    """Content of a LatentSync checkpoint file."""

    global_step: int
    state_dict: dict[str, torch.Tensor]


def unet_to_reference(unet: LipSyncUNet, global_step: int = 0) -> ReferenceCheckpoint:
    """The content of a LatentSync checkpoint file."""
    return {"global_step": global_step, "state_dict": dict(unet.state_dict())}
