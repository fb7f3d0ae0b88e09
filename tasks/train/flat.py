"""Why a sync network does not learn: what its data and its recipe say about the usual causes.

A loss that stays at ln 2 means that the network calls every pair equally likely. LatentSync's
section 4.4 and the reports of those who trained it name the causes: too small batches, sound that
is not in sync with the picture, faces that are not aligned, clips without speech.
"""

import math
from dataclasses import dataclass

import numpy as np

from datasets.faces.points import OUTER_LIPS
from datasets.media import SAMPLES_PER_FRAME
from datasets.shards.clips import ClipStore
from tasks.recipes.config import SyncNetConfig

CHANCE = math.log(2)
NEAR = 0.015
"""A mean loss this close to chance, or above, is flat."""
FIRST, STEPS = 300, 100
"""The mean is over the last so many steps; it is looked at from the first one on."""
CLIPS = 24
"""Clips that are looked at."""
SMALL_BATCH = 128
UNSURE = 3.0
"""Confidence of an offset, in the units of `mouth-audio`, below which it may be wrong."""
UNSTEADY = 0.06
"""Spread of the mouth's place over clips, as a share of the face's side."""
QUIET, LITTLE_SPEECH = 0.05, 0.5
"""Frames below this share of a clip's loud parts are silent; less speech than this is little."""


@dataclass
class FlatLoss:
    """Notices once that the loss stays at chance."""

    first: int = FIRST
    steps: int = STEPS
    total: float = 0.0
    counted: int = 0
    said: bool = False

    def __call__(self, step: int, loss: float, since: int) -> bool:
        """Whether to say it now.

        Args:
            step: steps done.
            loss: its mean since the last call.
            since: steps since the last call.
        """
        if step > self.first - self.steps:
            self.total += loss * since
            self.counted += since
        if self.said or step < self.first or self.counted < self.steps:
            return False
        mean, self.total, self.counted = self.total / self.counted, 0.0, 0
        self.said = mean > CHANCE - NEAR
        return self.said


def flat_note(store: ClipStore, config: SyncNetConfig, workers: int) -> str:
    """What the data says about the usual causes, the likely ones first."""
    batch = config.batch_size * workers
    numbers = np.unique(np.linspace(0, len(store.clips) - 1, CLIPS).astype(int))
    confidence = store.clips.scores("sync_confidence")
    confidence = confidence[np.isfinite(confidence)]
    spread, speech = _look_at(store, [store.clips[int(each)].clip_id for each in numbers])
    found = [
        (batch < SMALL_BATCH, f"batch: {batch} samples per step (256 and more are usual)"),
        (
            bool(len(confidence)) and float(np.median(confidence)) < UNSURE,
            "offsets: median confidence "
            + (f"{np.median(confidence):.1f}" if len(confidence) else "not recorded"),
        ),
        (spread > UNSTEADY, f"alignment: mouths spread by {spread:.1%} of the face's side"),
        (speech < LITTLE_SPEECH, f"speech: in {speech:.0%} of the time"),
    ]
    likely = [text for bad, text in found if bad]
    others = [text for bad, text in found if not bad]
    parts = [f"likely causes: {'; '.join(likely)}"] * bool(likely)
    parts += [f"not striking: {'; '.join(others)}"] * bool(others)
    return f"the loss stays at chance (ln 2 = {CHANCE:.3f}). " + ". ".join(parts)


def _look_at(store: ClipStore, clips: list[str]) -> tuple[float, float]:
    """Spread of the mouth's place over clips, a share of the side, and the share of time with
    sound."""
    places, shares = [], []
    for clip in clips:
        lips = store.landmarks(clip)[:, OUTER_LIPS].mean(axis=(0, 1)) / store.resolution
        places.append(lips)
        sound = store.audio(clip)
        frames = sound[: len(sound) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
        level = np.sqrt(np.square(frames.reshape(-1, SAMPLES_PER_FRAME)).mean(1))
        loud = float(np.quantile(level, 0.95))
        shares.append(float((level > QUIET * loud).mean()) if loud > 0 else 0.0)
    return float(np.std(places, axis=0).max()), float(np.mean(shares))
