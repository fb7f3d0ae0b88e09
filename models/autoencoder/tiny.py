"""The tiny autoencoder of Stable Diffusion's latents (TAESD, by Ollin Boer Bohan): 2.4 million
weights instead of 84, for machines without a large GPU.

Its latents are Stable Diffusion's and already scaled, so a network that was trained with one of
the two can be used with the other, less sharply.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import nn

from models.files.errors import ModelFileError
from models.files.state_dict import load_weights, read_state_dict

WHOLE = "diffusion_pytorch_model.safetensors"
HALVES = ("taesd_encoder.safetensors", "taesd_decoder.safetensors")
"""The original files: encoder and decoder alone, in the order of their layers."""


class TinyAutoencoder(nn.Module):
    """TAESD: pixels to latents at an eighth of the resolution, and back.

    Args:
        latent_channels: channels of the latents; 4 in the published one.
        options: arguments of diffusers' `AutoencoderTiny`.
    """

    def __init__(self, latent_channels: int = 4, **options: Any) -> None:
        super().__init__()
        self.vae = AutoencoderTiny(latent_channels=latent_channels, **options)
        self.latent_channels = latent_channels
        self.factor = 2 ** (len(self.vae.config.encoder_block_out_channels) - 1)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, latent_channels, h / 8, w / 8)."""
        return self.vae.encode(pixels).latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The way back; values may leave [-1, 1] a little."""
        return self.vae.decode(latents).sample

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the activations in the backward pass."""
        self.vae.enable_gradient_checkpointing()

    def load_file(self, path: Path) -> None:
        """Load the published weights.

        Args:
            path: diffusers' file, or a folder with it or with the two original files.

        Raises:
            ModelFileError: they are missing, damaged, or for another network.
        """
        load_weights(self.vae, _read(Path(path)), Path(path))


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_dir():
        return read_state_dict(path)
    if (path / WHOLE).is_file():
        return read_state_dict(path / WHOLE)
    encoder, decoder = (path / name for name in HALVES)
    if not (encoder.is_file() and decoder.is_file()):
        raise ModelFileError(
            f"the folder {path} does not hold TAESD: expected {WHOLE}, or {' and '.join(HALVES)}"
        )
    weights = {f"encoder.layers.{key}": value for key, value in read_state_dict(encoder).items()}
    for key, value in read_state_dict(decoder).items():
        index, _, rest = key.partition(".")
        if not index.isdigit():
            raise ModelFileError(
                f"model file {decoder} is not TAESD's decoder: it has an entry {key}"
            )
        # The original's first layer, which limits its input, has no weights and is no layer here.
        weights[f"decoder.layers.{int(index) - 1}.{rest}"] = value
    return weights
