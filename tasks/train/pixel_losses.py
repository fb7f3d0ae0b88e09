"""The losses on the decoded picture (LatentSync, section 3.4, stage 2), and the sync loss on
latents that it is compared with.

All networks here are frozen; gradients only pass through them to the picture.
"""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.errors import UserError
from models.judges.videomae import VideoMAE, check_videomae, load_videomae
from models.syncnet.loss import cosine_loss
from tasks.recipes.config import LossWeights, UNetConfig
from tasks.sync.network_files import LoadedSyncNet
from tasks.weights.by_name import weight_file
from tasks.weights.lpips import load_lpips


def lower_half(pixels: Tensor) -> Tensor:
    """The lower half of pictures (..., h, w)."""
    return pixels[..., pixels.shape[-2] // 2 :, :]


class PixelLosses(nn.Module):
    """The parts of a stage's loss that need pixels.

    Args:
        weights: weights of the parts.
        syncnet: a frozen sync network; without it there is no `sync`.
        lpips: (n, 3, h, w) twice -> (n,); without it there is no `lpips`.
        trepa: of `load_trepa`; without it there is no `trepa`.
        on_latents: a frozen sync network that sees latents; without it there is no `sync` by it.
    """

    def __init__(
        self,
        weights: LossWeights,
        syncnet: LoadedSyncNet | None = None,
        lpips: nn.Module | None = None,
        trepa: VideoMAE | None = None,
        on_latents: LoadedSyncNet | None = None,
    ) -> None:
        super().__init__()
        self.weights = weights
        self.syncnet, self.lpips, self.trepa = syncnet, lpips, trepa
        self.on_latents = on_latents
        self.notes: list[str] = []

    @classmethod
    def load(cls, config: UNetConfig, syncnet: LoadedSyncNet | None, device: torch.device) -> Self:
        """The losses of a stage.

        Args:
            config: weights of the parts and the files they need.
            syncnet: a frozen sync network that sees what `losses.sync_on` says; needed where
                `losses.sync` is not 0.

        Raises:
            UserError: a file of published weights is missing.
        """
        weights = config.losses
        lpips = load_lpips(config.lpips_weights, device) if weights.lpips else None
        trepa = load_trepa(config.trepa_weights, device) if weights.trepa else None
        if trepa is not None and config.gradient_checkpointing:
            trepa.enable_gradient_checkpointing()
        pixels = syncnet if weights.sync and not weights.judges_latents else None
        latents = syncnet if weights.judges_latents else None
        losses = cls(weights, pixels, lpips, trepa, latents)
        if lpips is not None and not config.lpips_weights:
            losses.notes.append(f"losses.lpips is measured by {lpips.label}")
        return losses

    def forward(
        self, generated: Tensor, target: Tensor, mel: Tensor, repaint: Tensor
    ) -> dict[str, Tensor]:
        """The parts by name, each with its weight applied.

        Args:
            generated: (b, f, 3, h, w) in [-1, 1], with gradient.
            target: the same shape; the true pictures.
            mel: (b, 1, 80, 52) sound of the window.
            repaint: (1, 1, h, w), 1 where the network paints.
        """
        parts: dict[str, Tensor] = {}
        weights = self.weights
        if self.syncnet is not None:
            parts["sync"] = weights.sync * sync_loss(self.syncnet, generated, mel)
        if self.lpips is not None:
            pair = [lower_half(each).flatten(0, 1) for each in (generated, target)]
            parts["lpips"] = weights.lpips * self.lpips(*pair).mean()
        if self.trepa is not None:
            features = [self.trepa(each) for each in (generated, target)]
            parts["trepa"] = weights.trepa * F.mse_loss(*features)
        if weights.pixel:
            error = (generated - target).abs() * repaint
            share = repaint.mean().clamp_min(1e-6)
            parts["pixel"] = weights.pixel * error.mean() / share
        return parts

    def of_latents(self, latents: Tensor, mel: Tensor) -> dict[str, Tensor]:
        """The parts that need no pixels, each with its weight applied.

        Args:
            latents: (b, c, f, r, r) of the generated windows, with gradient.
            mel: (b, 1, 80, 52).
        """
        if self.on_latents is None:
            return {}
        shown = latents.transpose(1, 2)
        _check_length(self.on_latents, shown)
        return {"sync": self.weights.sync * _mismatch(self.on_latents, shown, mel)}


def sync_loss(syncnet: LoadedSyncNet, pixels: Tensor, mel: Tensor) -> Tensor:
    """The sync loss: how poorly, to the sync network, these mouths match this sound.

    Args:
        pixels: (b, f, 3, h, w) in [-1, 1]; scaled bicubically to the sync network's resolution.
        mel: (b, 1, 80, 52).
    """
    _check_length(syncnet, pixels)
    config = syncnet.config
    batch, frames = pixels.shape[:2]
    flat = pixels.flatten(0, 1)
    side = config.resolution
    if flat.shape[-1] != side:
        # Without a low-pass filter, as the published program shows 512-pixel pictures to its
        # network.
        flat = F.interpolate(flat, (side, side), mode="bicubic", align_corners=False)
    half = lower_half(flat).unflatten(0, (batch, frames))
    return _mismatch(syncnet, half, mel)


def _check_length(syncnet: LoadedSyncNet, windows: Tensor) -> None:
    wanted = syncnet.config.num_frames
    if windows.shape[1] != wanted:
        raise UserError(
            f"the sync loss needs windows of {wanted} frames, but this stage has "
            f"{windows.shape[1]}: set model.num_frames and frame_step accordingly"
        )


def _mismatch(syncnet: LoadedSyncNet, shown: Tensor, mel: Tensor) -> Tensor:
    """The loss of what the network takes, as if all of it were in sync."""
    vision, audio = syncnet.network(shown, mel)
    with torch.autocast(shown.device.type, enabled=False):
        return cosine_loss(vision, audio, torch.ones(len(shown), device=shown.device))


def load_trepa(weights: str, device: torch.device) -> VideoMAE:
    """The video network that TREPA compares with: a VideoMAE-v2 file or a VideoMAE folder.

    Raises:
        UserError: no file is named, or it is missing.
        ModelFileError: it is damaged or belongs to another network.
    """
    return load_videomae(_trepa_file(weights)).to(device)


def check_trepa(weights: str) -> None:
    """Check that `load_trepa` would succeed, without loading the network.

    Raises:
        UserError, ModelFileError: as `load_trepa`.
    """
    check_videomae(_trepa_file(weights))


def _trepa_file(weights: str) -> Path:
    if not weights:
        raise UserError(
            "losses.trepa needs the weights of a video network: set trepa_weights to "
            "videomae-v2, or losses.trepa to 0"
        )
    return weight_file(weights)
