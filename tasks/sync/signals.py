"""The input and output of scorers, in the same units for all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from datasets.errors import UserError

MAX_LAG = 15
"""Largest offset searched for, frames at 25 fps."""
MOUTH_AUDIO, SYNCNET_V2, STABLE_SYNCNET = "mouth-audio", "syncnet-v2", "stable-syncnet"
NO_SCORER = "none"
"""For clips that are known to be in sync: nothing is measured, and no verdict is by sync."""
MIN_CONFIDENCE = {
    # Standard deviations: 4 % of 332 real clips reach it with the sound of another clip.
    MOUTH_AUDIO: 3.0,
    # Sync-C, as published (LatentSync, section 3.4).
    SYNCNET_V2: 3.0,
    # The same for unit vectors; no value is published: with the demo's network, which has seen only
    # the sample, 3 to 5 % of 132 real pairs with another clip's sound reach it.
    STABLE_SYNCNET: 0.35,
    NO_SCORER: 0.0,
}
"""Each scorer's own threshold, in its own units."""


@dataclass(frozen=True)
class ClipSignals:
    """A scorer's view of a clip; all fields begin at the same time."""

    landmarks: np.ndarray
    """(t, 478, 2) at 25 fps, pixels of the source."""
    audio: np.ndarray
    """float32 (n,) at 16 kHz."""
    frames: np.ndarray | None = None
    """Aligned faces uint8 (t, R, R, 3), for scorers that need them."""


@dataclass(frozen=True)
class OffsetScore:
    """A scorer's result."""

    offset_frames: float
    """Delay of the audio, frames at 25 fps; positive: the audio is late."""
    confidence: float
    """How far the offset stands out, in the scorer's own units; 0 if nothing can be measured."""
    distance: float = float("nan")
    """Distance of lips and sound at the offset (Sync-D); NaN if the scorer has none."""
    uncertainty: float = field(default=0.0, compare=False)
    """The true offset is this close, frames, in 19 of 20 clips; 0 if the scorer does not say."""
    curve: np.ndarray | None = field(default=None, compare=False, repr=False)
    """(31,) agreement above chance for the sound taken -15 to +15 frames later, from which scores
    of several clips are pooled; None if the scorer has none."""
    chance: float = field(default=float("nan"), compare=False, repr=False)
    """Standard deviation of the curve by chance; NaN if it is not known."""


class OffsetScorer(Protocol):
    """Measures the offset between lips and audio of clips."""

    name: str
    needs_frames: bool
    """Whether the scorer looks at the aligned faces."""
    min_confidence: float
    """Least confidence at which an offset is believed, unless the user sets another."""

    def score(self, clips: Sequence[ClipSignals]) -> list[OffsetScore]:
        """Score clips of any lengths; one score per clip, in their order."""
        ...


class NoScorer:
    """Takes every clip to be in sync, as data sets of cut clips are; measures nothing."""

    name = NO_SCORER
    needs_frames = False
    min_confidence = 0.0

    def score(self, clips: Sequence[ClipSignals]) -> list[OffsetScore]:
        """An offset of 0 for each, with a confidence that is not known."""
        return [OffsetScore(0.0, float("nan")) for _ in clips]


def default_min_confidence(name: str) -> float:
    """The threshold of a scorer, in its own units.

    Raises:
        UserError: there is no such scorer.
    """
    if name not in MIN_CONFIDENCE:
        known = ", ".join(MIN_CONFIDENCE)
        raise UserError(f"there is no offset scorer {name!r}: choose one of {known}")
    return MIN_CONFIDENCE[name]
