"""LPIPS from whichever weights are at hand, for training's loss and for evaluation."""

from pathlib import Path

import numpy as np
import torch

from models.judges.lpips import TorchScriptLpips, VggLpips, load_vgg_lpips, perceptual_loss
from tasks.weights.by_name import weight_file

LINEAR = "lpips-vgg"
"""Row of the weights table with the linear weights that torchvision's VGG16 lacks."""
BATCH = 16
"""Pairs of frames at a time."""


def load_lpips(weights: str, device: torch.device) -> TorchScriptLpips | VggLpips:
    """A network that measures how unlike pictures look; its `label` says by which weights.

    Args:
        weights: a path or a name of the weights table: NVIDIA's TorchScript file
            (vgg16-lpips), or torchvision's VGG16 (vgg16, *.pth), which also needs lpips-vgg.
            Empty: the seeded stand-in.
        device: where it runs.

    Raises:
        UserError: a file is not there.
        ModelFileError: a file is damaged or something else.
    """
    if not weights:
        return perceptual_loss(None, device)
    path: Path = weight_file(weights)
    if path.suffix == ".pth":
        return load_vgg_lpips(path, weight_file(LINEAR)).to(device)
    return perceptual_loss(path, device)


@torch.no_grad()
def lpips(
    network: TorchScriptLpips | VggLpips,
    first: np.ndarray,
    second: np.ndarray,
    device: torch.device,
) -> np.ndarray:
    """LPIPS per frame.

    Args:
        network: of `load_lpips`.
        first: uint8 (n, h, w, 3).
        second: the same shape.
        device: where the network is.

    Returns:
        float32 (n,); 0 for equal pictures.
    """
    parts = []
    for start in range(0, len(first), BATCH):
        pair = [
            torch.tensor(frames[start : start + BATCH].copy()).to(device).permute(0, 3, 1, 2)
            / 127.5
            - 1
            for frames in (first, second)
        ]
        parts.append(network(*pair).float().cpu())
    return torch.cat(parts).numpy()
