"""AV-HuBERT's files: fairseq's checkpoints, pre-trained or fine-tuned, and ours as safetensors.

fairseq's files hold more than tensors: an instance of its dictionary class, and numpy's numbers.
They are read without fairseq and without running anything: for that class stands an empty one of
ours, numpy's numbers are allowed by name, and everything else is refused with its name.

What shapes do not tell (norm order, heads) is read from the file's own configuration, never
guessed: the wrong one loads without complaint and gives other numbers.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
from torch import Tensor

from models.files.errors import ModelFileError
from models.files.new_output import save_weights
from models.files.state_dict import (
    check_finite,
    read_checkpoint,
    read_state_dict,
    unsafe_names,
    unwrap,
)

LICENCE = "av-hubert"
"""The name under which these weights' terms are accepted."""
KIND = "avhubert"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
DICTIONARY = "fairseq.data.dictionary.Dictionary"
FINE_TUNED = "encoder.w2v_model."
"""Where a fine-tuned file has the encoder, beside `decoder.`."""
LEFT_OVER = ("feature_extractor_video.*", "mask_emb", "final_proj.*", "label_embs_concat")
"""The four kinds of entries of a whole checkpoint that sound does not need."""
LARGEST = 65_536
"""Largest size in a configuration that is believed."""
_OUTER = {
    "feature_extractor_audio.proj.": "proj.",
    "layer_norm.": "norm.",
    "post_extract_proj.": "merge.",
    "encoder.layer_norm.": "encoder.layer_norm.",
}
_POSITION = {
    "encoder.pos_conv.0.bias": "encoder.pos_conv_embed.conv.bias",
    "encoder.pos_conv.0.weight_g": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    "encoder.pos_conv.0.weight_v": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
}
_BLOCK = {
    "self_attn.q_proj": "attention.q_proj",
    "self_attn.k_proj": "attention.k_proj",
    "self_attn.v_proj": "attention.v_proj",
    "self_attn.out_proj": "attention.out_proj",
    "self_attn_layer_norm": "layer_norm",
    "fc1": "feed_forward.intermediate_dense",
    "fc2": "feed_forward.output_dense",
    "final_layer_norm": "final_layer_norm",
}


class _Inert:
    """Stands for fairseq's dictionary class: holds what it is given and does nothing."""


_SCALAR: Any = np.float64(0).__reduce__()[0]
"""What numpy's numbers are made with when they are read."""
_STAND_INS: tuple[Any, ...] = (
    (_Inert, DICTIONARY),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(
        getattr(np.dtypes, f"{kind}DType")
        for kind in ("Float64", "Float32", "Float16", "Int64", "Int32", "Bool")
    ),
)
"""All that may be in such a file besides tensors and plain values."""


class AVHubertSizes(TypedDict):
    """Arguments of `AVHubertTokens` that a file contains."""

    width: int
    layers: int
    heads: int
    inner: int
    positions: int
    position_groups: int
    pre_norm: bool
    normalize: bool


_NUMBERS = {
    "width": "encoder_embed_dim",
    "layers": "encoder_layers",
    "heads": "encoder_attention_heads",
    "inner": "encoder_ffn_embed_dim",
    "positions": "conv_pos",
    "position_groups": "conv_pos_groups",
}
"""Our name of a size -> fairseq's."""
_ABSENT = {"conv_pos": 128, "conv_pos_groups": 16}
"""Sizes that published files do not name, since they are fairseq's defaults."""
_ONLY: dict[str, tuple[Any, bool]] = {
    "stack_order_audio": (4, True),
    "audio_feat_dim": (104, True),
    "modality_fuse": ("concat", False),
    "activation_fn": ("gelu", False),
    "sub_encoder_layers": (0, False),
}
"""What a configuration must say, and whether it must say it at all."""


def is_fairseq(path: Path) -> bool:
    """Whether a file is one of fairseq's checkpoints, told without loading it."""
    return DICTIONARY in unsafe_names(path)


def read_avhubert(path: Path) -> tuple[AVHubertSizes, dict[str, Tensor]]:
    """Sizes and weights, under `AVHubertTokens`' names, of a published file or of our folder.

    Raises:
        ModelFileError: it is neither, or hostile, or contradicts itself.
    """
    if path.is_dir():
        return _read_folder(path)
    return from_fairseq(read_checkpoint(path, _STAND_INS), path)


def from_fairseq(content: Any, path: Path) -> tuple[AVHubertSizes, dict[str, Tensor]]:
    """The same from what a published file holds; `path` is for messages.

    Raises:
        ModelFileError: it is something else, or contradicts itself.
    """
    parts = content if isinstance(content, dict) else {}
    config = parts.get("cfg")
    if not isinstance(config, dict) or not isinstance(parts.get("model"), dict):
        raise ModelFileError(
            f"model file {path} is not an AV-HuBERT checkpoint: expected fairseq's 'cfg' and "
            "'model'"
        )
    encoder = unwrap({"model": parts["model"]}, path)
    if any(key.startswith(FINE_TUNED) for key in encoder):
        config = _part(_part(config, "model"), "w2v_args")
        encoder = {
            key.removeprefix(FINE_TUNED): value
            for key, value in encoder.items()
            if not key.startswith("decoder.")
        }
    sizes = _sizes(config, path)
    weights = _converted(encoder, path)
    _check(sizes, weights, path)
    return sizes, weights


def _part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _sizes(config: Mapping[str, Any], path: Path) -> AVHubertSizes:
    """What a configuration says, with nothing assumed that the published ones say."""
    task = _part(config, "task")
    said = {**task, **_part(config, "model")}
    for name, (only, needed) in _ONLY.items():
        found = said.get(name, None if needed else only)
        if found != only:
            raise ModelFileError(
                f"model file {path} has {name} {found!r} in its configuration where {only!r} was "
                "expected: no published AV-HuBERT has it, give one of these"
            )
    sizes: dict[str, Any] = {}
    for ours, theirs in _NUMBERS.items():
        value = said.get(theirs, _ABSENT.get(theirs))
        if type(value) is not int or not 1 <= value <= LARGEST:
            raise ModelFileError(
                f"model file {path} has {theirs} {value!r} in its configuration where a positive "
                "whole number was expected: it cannot be told what the weights belong to"
            )
        sizes[ours] = value
    # Where it is absent, fairseq's own default.
    for ours, value in (
        ("pre_norm", said.get("layer_norm_first", False)),
        ("normalize", task.get("normalize", False)),
    ):
        if type(value) is not bool:
            raise ModelFileError(
                f"model file {path} has {value!r} for {ours} in its configuration where true or "
                "false was expected"
            )
        sizes[ours] = value
    return cast(AVHubertSizes, sizes)


def _converted(entries: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The entries that sound needs, under our names.

    Raises:
        ModelFileError: others than the four known kinds are left over.
    """
    weights = {}
    for key, value in entries.items():
        if any(fnmatchcase(key, each) for each in LEFT_OVER):
            continue
        name = _our_name(key)
        if name is None:
            raise ModelFileError(
                f"model file {path} has the entry {key}, which no AV-HuBERT has: expected the "
                f"encoder's own and {', '.join(LEFT_OVER)}"
            )
        weights[name] = value.float() if value.is_floating_point() else value
    return weights


def _our_name(key: str) -> str | None:
    if key in _POSITION:
        return _POSITION[key]
    if key.startswith("encoder.layers."):
        index, _, rest = key.removeprefix("encoder.layers.").partition(".")
        name, _, kind = rest.rpartition(".")
        known = index.isdigit() and name in _BLOCK and kind in ("weight", "bias")
        return f"encoder.layers.{index}.{_BLOCK[name]}.{kind}" if known else None
    for theirs, ours in _OUTER.items():
        if key in (theirs + "weight", theirs + "bias"):
            return ours + key.removeprefix(theirs)
    return None


def _check(sizes: AVHubertSizes, weights: Mapping[str, Tensor], path: Path) -> None:
    """Check that the weights have the stated sizes, before anything is built."""
    missing = [name for name in _needed(sizes["layers"]) if name not in weights]
    if missing:
        raise ModelFileError(
            f"model file {path} lacks {len(missing)} entries of an AV-HuBERT encoder with "
            f"{sizes['layers']} blocks, first {missing[0]}"
        )
    told = {
        "width": weights["proj.weight"].shape[0],
        "layers": sum(key.endswith(".attention.q_proj.weight") for key in weights),
        "inner": weights[_block(0, "fc1")].shape[0],
        "positions": weights[_POSITION["encoder.pos_conv.0.weight_v"]].shape[-1],
    }
    for name, found in told.items():
        said = dict(sizes)[name]
        if said != found:
            raise ModelFileError(
                f"model file {path} contradicts itself: its configuration says {name} {said}, its "
                f"weights have {found}"
            )
    if sizes["width"] % sizes["heads"] or sizes["width"] % sizes["position_groups"]:
        raise ModelFileError(
            f"model file {path} contradicts itself: its configuration says {sizes['heads']} heads "
            f"and {sizes['position_groups']} position groups, which do not divide its width "
            f"{sizes['width']}"
        )


def _block(index: int, name: str, kind: str = "weight") -> str:
    return f"encoder.layers.{index}.{_BLOCK[name]}.{kind}"


def _needed(layers: int) -> list[str]:
    """Our names of all entries of an encoder with so many blocks."""
    kinds = ("weight", "bias")
    outer = [ours + kind for ours in _OUTER.values() for kind in kinds]
    blocks = [
        _block(index, name, kind) for index in range(layers) for name in _BLOCK for kind in kinds
    ]
    return [*outer, *_POSITION.values(), *blocks]


def write_avhubert(
    folder: Path, sizes: AVHubertSizes, weights: Mapping[str, Tensor], source_sha256: str
) -> None:
    """Keep an encoder as safetensors, with its sizes and the sha256 of the file it is from.

    Raises:
        ModelFileError: a value is not a number.
    """
    check_finite(weights, folder)
    about = {"kind": KIND, **sizes, "source_sha256": source_sha256, "licence": LICENCE}
    save_weights({key: value.contiguous() for key, value in weights.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _read_folder(path: Path) -> tuple[AVHubertSizes, dict[str, Tensor]]:
    try:
        about = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        if about["kind"] != KIND:
            raise KeyError("kind")
        sizes = {name: about[name] for name in AVHubertSizes.__annotations__}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ModelFileError(
            f"model folder {path} is not a converted AV-HuBERT encoder: its {CONFIG} or its "
            f"{problem} is missing"
        ) from problem
    for name, value in sizes.items():
        kind = AVHubertSizes.__annotations__[name]
        if type(value) is not kind or (kind is int and not 1 <= value <= LARGEST):
            raise ModelFileError(
                f"model folder {path} has {name} {value!r} in its {CONFIG} where a {kind.__name__} "
                "of a real encoder was expected"
            )
    weights = read_state_dict(path / WEIGHTS)
    found = cast(AVHubertSizes, sizes)
    _check(found, weights, path)
    return found, weights
