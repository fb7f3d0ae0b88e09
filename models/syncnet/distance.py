"""Sync-D, Sync-C and the offset: the search of Chung & Zisserman over shifts of the sound.

Published for SyncNet's example clip with 15 shifts either way: offset 3, distance 5.353,
confidence 10.021.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

MAX_SHIFT = 15


@dataclass(frozen=True)
class SyncDistance:
    """The result of the search."""

    offset: int
    """Shift at the minimum, frames at 25 fps, in SyncNet's sign: *negative* if the
    audio is late (the ledger's av_offset_frames has the opposite sign)."""
    distance: float
    """Sync-D: the mean distance at the minimum; lower is better."""
    confidence: float
    """Sync-C: median over the shifts minus the minimum; higher is better."""


def mean_distances(
    lips: torch.Tensor, sound: torch.Tensor, max_shift: int = MAX_SHIFT
) -> torch.Tensor:
    """Mean distance between lips and shifted sound, for each shift.

    Args:
        lips: (n, d) features per frame.
        sound: (n, d).
        max_shift: frames either way; outside the clip the sound's features are zero, as in
            the published program.

    Returns:
        (2 * max_shift + 1,), entry k for the sound of frame i + k - max_shift.
    """
    if lips.shape != sound.shape or lips.ndim != 2 or not len(lips):
        raise ValueError(
            f"expected equally many features (n, d) with n > 0, got {tuple(lips.shape)} and "
            f"{tuple(sound.shape)}"
        )
    padded = F.pad(sound, (0, 0, max_shift, max_shift))
    return torch.stack(
        [
            F.pairwise_distance(lips, padded[k : k + len(lips)]).mean()
            for k in range(2 * max_shift + 1)
        ]
    )


def sync_distance(
    lips: torch.Tensor, sound: torch.Tensor, max_shift: int = MAX_SHIFT
) -> SyncDistance:
    """Offset, Sync-D and Sync-C from features; see `mean_distances`."""
    means = mean_distances(lips, sound, max_shift)
    best, index = means.min(0)
    return SyncDistance(max_shift - int(index), float(best), float(means.median() - best))
