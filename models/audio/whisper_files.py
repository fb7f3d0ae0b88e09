"""Whisper's files: OpenAI's `tiny.pt`, Hugging Face's folders, and conversion between them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import torch

from models.files.errors import ModelFileError
from models.files.state_dict import read_checkpoint, read_state_dict, unwrap

DIMS = {
    "n_audio_state": ("width", "d_model"),
    "n_audio_layer": ("layers", "encoder_layers"),
    "n_audio_head": ("heads", "encoder_attention_heads"),
    "n_mels": ("mels", "num_mel_bins"),
    "n_audio_ctx": ("context", "max_source_positions"),
}
"""OpenAI's name of a size -> ours, and Hugging Face's."""
MAX_CONTEXT = 1500
"""Steps of the published encoders, 30 s."""
_OPENAI_NAMES = {
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
}


def convert_openai(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """OpenAI's names of an encoder's weights (without "encoder.") to transformers'."""
    converted = {}
    for key, value in weights.items():
        if key == "positional_embedding":
            key = "embed_positions.weight"
        elif key.startswith("ln_post."):
            key = key.replace("ln_post.", "layer_norm.")
        # A name with fewer parts stays, so that loading the weights refuses it.
        elif key.startswith("blocks.") and key.count(".") > 2:
            _, index, rest = key.split(".", 2)
            name, kind = rest.rsplit(".", 1)
            key = f"layers.{index}.{_OPENAI_NAMES.get(name, name)}.{kind}"
        converted[key] = value
    return converted


class EncoderSizes(TypedDict):
    """Arguments of `WhisperTokens` that a file contains."""

    width: int
    layers: int
    heads: int
    mels: int
    context: int


class OpenAICheckpoint(TypedDict):
    """Content of a file like OpenAI's."""

    dims: dict[str, int]
    """Sizes, under OpenAI's names."""
    model_state_dict: dict[str, torch.Tensor]


def to_openai(folder: Path) -> OpenAICheckpoint:
    """A Hugging Face folder's encoder as the content of a file like OpenAI's, without decoder.

    Raises:
        ModelFileError: the folder does not hold a Whisper encoder.
    """
    sizes, weights = read_folder(folder)
    theirs = {value: key for key, value in _OPENAI_NAMES.items()}
    converted = {}
    for key, value in weights.items():
        if key == "embed_positions.weight":
            key = "positional_embedding"
        elif key.startswith("layer_norm."):
            key = key.replace("layer_norm.", "ln_post.")
        elif key.startswith("layers."):
            index, _, rest = key.removeprefix("layers.").partition(".")
            name, _, kind = rest.rpartition(".")
            if name not in theirs:
                raise ModelFileError(
                    f"model folder {folder} is not a Whisper model: "
                    f"its weights have an unknown entry {key}"
                )
            key = f"blocks.{index}.{theirs[name]}.{kind}"
        converted[f"encoder.{key}"] = value
    known = dict[str, Any](sizes)
    dims = {name: known[size] for name, (size, _) in DIMS.items()}
    return {"dims": dims, "model_state_dict": converted}


def _check_sizes(sizes: Mapping[str, Any], path: Path) -> None:
    wrong = [name for name, size in sizes.items() if type(size) is not int or size < 1]
    if wrong:
        raise ModelFileError(
            f"model file {path} is not a Whisper model: "
            f"its {wrong[0]} is {sizes[wrong[0]]!r} where a "
            "positive whole number was expected"
        )
    # Half of the width are sines of the position, half cosines.
    if sizes["width"] % sizes["heads"] or sizes["width"] % 2:
        raise ModelFileError(
            f"model file {path} is not a Whisper model: "
            f"its width {sizes['width']} is not even or not a "
            f"multiple of its {sizes['heads']} heads"
        )


def _check_weights(
    sizes: Mapping[str, Any], weights: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Check that the weights have the stated sizes, before anything is built."""
    first, places = weights.get("conv1.weight"), weights.get("embed_positions.weight")
    if first is None or first.ndim != 3:
        raise ModelFileError(
            f"model file {path} is not a Whisper model: it has no encoder.conv1.weight"
        )
    layers = {part for key in weights for part in key.split(".")[1:2] if part.isdigit()}
    told = {"width": first.shape[0], "mels": first.shape[1], "layers": len(layers)}
    if places is not None:
        told["context"] = places.shape[0]
    elif sizes["context"] > MAX_CONTEXT:
        told["context"] = MAX_CONTEXT
    for name, size in told.items():
        if sizes[name] != size:
            raise ModelFileError(
                f"model file {path} is not a Whisper model: "
                f"it says {name} {sizes[name]}, its weights have "
                f"{size}"
            )


def read_openai(path: Path) -> tuple[EncoderSizes, dict[str, torch.Tensor]]:
    """Sizes and encoder weights, under transformers' names, of a file like `tiny.pt`.

    Raises:
        ModelFileError: the file is not such a checkpoint.
    """
    content = read_checkpoint(path)
    dims = content.get("dims") if isinstance(content, dict) else None
    if not isinstance(dims, dict) or not DIMS.keys() <= dims.keys():
        raise ModelFileError(
            f"model file {path} is not a Whisper checkpoint: expected 'dims' and 'model_state_dict'"
        )
    sizes = {size: dims[name] for name, (size, _) in DIMS.items()}
    _check_sizes(sizes, path)
    weights = unwrap(content, path)
    encoder = {
        key.removeprefix("encoder."): value
        for key, value in weights.items()
        if key.startswith("encoder.")
    }
    converted = convert_openai(encoder)
    _check_weights(sizes, converted, path)
    return cast(EncoderSizes, sizes), converted


def read_folder(path: Path) -> tuple[EncoderSizes, dict[str, torch.Tensor]]:
    """The same from a Hugging Face folder.

    Raises:
        ModelFileError: it does not hold a Whisper encoder.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        sizes = {size: config[name] for size, name in DIMS.values()}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ModelFileError(
            f"model folder {path} is not a Whisper model: "
            f"its config.json or its {problem} is missing"
        ) from problem
    _check_sizes(sizes, path)
    weights = read_state_dict(path / "model.safetensors")
    prefixes = ("model.encoder.", "encoder.")
    prefix = next((p for p in prefixes if any(key.startswith(p) for key in weights)), "")
    encoder = {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }
    _check_weights(sizes, encoder, path)
    return cast(EncoderSizes, sizes), encoder
