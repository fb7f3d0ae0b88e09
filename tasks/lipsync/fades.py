"""A new face comes and goes over a few frames where a shot goes on with frames that stay as they
were: where speech ends before the video does, and where a face is lost or found again."""

import numpy as np

FADE_S = 0.2
"""Seconds over which it comes or goes. On a real face that moves, 0.12 s left a second difference
of 1.3 times the largest elsewhere, and this leaves none."""


def fade_shares(
    times_s: np.ndarray, before_s: float | None = None, after_s: float | None = None
) -> np.ndarray:
    """How much of the new face is shown in each frame of a stretch, (n,) in [0, 1].

    A smooth step, which neither begins nor ends with a jolt, from 0 in the neighbouring frame to 1
    after `FADE_S` of frames in between. A stretch too short for both steps takes the smaller.

    Args:
        times_s: (n,) when the frames of the stretch are shown.
        before_s: when the frame before it is shown, if that is one of the same shot that stays as
            it was.
        after_s: the same for the frame after it.
    """
    shares = np.ones(len(times_s))
    if before_s is not None:
        shares = np.minimum(shares, _step(times_s - before_s))
    if after_s is not None:
        shares = np.minimum(shares, _step(after_s - times_s))
    return shares


def _step(distances_s: np.ndarray) -> np.ndarray:
    """From 0 to 1 with the distance from a frame that stays; the frame beside it is a step away."""
    at = np.clip(distances_s / (FADE_S + float(distances_s.min())), 0, 1)
    return np.asarray(at * at * (3 - 2 * at))
