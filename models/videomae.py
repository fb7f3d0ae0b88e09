"""VideoMAE features of a window of frames: what TREPA compares (LatentSync, section 3.4).

The network is transformers' VideoMAE with mean pooling and a final norm (`fc_norm`).
VideoMAE-v2's checkpoint (ViT-g/14, 1408 wide) loads by `load_videomae_v2`, any folder of
transformers (such as MCG-NJU/videomae-base) by `load_videomae_folder`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from models.checkpoint_files import load_weights, read_state_dict
from models.files import ModelFileError


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


def convert_v2(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """VideoMAE-v2's names to `VideoMAE`'s; the classifier's head is dropped."""
    converted = {}
    for key, value in weights.items():
        if key.startswith("head."):
            continue
        if not key.startswith("blocks."):
            converted[key.replace("patch_embed.proj", _PATCHES)] = value
            continue
        _, index, rest = key.split(".", 2)
        layer = f"backbone.encoder.layer.{index}"
        attention = f"{layer}.attention.attention"
        if rest == "attn.qkv.weight":
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                converted[f"{attention}.{name}.weight"] = part
        elif rest in ("attn.q_bias", "attn.v_bias"):
            converted[f"{attention}.{'query' if rest == 'attn.q_bias' else 'value'}.bias"] = value
        else:
            name, kind = rest.rsplit(".", 1)
            converted[f"{layer}.{_V2_NAMES.get(name, name)}.{kind}"] = value
    return converted


def load_videomae_v2(path: Path, config: VideoMAEConfig | None = None) -> VideoMAE:
    """The network of a VideoMAE-v2 checkpoint.

    Raises:
        ModelFileError: the file is not that, or of other sizes.
    """
    weights = read_state_dict(path)
    network = VideoMAE(config)
    load_weights(network, convert_v2(weights), path)
    return network.requires_grad_(False).eval()


def load_videomae_folder(path: Path) -> VideoMAE:
    """The network of a transformers folder, without classifier or decoder.

    Raises:
        ModelFileError: the folder holds no VideoMAE.
    """
    import json

    path = Path(path)
    try:
        sizes = json.loads((path / "config.json").read_text(encoding="utf-8"))
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
            fc_norm=False,
        )
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ModelFileError(
            f"model folder {path} is no VideoMAE: its config.json is missing or lacks {problem}"
        ) from problem
    network = VideoMAE(config)
    weights = {
        f"backbone.{key.removeprefix('videomae.')}": value
        for key, value in read_state_dict(path / "model.safetensors").items()
    }
    own = network.state_dict().keys()
    load_weights(network, {k: v for k, v in weights.items() if k in own}, path)
    return network.requires_grad_(False).eval()
