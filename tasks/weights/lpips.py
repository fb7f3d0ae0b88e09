"""LPIPS from whichever weights are available, for the training loss and for evaluation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.judges.lpips import TorchScriptLpips, VggLpips, load_vgg_lpips, perceptual_loss
from tasks.weights.by_name import weight_file
from tasks.weights.trust import trusted_digests

LINEAR = "lpips-vgg"
"""Row of the weights table with the linear weights that torchvision's VGG16 does not have."""
BATCH = 16
"""Pairs of frames at a time."""


def load_lpips(
    weights: str, device: torch.device, trust: Sequence[str] = ()
) -> TorchScriptLpips | VggLpips:
    """A network that measures how different pictures look; its `label` names its weights.

    Args:
        weights: a path or a name in the weights table: NVIDIA's TorchScript file
            (vgg16-lpips), or torchvision's VGG16 (vgg16, *.pth), which also needs lpips-vgg.
            Empty: the seeded stand-in.
        device: device to run on.
        trust: files that may run although the weights table does not know their sha256.

    Raises:
        UserError: a file is missing.
        ModelFileError: a file is damaged, of another kind, or a program that is not trusted.
    """
    if not weights:
        return perceptual_loss(None, device)
    path: Path = weight_file(weights)
    if path.suffix == ".pth":
        return load_vgg_lpips(path, weight_file(LINEAR)).to(device)
    return perceptual_loss(path, device, trusted=trusted_digests(trust))


@torch.no_grad()
def lpips(
    network: TorchScriptLpips | VggLpips,
    first: np.ndarray,
    second: np.ndarray,
    device: torch.device,
) -> np.ndarray:
    """LPIPS per frame.

    Args:
        network: from `load_lpips`.
        first: uint8 (n, h, w, 3).
        second: the same shape.
        device: device of the network.

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
