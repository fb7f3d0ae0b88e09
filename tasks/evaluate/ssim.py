"""Structural similarity of pictures (Wang et al., 2004), by torch.

The same as scikit-image's with Gaussian weights (sigma 1.5, 11 x 11), but fast for many
frames and with the map kept, so that only the repainted part of a face can be judged.
torchmetrics has the map as well, but convolves in two dimensions (three times slower) and loses
precision in float32: up to 8e-4 on bright uniform pictures, where this loses 1e-4.
"""

import numpy as np
import torch
from torch.nn import functional as F

BATCH = 16
"""Pairs of frames at a time."""
WINDOW = 11
SIGMA = 1.5


def _kernel() -> torch.Tensor:
    """(11,) Gaussian that sums to 1."""
    x = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-(x**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def _smooth(images: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) -> (n, c, h - 10, w - 10)."""
    channels = images.shape[1]
    rows = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return F.conv2d(F.conv2d(images, rows, groups=channels), columns, groups=channels)


def _check(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape != second.shape or first.ndim != 4 or min(first.shape[1:3]) < WINDOW:
        raise ValueError(
            f"expected two arrays (n, h, w, 3) of one shape with sides of at least {WINDOW}, "
            f"got {first.shape} and {second.shape}"
        )


def ssim_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Similarity around every pixel whose window lies inside the picture.

    Args:
        first: uint8 (n, h, w, 3).
        second: the same shape.

    Returns:
        float32 (n, h - 10, w - 10), mean over the channels, at most 1 apart from rounding.

    Raises:
        ValueError: the shapes differ or are smaller than the window.
    """
    _check(first, second)
    kernel = _kernel().float()
    # Centred values keep the variances exact in float32.
    x, y = (
        torch.from_numpy(np.ascontiguousarray(each)).permute(0, 3, 1, 2).float() - 127.5
        for each in (first, second)
    )
    mean_x, mean_y = _smooth(x, kernel), _smooth(y, kernel)
    variance_x = _smooth(x * x, kernel) - mean_x**2
    variance_y = _smooth(y * y, kernel) - mean_y**2
    covariance = _smooth(x * y, kernel) - mean_x * mean_y
    mean_x, mean_y = mean_x + 127.5, mean_y + 127.5
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    values = values / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    return values.mean(1).numpy()


def ssim(first: np.ndarray, second: np.ndarray, *masks: np.ndarray) -> np.ndarray:
    """Structural similarity per frame.

    Args:
        first: uint8 (n, h, w, 3).
        second: the same shape.
        masks: bool (h, w); only windows centred on true pixels count.

    Returns:
        float32 (1 + masks, n), for whole pictures and then within each mask; 1 for equal ones.

    Raises:
        ValueError: the shapes do not match, or a mask leaves no window.
    """
    _check(first, second)
    margin = WINDOW // 2
    inner = [mask[margin:-margin, margin:-margin] for mask in masks]
    sides = (first.shape[1] - 2 * margin, first.shape[2] - 2 * margin)
    for mask, part in zip(masks, inner, strict=True):
        if part.shape != sides or not part.any():
            raise ValueError(f"the mask {mask.shape} leaves nothing of pictures {first.shape[1:3]}")
    found = np.empty((1 + len(masks), len(first)), np.float32)
    for start in range(0, len(first), BATCH):
        place = slice(start, start + BATCH)
        values = ssim_map(first[place], second[place])
        found[0, place] = values.mean((1, 2))
        for row, part in zip(found[1:], inner, strict=True):
            row[place] = values[:, part].mean(1)
    return found
