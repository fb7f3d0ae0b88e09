"""One recording has one offset: the scores of its clips, pooled.

A clip of 3 s is often too short to be sure of its offset alone. The clips of a file agree on it, so
their curves are added, each by its length; what is common stands out and what is chance averages
out. A clip that clearly has an offset of its own, as after a cut in the sound, keeps it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tasks.sync.mouth_audio import score_of_curve
from tasks.sync.signals import MAX_LAG, OffsetScore

LEAST_JUMP = 2.0
"""Frames; offsets of clips of one file that differ by more, and by more than both are uncertain,
are different."""

LEAST_CLIPS = 5
"""Of fewer clips nobody can tell a drift from errors."""


@dataclass(frozen=True)
class Pooled:
    """What a clip's file says of its offset."""

    score: OffsetScore
    """The file's offset and confidence, or the clip's own."""
    note: str = ""
    """Why it is the clip's own; empty if it is the file's."""


class OffsetPool:
    """Scores of the clips of one file.

    Args:
        min_confidence: least confidence at which a clip's own offset is believed.
    """

    def __init__(self, min_confidence: float) -> None:
        self.min_confidence = min_confidence
        self._curve = np.zeros(2 * MAX_LAG + 1)
        self._frames = 0
        self._variance = 0.0
        self._clips = 0

    def add(self, score: OffsetScore, frames: int) -> None:
        """Take a clip into the pool; one without a curve has nothing to add."""
        if score.curve is None:
            return
        self._clips += 1
        self._frames += frames
        self._curve += frames * score.curve
        self._variance += (frames * score.chance) ** 2

    def score(self) -> OffsetScore | None:
        """Of all clips together; None if none had a curve."""
        if not self._frames:
            return None
        curve = self._curve / self._frames
        chance = float(np.sqrt(self._variance)) / self._frames
        if np.isfinite(chance):
            return score_of_curve(curve, chance)
        best = int(np.argmax(curve))
        top = float(curve[best] - np.median(curve))
        return OffsetScore(float(best - MAX_LAG), top, curve=curve)

    def of(self, own: OffsetScore) -> Pooled:
        """What a clip's offset is, by its own score and that of the file.

        The file's, unless the clip is sure of another. Confidence is the greater of the two where
        they agree: that of a long clip is not lowered by others.
        """
        whole = self.score()
        if whole is None or own.curve is None or self._clips < 2:
            return Pooled(own)
        apart = abs(own.offset_frames - whole.offset_frames)
        agree = apart <= max(LEAST_JUMP, float(np.hypot(own.uncertainty, whole.uncertainty)))
        if agree:
            confidence = max(own.confidence, whole.confidence)
        elif own.confidence >= self.min_confidence:
            if whole.confidence < self.min_confidence:
                return Pooled(own)
            return Pooled(
                own,
                f"offset of its own, {own.offset_frames:+.1f} frames: the rest of the file has "
                f"{whole.offset_frames:+.1f}",
            )
        else:
            confidence = whole.confidence
        pooled = replace(
            whole,
            confidence=confidence,
            distance=own.distance,
            uncertainty=min(own.uncertainty, whole.uncertainty),
        )
        return Pooled(pooled)


def correction(score: OffsetScore) -> float:
    """Frames by which sound is moved: nothing where the offset is not known better than that."""
    return score.offset_frames if abs(score.offset_frames) >= score.uncertainty else 0.0


def drift(scores: Sequence[tuple[float, OffsetScore]]) -> float:
    """How far the offset moves per minute, frames, by the scores of clips at times in seconds.

    A weighted line through clips, each by the inverse square of its uncertainty; NaN for
    fewer than three.
    """
    known = [(at, each) for at, each in scores if each.uncertainty > 0]
    if len(known) < 3:
        return float("nan")
    times = np.array([at for at, _ in known]) / 60
    offsets = np.array([each.offset_frames for _, each in known])
    weights = np.array([1 / each.uncertainty for _, each in known])
    return float(np.polyfit(times, offsets, 1, w=weights)[0])


def name_drift(scores: Sequence[tuple[float, OffsetScore]]) -> str:
    """What to say of a file whose sound runs away from its pictures; empty if it does not.

    Args:
        scores: (seconds, score) of clips that are sure of their offsets.
    """
    if len(scores) < LEAST_CLIPS:
        return ""
    slope = drift(scores)
    times = [at for at, _ in scores]
    moved = slope * (max(times) - min(times)) / 60
    if not abs(moved) > LEAST_JUMP:
        return ""
    return f"the offset drifts by {slope:+.1f} frames a minute"
