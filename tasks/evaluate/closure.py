"""Whether the lips close at the sounds that cannot be spoken otherwise: p, b and m.

What is compared with the mouth comes from the words alone (`tasks.evaluate.transcripts`), so a
video that merely moves with the loudness of the speech does not pass.
"""

import math
from dataclasses import dataclass

import numpy as np

from datasets.media import FPS

CLOSED = 0.2
"""Lips are closed if they are less than this share of the sentence's median opening apart. Real
lips reach it at 11 of 11 such sounds, and at a third of those of other sentences."""
LATITUDE = 1
"""Frames before and after a sound in which the lips may close: sync is not judged here."""
HARDLY_OPEN = 1e-3
"""Median opening, in sizes of the face, below which nothing opens that could close."""


@dataclass(frozen=True)
class Spoken:
    """Where in a recording a sentence is, and the sounds at which its lips must close."""

    closures: tuple[tuple[float, float], ...] = ()
    """Begin and end of each p, b and m, seconds."""
    begin_s: float = 0.0
    """Begin of the first word."""
    end_s: float = 0.0
    """End of the last one."""
    reason: str = ""
    """Why nothing is known; empty if something is."""


@dataclass(frozen=True)
class Closure:
    """What a video's lips do at p, b and m."""

    gap: float = math.nan
    """Least opening within each sound over the sentence's median opening; median of the
    sounds."""
    closed: float = math.nan
    """Share of the sounds at which the lips close."""
    reason: str = ""
    """Why there are no numbers; empty if there are."""


def measure_closure(opening: np.ndarray, spoken: Spoken) -> Closure:
    """Compare a mouth's course with what is spoken.

    Args:
        opening: (t,) of `datasets.faces.landmarks.mouth_opening`, at 25 fps, beginning with the
            sound. Sounds after its end do not count.
        spoken: what is said.
    """
    if spoken.reason:
        return Closure(reason=spoken.reason)
    spans = [_frames(*span) for span in spoken.closures]
    spans = [(first, end) for first, end in spans if end <= len(opening)]
    if not spans:
        return Closure(reason="no p, b or m is spoken in it")
    usual = float(np.median(opening[int(spoken.begin_s * FPS) : math.ceil(spoken.end_s * FPS)]))
    if usual < HARDLY_OPEN:
        return Closure(reason="the mouth hardly opens while it speaks")
    gaps = np.array([opening[first:end].min() for first, end in spans]) / usual
    return Closure(float(np.median(gaps)), float((gaps < CLOSED).mean()))


def _frames(begin_s: float, end_s: float) -> tuple[int, int]:
    """First frame of a sound and the one after its last, with latitude."""
    return max(0, math.floor(begin_s * FPS) - LATITUDE), math.ceil(end_s * FPS) + LATITUDE
