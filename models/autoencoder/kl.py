"""Between pixels and latents: the interface of autoencoders, and Stable Diffusion's.

LatentSync uses `sd-vae-ft-mse`, frozen (section 3.1). The tiny recipe trains the one of `patch.py`
instead, and `tiny.py` has a small substitute for Stable Diffusion's. All give latents of about unit
variance at an eighth of the resolution, so that the rest of the model need not know which one it
works with.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import AutoencoderKL
from torch import nn

from models.autoencoder.patch import PatchAutoencoder
from models.autoencoder.tiny import TinyAutoencoder
from models.files.state_dict import load_weights, read_state_dict

SCALING_FACTOR = 0.18215
"""Factor that brings Stable Diffusion's latents to unit variance."""
AUTOENCODERS = ("kl", "patch", "taesd")

SD_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 256,
}
"""Configuration of stabilityai/sd-vae-ft-mse."""
# sd-vae-ft-mse was written by a diffusers that named its attention's layers otherwise.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

Size = int | list[int] | list[str]
"""One of the arguments of a `KLAutoencoder`."""


def sizes_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, dict[str, Size]]:
    """What the shapes in a diffusers file tell about an autoencoder like `SD_VAE`.

    Returns:
        The channels of its latents, and the arguments of `KLAutoencoder` that differ from
        `SD_VAE`, whose norm groups are taken for granted.

    Raises:
        KeyError: an entry that every such autoencoder has is missing.
    """
    first = "encoder.down_blocks.{}.resnets.{}.conv1.weight"
    widths = [shapes[first.format(0, 0)][0]]
    while first.format(len(widths), 0) in shapes:
        widths.append(shapes[first.format(len(widths), 0)][0])
    layers = 1
    while first.format(0, layers) in shapes:
        layers += 1
    found: dict[str, Size] = {
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }
    published = {key: list(v) if isinstance(v, tuple) else v for key, v in SD_VAE.items()}
    options = {key: value for key, value in found.items() if value != published[key]}
    return shapes["decoder.conv_in.weight"][1], options


@runtime_checkable
class Autoencoder(Protocol):
    """Pixels to latents and back. Implementations are `nn.Module`s."""

    latent_channels: int
    """Channels of the latents."""
    factor: int
    """How many pixels a latent cell is wide and high."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, latent_channels, h / factor, w / factor)."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The way back; values may leave [-1, 1] a little."""
        ...


class KLAutoencoder(nn.Module):
    """Stable Diffusion's autoencoder.

    Args:
        scaling_factor: latents are multiplied by it.
        options: values that differ from `SD_VAE`.
    """

    def __init__(self, scaling_factor: float = SCALING_FACTOR, **options: Any) -> None:
        super().__init__()
        config = {**SD_VAE, **options}
        self.vae = AutoencoderKL(**config, scaling_factor=scaling_factor)
        self.scaling_factor = scaling_factor
        self.latent_channels = int(config["latent_channels"])
        self.factor = 2 ** (len(config["block_out_channels"]) - 1)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The mean of the posterior, whose variance is negligible, so runs are repeatable."""
        # Only the weights decide the memory order: see `LatentSync.channels_last`.
        return self.vae.encode(pixels.contiguous()).latent_dist.mode() * self.scaling_factor

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents.contiguous() / self.scaling_factor).sample

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the activations in the backward pass; the decoder's are the largest."""
        self.vae.enable_gradient_checkpointing()

    def load_file(self, path: Path) -> None:
        """Load the weights of a diffusers file such as sd-vae-ft-mse's.

        Raises:
            ModelFileError: it is missing, damaged, or for another network.
        """
        state = {_new_name(key): value for key, value in read_state_dict(path).items()}
        expected = self.vae.state_dict()
        # The old attention's projections are 1x1 convolutions in files converted from .ckpt.
        for key, value in state.items():
            if key in expected and value.ndim == 4 and expected[key].ndim == 2:
                state[key] = value.flatten(1)
        load_weights(self.vae, state, path)


def _new_name(key: str) -> str:
    parts = key.split(".")
    if "attentions" in parts:
        parts = [_OLD_NAMES.get(part, part) for part in parts]
    return ".".join(parts)


def build_autoencoder(
    options: Mapping[str, Any], latent_channels: int, scaling_factor: float
) -> KLAutoencoder | PatchAutoencoder | TinyAutoencoder:
    """An autoencoder with fresh weights.

    Args:
        options: `kind`, "kl" (default), "patch" or "taesd", and that one's own arguments.
        latent_channels: channels of its latents.
        scaling_factor: factor for "kl"; the others give normalised latents.

    Raises:
        ValueError: the kind is unknown.
    """
    rest = dict(options)
    kind = rest.pop("kind", "kl")
    if kind == "kl":
        return KLAutoencoder(scaling_factor, latent_channels=latent_channels, **rest)
    if kind == "patch":
        return PatchAutoencoder(latent_channels=latent_channels, **rest)
    if kind == "taesd":
        return TinyAutoencoder(latent_channels=latent_channels, **rest)
    raise ValueError(f"unknown autoencoder {kind!r}, expected one of {AUTOENCODERS}")
