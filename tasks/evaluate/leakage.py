"""Whether lips come from the input video instead of the speech.

A network that sees the mouth it should replace, in its reference or through its mask, can copy
it. With a clip's own speech nothing shows that; with silence, or with foreign speech, everything
does: lips that still move in silence, and lips that move with the source's own under foreign
speech. Following the foreign speech is no excuse, for a mixture of both follows it, too.
"""

import math
from dataclasses import dataclass

import numpy as np

from tasks.registry.metric import MOTIONLESS, NO_FACE
from tasks.sync.mouth_audio import MOUTH_BLUR, remove_trend

MIN_FACES = 0.5
"""Share of frames with a face below which a video's landmarks mean nothing."""
LEAST_FRAMES = 24
"""Fewest frames over which a spread or a correlation means something."""
STILL = 2e-3
"""Spread of the opening, in sizes of the face, below which a mouth does not move: speaking ones
reach 0.02 and more, still ones up to 0.0015, which is FaceMesh's own unrest."""
MOVES = 0.004
"""Change of the opening from frame to frame, in sizes of the face, that counts as a movement."""


@dataclass(frozen=True)
class Mouth:
    """The course of a mouth in a video."""

    opening: np.ndarray
    """(t,) of `datasets.faces.landmarks.mouth_opening`."""
    seen: float
    """Share of the frames in which a face was found."""

    @property
    def fault(self) -> str:
        """Why nothing can be said about it; empty if something can."""
        if self.seen < MIN_FACES:
            return no_face(self.seen)
        if len(self.opening) < LEAST_FRAMES:
            frames = len(self.opening)
            return f"videos of {frames} frames are too short: {LEAST_FRAMES} are needed"
        return ""


Number = tuple[float, str]
"""A value, and why there is none where it is NaN."""


def no_face(share: float) -> str:
    """Why landmarks say nothing where too few frames show a face."""
    return f"{NO_FACE} {share:.0%} of the frames, {MIN_FACES:.0%} are needed"


def opening_in_silence(silent: Mouth, speaking: Mouth) -> Number:
    """Spread of the opening in silence over that in speech: 0 for lips that rest, about 1 for
    lips that do not care."""
    if fault := silent.fault or speaking.fault:
        return math.nan, fault
    usual = float(speaking.opening.std())
    if usual < STILL:
        return math.nan, f"{MOTIONLESS} in speech either"
    return float(silent.opening.std()) / usual, ""


def moving_share(mouth: Mouth) -> Number:
    """Share of frames in which the opening changes by `MOVES` or more, 0 to 1."""
    if mouth.fault:
        return math.nan, mouth.fault
    return float((np.abs(np.diff(mouth.opening)) >= MOVES).mean()), ""


def correlation(first: Mouth, second: Mouth) -> Number:
    """Pearson's correlation of two mouths' openings over the frames that both have, -1 to 1.

    Changes over a second and more do not count: two sentences that begin and end at the same
    times have nothing else in common, nor have two heads that bow.
    """
    if fault := first.fault or second.fault:
        return math.nan, fault
    count = min(len(first.opening), len(second.opening))
    pair = np.stack([first.opening[:count], second.opening[:count]], axis=1)
    if pair.std(axis=0).min() < STILL:
        return math.nan, f"{MOTIONLESS}, or that of the input does not"
    return float(np.corrcoef(remove_trend(pair, MOUTH_BLUR).T)[0, 1]), ""
