"""Frame rates as fractions: what 23.976 in a file means."""

from fractions import Fraction

import numpy as np

LARGEST_DENOMINATOR = 1001
NEAR = 5e-5
"""Share by which a rate may differ from a common one; 24 and 23.976 differ by twenty times that."""
FILM = tuple(Fraction(1000 * whole, 1001) for whole in (12, 15, 24, 30, 48, 60, 90, 120))
"""Rates of television with colour in North America and Japan, and of film for it."""
JITTER_S = 2e-3
"""Seconds by which times may deviate from a constant rate: Matroska counts milliseconds."""


def exact_rate(fps: float) -> Fraction:
    """The frame rate that is meant: 24000/1001 for 23.976."""
    near = [*FILM, Fraction(round(fps))]
    best = min(near, key=lambda rate: abs(float(rate) - fps))
    if best and abs(float(best) / fps - 1) <= NEAR:
        return best
    return Fraction(fps).limit_denominator(LARGEST_DENOMINATOR)


def constant_rate(times_s: np.ndarray, fps: float) -> Fraction | None:
    """The constant rate of frames; None if it changes or frames are missing.

    Args:
        times_s: (n,) increasing, from 0.
        fps: the rate according to the container.
    """
    rate = exact_rate(fps)
    found = [rate]
    if len(times_s) > 1:
        found.append(exact_rate((len(times_s) - 1) / float(times_s[-1] - times_s[0])))
    for each in found:
        expected = np.arange(len(times_s)) / float(each)
        if np.abs(times_s - times_s[0] - expected).max(initial=0.0) <= JITTER_S:
            return each
    return None
