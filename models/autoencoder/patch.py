"""A small autoencoder that learns in minutes on a CPU, for the tiny recipe (ours, no paper).

A picture is cut into patches of 8 x 8; encoder and decoder are a linear map per patch plus
a convolutional branch on the grid of patches. The linear maps start as the lowest
frequencies of a cosine transform, as in JPEG, and the branches at zero: the untrained
network is already a usable code, and training improves on it.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
"""Share of each colour in brightness (ITU-R BT.601)."""


def cosine_basis(patch: int) -> torch.Tensor:
    """(patch * patch, patch, patch) orthonormal cosines, low frequencies first."""
    k = torch.arange(patch, dtype=torch.float64)
    table = torch.cos(math.pi / patch * k[:, None] * (k[None] + 0.5)) * math.sqrt(2 / patch)
    table[0] /= math.sqrt(2)
    basis = torch.einsum("ay,bx->abyx", table, table).reshape(patch * patch, patch, patch)
    order = (k[:, None] + k[None] + 1e-3 * (k[:, None] - k[None]).abs()).flatten().argsort()
    return basis[order].float()


def colour_basis(patch: int, channels: int) -> torch.Tensor:
    """The `channels` orthonormal patterns that matter most in pictures.

    Brightness gets three of four, the two colour axes share the rest.

    Returns:
        (channels, 3 * patch * patch), columns ordered as `pixel_unshuffle` orders pixels.
    """
    luma = F.normalize(torch.tensor(LUMA), dim=0)
    first = F.normalize(torch.linalg.cross(luma, torch.tensor([0.0, 1.0, 0.0])), dim=0)
    second = torch.linalg.cross(luma, first)
    waves = cosine_basis(patch).flatten(1)
    axes: tuple[list[torch.Tensor], ...] = ([], [], [])
    for axis, colour in zip(axes, (luma, first, second), strict=True):
        axis.extend(torch.outer(colour, wave).flatten() for wave in waves)
    picked: list[torch.Tensor] = []
    while len(picked) < channels:
        # Of 8 channels: 6 of brightness and one of each colour axis.
        place = len(picked) % 8
        source = axes[1] if place == 2 else axes[2] if place == 3 else axes[0]
        picked.append((source or axes[0] or axes[1] or axes[2]).pop(0))
    return torch.stack(picked)


class GridBlock(nn.Module):
    """A residual block on the grid of patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        return grid + self.conv2(F.silu(self.conv1(grid)))


def _branch(inputs: int, width: int, depth: int, outputs: int) -> nn.Sequential:
    """Convolutions on the grid whose output starts at zero."""
    last = nn.Conv2d(width, outputs, 1)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    blocks = (GridBlock(width) for _ in range(depth))
    return nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), *blocks, nn.SiLU(), last)


class PatchAutoencoder(nn.Module):
    """Pixels to latents on a grid of patches, and back.

    In training mode and with gradients on, each encoded batch updates the mean and the
    standard deviation of every latent channel. Latents are normalised with them and the
    decoder undoes it, so they come out at about unit variance.

    Args:
        latent_channels: channels of the latents.
        patch: side of a patch in pixels; the factor between pixels and latents.
        encoder_width: channels of the encoder's branch.
        encoder_depth: residual blocks of the encoder's branch.
        decoder_width: channels of the decoder's branch.
        decoder_depth: residual blocks of the decoder's branch.
        whitening: 1 gives every latent channel unit deviation, so that fine detail counts
            as much as brightness in a loss on latents; 0 scales all of them alike, which
            keeps the proportions of pixels.
        momentum: weight of a new batch in the latents' statistics.

    Raises:
        ValueError: more latent channels than a patch has values, or whitening outside [0, 1].
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        latent_channels: int = 32,
        patch: int = 8,
        encoder_width: int = 32,
        encoder_depth: int = 0,
        decoder_width: int = 64,
        decoder_depth: int = 1,
        whitening: float = 0.5,
        momentum: float = 0.05,
    ) -> None:
        super().__init__()
        values = 3 * patch * patch
        if not 0 < latent_channels <= values:
            raise ValueError(f"latent_channels must be 1 to {values}, got {latent_channels}")
        if not 0 <= whitening <= 1:
            raise ValueError(f"whitening must be 0 to 1, got {whitening}")
        self.latent_channels = latent_channels
        self.factor = patch
        self.whitening = whitening
        self.momentum = momentum
        self.to_latents = nn.Conv2d(values, latent_channels, 1)
        self.encoder = _branch(values, encoder_width, encoder_depth, latent_channels)
        self.to_pixels = nn.Conv2d(latent_channels, values, 1)
        self.decoder = _branch(latent_channels, decoder_width, decoder_depth, values)
        self.register_buffer("mean", torch.zeros(latent_channels))
        self.register_buffer("std", torch.ones(latent_channels))
        basis = colour_basis(patch, latent_channels)
        with torch.no_grad():
            self.to_latents.weight.copy_(basis[:, :, None, None])
            self.to_pixels.weight.copy_(basis.T[:, :, None, None])
            self.to_latents.bias.zero_()  # type: ignore[union-attr]
            self.to_pixels.bias.zero_()  # type: ignore[union-attr]

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, latent_channels, h / patch, w / patch)."""
        patches = F.pixel_unshuffle(pixels, self.factor)
        raw = self.to_latents(patches) + self.encoder(patches)
        if self.training and torch.is_grad_enabled():
            self._observe(raw.detach())
        return (raw - self.mean[:, None, None]) / self._scale()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The way back; values may leave [-1, 1] a little."""
        raw = latents * self._scale() + self.mean[:, None, None]
        return F.pixel_shuffle(self.to_pixels(raw) + self.decoder(latents), self.factor)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels and back."""
        return self.decode(self.encode(pixels))

    def _scale(self) -> torch.Tensor:
        """(latent_channels, 1, 1): what stands for unit deviation in each channel."""
        overall = self.std.square().mean().sqrt()
        return (self.std**self.whitening * overall ** (1 - self.whitening))[:, None, None]

    @torch.no_grad()
    def _observe(self, latents: torch.Tensor) -> None:
        std, mean = torch.std_mean(latents.float(), dim=(0, 2, 3))
        self.mean.lerp_(mean.to(self.mean), self.momentum)
        self.std.lerp_(std.clamp_min(1e-3).to(self.std), self.momentum)
