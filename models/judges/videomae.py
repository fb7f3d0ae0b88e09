"""VideoMAE features of a window of frames, which TREPA compares (LatentSync, section 3.4).

The network is transformers' VideoMAE with mean pooling and a final norm (`fc_norm`).
`load_videomae` takes VideoMAE-v2's checkpoint (ViT-g/14, 1408 wide), and Hugging Face's
files, such as MCG-NJU/videomae-base, with the config.json next to them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.files.errors import ModelFileError
from models.files.state_dict import check_fit, load_weights, read_state_dict


@dataclass(frozen=True)
class VideoMAEConfig:
    """Sizes of the network; the defaults are VideoMAE-v2's ViT-g/14."""

    img_size: int = 224
    """Height and width that frames are resized to."""
    patch_size: int = 14
    """Side of a patch in pixels."""
    embed_dim: int = 1408
    """Width, and the number of features."""
    depth: int = 40
    """Blocks."""
    num_heads: int = 16
    """Attention heads."""
    mlp_ratio: float = 48 / 11
    """Hidden width of the feed-forward over `embed_dim`."""
    all_frames: int = 16
    """Frames per window."""
    tubelet_size: int = 2
    """Frames per patch."""
    layer_norm_eps: float = 1e-6
    """Of every layer norm."""
    fc_norm: bool = True
    """Normalise the pooled features, as VideoMAE-v2 does."""


class VideoMAE(nn.Module):
    """Features of 16 frames; differentiable, frozen."""

    def __init__(self, config: VideoMAEConfig | None = None) -> None:
        from transformers.models.videomae import configuration_videomae, modeling_videomae

        super().__init__()
        config = config or VideoMAEConfig()
        self.config = config
        self.dim = config.embed_dim
        self.backbone = modeling_videomae.VideoMAEModel(
            configuration_videomae.VideoMAEConfig(
                image_size=config.img_size,
                patch_size=config.patch_size,
                num_frames=config.all_frames,
                tubelet_size=config.tubelet_size,
                hidden_size=config.embed_dim,
                num_hidden_layers=config.depth,
                num_attention_heads=config.num_heads,
                intermediate_size=int(config.embed_dim * config.mlp_ratio),
                layer_norm_eps=config.layer_norm_eps,
                use_mean_pooling=True,
            )
        )
        norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.fc_norm = norm if config.fc_norm else nn.Identity()
        self.requires_grad_(False).eval()

    def enable_gradient_checkpointing(self) -> None:
        """Recompute blocks in the backward pass: less memory, more time."""
        self.backbone.activation_checkpointing_enable({"use_reentrant": False})
        self.backbone.train()

    def features(self, video: torch.Tensor) -> torch.Tensor:
        """(b, 3, 16, img_size, img_size) in [0, 1] -> (b, embed_dim)."""
        return self.fc_norm(self.backbone(video.transpose(1, 2)).last_hidden_state.mean(1))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Unit-length features of frames as the U-Net's decoder gives them.

        Args:
            frames: (b, 16, 3, h, w) in [-1, 1]; resized bicubically.

        Returns:
            (b, embed_dim).
        """
        b, f = frames.shape[:2]
        size = (self.config.img_size, self.config.img_size)
        resized = F.interpolate(frames.flatten(0, 1), size, mode="bicubic", align_corners=False)
        video = (resized / 2 + 0.5).clamp(0, 1).unflatten(0, (b, f)).transpose(1, 2)
        return F.normalize(self.features(video), dim=1)


_PATCHES = "backbone.embeddings.patch_embeddings.projection"
_V2_NAMES = {
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
}


_OLD_NAMES = {
    "attention.attention.q_bias": "attention.attention.query.bias",
    "attention.attention.v_bias": "attention.attention.value.bias",
}
"""Published files were written before transformers 5 gave these biases other names."""
_UNUSED = ("decoder.", "encoder_to_decoder.", "mask_token", "classifier.", "layernorm.")
"""Entries besides the encoder's, of pre-training, a classifier or a model without mean pooling."""


def convert_v2(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """VideoMAE-v2's names to `VideoMAE`'s; the classifier's head is dropped."""
    converted = {}
    for key, value in weights.items():
        if key.startswith("head."):
            continue
        # Anything else has no place in the network, which refuses it.
        if key.count(".") < 3 or not key.startswith("blocks."):
            converted[key.replace("patch_embed.proj", _PATCHES)] = value
            continue
        _, index, rest = key.split(".", 2)
        layer = f"backbone.encoder.layer.{index}"
        attention = f"{layer}.attention.attention"
        if rest == "attn.qkv.weight":
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=False):
                converted[f"{attention}.{name}.weight"] = part
        elif rest in ("attn.q_bias", "attn.v_bias"):
            converted[f"{attention}.{'query' if rest == 'attn.q_bias' else 'value'}.bias"] = value
        else:
            name, kind = rest.rsplit(".", 1)
            converted[f"{layer}.{_V2_NAMES.get(name, name)}.{kind}"] = value
    return converted


def convert_transformers(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of Hugging Face's files to `VideoMAE`'s; weights that features do not need are
    dropped."""
    converted = {}
    for key, value in weights.items():
        name = key.removeprefix("videomae.")
        if name.startswith(_UNUSED):
            continue
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
        converted[name if name.startswith("fc_norm.") else f"backbone.{name}"] = value
    return converted


def load_videomae(path: Path, config: VideoMAEConfig | None = None) -> VideoMAE:
    """The network of a file, or of a folder of Hugging Face's.

    Args:
        path: VideoMAE-v2's checkpoint; or a .safetensors file with its `config.json` beside
            it, or the folder of both.
        config: of a VideoMAE-v2 of another size.

    Raises:
        ModelFileError: it is none of these, or has other sizes.
    """
    told, weights = _read(Path(path))
    network = _build(config or told, path)
    load_weights(network, weights, path)
    return network.requires_grad_(False).eval()


def check_videomae(path: Path) -> None:
    """Check within seconds that `load_videomae` would accept a file, by its names and shapes.

    Raises:
        ModelFileError: it would not.
    """
    config, weights = _read(Path(path))
    with torch.device("meta"):
        network = _build(config, path)
    check_fit(network, weights, path)


def _build(config: VideoMAEConfig, path: Path) -> VideoMAE:
    try:
        return VideoMAE(config)
    except (TypeError, ValueError, ZeroDivisionError) as problem:
        raise ModelFileError(
            f"the config.json next to {path} is not a VideoMAE's ({problem}): fetch it again"
        ) from problem


def _read(path: Path) -> tuple[VideoMAEConfig, dict[str, torch.Tensor]]:
    """Sizes and weights; the sizes of VideoMAE-v2 if the file does not state any."""
    if not path.is_dir() and path.suffix != ".safetensors":
        return VideoMAEConfig(), convert_v2(read_state_dict(path))
    folder = path if path.is_dir() else path.parent
    sizes = _read_config(folder / "config.json")
    weights = convert_transformers(
        read_state_dict(path / "model.safetensors" if path.is_dir() else path)
    )
    try:
        config = VideoMAEConfig(
            img_size=sizes["image_size"],
            patch_size=sizes["patch_size"],
            embed_dim=sizes["hidden_size"],
            depth=sizes["num_hidden_layers"],
            num_heads=sizes["num_attention_heads"],
            mlp_ratio=sizes["intermediate_size"] / sizes["hidden_size"],
            all_frames=sizes["num_frames"],
            tubelet_size=sizes["tubelet_size"],
            layer_norm_eps=sizes["layer_norm_eps"],
            fc_norm="fc_norm.weight" in weights,
        )
    except (KeyError, TypeError, ZeroDivisionError) as problem:
        raise ModelFileError(
            f"model folder {folder} is not a VideoMAE: its config.json has no {problem}"
        ) from problem
    return config, weights


def _read_config(path: Path) -> dict[str, Any]:
    try:
        sizes = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise ModelFileError(
            f"{path}, which states the sizes of the VideoMAE next to it, is missing: "
            "`python -m tasks.weights fetch videomae-base-config` fetches videomae-base's"
        ) from problem
    except (OSError, ValueError) as problem:
        raise ModelFileError(f"{path} cannot be read as JSON: {problem}") from problem
    if not isinstance(sizes, dict):
        raise ModelFileError(f"{path} is not a JSON object, so it does not describe a VideoMAE")
    return sizes
