"""The figures of benchmarks/offsets.py, on footage and scorers of which they are known."""

from collections.abc import Sequence

import numpy as np

from benchmarks.offsets import SHIFTS, Footage, measure, pieces
from datasets.media import SAMPLES_PER_FRAME
from tasks.sync.signals import ClipSignals, OffsetScore


class FirstClick:
    """Hears how late the one loud sample is; sure where it is the clip's own click."""

    name, needs_frames, min_confidence = "first-click", False, 1.0

    def __init__(self, wrong: float = 0.0, trusting: bool = False) -> None:
        self.wrong, self.trusting = wrong, trusting

    def score(self, clips: Sequence[ClipSignals]) -> list[OffsetScore]:
        return [self._score(clip) for clip in clips]

    def _score(self, clip: ClipSignals) -> OffsetScore:
        at, own = int(np.argmax(clip.audio)), float(clip.landmarks[0, 0, 0])
        sure = self.trusting or clip.audio[at] == np.float32(own)
        late = at / SAMPLES_PER_FRAME - 20
        return OffsetScore(late * (1 + self.wrong), 2.0 if sure else 0.0)


def clicking(name: str, level: float, frames: int = 130, late: int = 0) -> Footage:
    audio = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    audio[(20 + late) * SAMPLES_PER_FRAME] = level
    landmarks = np.full((frames, 478, 2), level, np.float32)
    return Footage(name, landmarks, audio, float(late))


FOOTAGE = [clicking("a", 0.25), clicking("b", 0.5, late=3), clicking("c", 0.75, frames=100)]


def test_pieces_are_those_of_ingestion() -> None:
    assert pieces(250, 250) == [(0, 250)]
    assert pieces(251, 250) == [(0, 125), (125, 126)]
    assert pieces(374, 250) == [(0, 187), (187, 187)]
    assert pieces(375, 250) == [(0, 250), (250, 125)]
    assert pieces(502, 250) == [(0, 250), (250, 126), (376, 126)]
    assert pieces(40, 250) == []


def test_a_perfect_scorer() -> None:
    figures, results = measure(FirstClick(), FOOTAGE, 250)
    assert (figures.recovered, figures.confident, figures.foreign, figures.truth) == (1, 1, 0, 1)
    assert [each.offset for each in results] == [0, 3, 0]
    assert figures.counts == {
        "pieces": 3,
        "long": 2,
        "shifts": 3 * len(SHIFTS),
        "foreign": 6,
        "with truth": 3,
    }


def test_one_that_is_off_and_believes_everything() -> None:
    figures, _ = measure(FirstClick(wrong=0.3, trusting=True), FOOTAGE, 250)
    assert figures.foreign == 1
    # Shifts of up to 3 frames are within a frame even so.
    assert figures.recovered == 6 / len(SHIFTS)
    assert figures.truth == 1


def test_one_that_is_never_sure() -> None:
    scorer = FirstClick()
    scorer.min_confidence = 3.0
    figures, _ = measure(scorer, FOOTAGE, 250)
    assert (figures.recovered, figures.confident, figures.foreign) == (0, 0, 0)
    assert figures.truth is None
