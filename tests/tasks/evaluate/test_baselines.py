"""What trivial models show."""

import numpy as np

from models.latentsync.mask import face_mask
from tasks.evaluate.baselines import BASELINES, MEANING, baseline_video
from tasks.evaluate.clips import ChosenClip, OpenClip

SIDE = 64


def clip(count: int = 40, cross: int = 30) -> OpenClip:
    """Frame i is of grey level 2 i; the mouth is calmest at frame 7."""
    frames = np.repeat(np.arange(count, dtype=np.uint8) * 2, SIDE * SIDE * 3)
    landmarks = np.random.default_rng(0).uniform(20, 44, (1, 478, 2)).astype(np.float32)
    landmarks = np.repeat(landmarks, count, axis=0)
    landmarks[:, 14, 1] = landmarks[:, 13, 1] + 3
    landmarks[7, 14, 1] = landmarks[7, 13, 1]
    chosen = ChosenClip("a", "s", count, "b", cross)
    shape = (count, SIDE, SIDE, 3)
    return OpenClip(chosen, frames.reshape(shape), landmarks, np.zeros(1), np.zeros(1))


def levels(name: str, kind: str, generated: np.ndarray, reference: str = "away") -> list[int]:
    made = baseline_video(name, clip(), kind, generated, reference)  # type: ignore[arg-type]
    assert made.dtype == np.uint8
    return [int(frame[0, 0, 0]) // 2 for frame in made]


def test_each_shows_what_its_name_says() -> None:
    ours = np.array(clip().frames[:30]) + 100
    assert levels("input", "reconstruction", ours) == [*range(40)]
    assert levels("input", "cross", ours) == [*range(30)]
    assert levels("still", "cross", ours) == [0] * 30
    assert levels("moment", "cross", ours) == [*range(20, 40), *range(10)]
    assert levels("shuffled", "cross", ours) == [50 + each for each in (*range(15, 30), *range(15))]
    assert levels("reference", "cross", ours, "frame") == [*range(30)]
    copied = levels("reference", "reconstruction", ours)
    # Never the frame itself, but one from elsewhere.
    assert len(copied) == 40
    assert all(abs(shown - own) >= 14 for own, shown in enumerate(copied))
    assert MEANING.keys() == set(BASELINES)


def test_a_grey_mask_hides_what_is_repainted_and_nothing_else() -> None:
    made = baseline_video("grey", clip(), "cross", clip().frames[:30], "away")
    hidden = face_mask(SIDE, "cpu")[0, 0].numpy() == 0
    kept = face_mask(SIDE, "cpu")[0, 0].numpy() == 1
    for index, frame in enumerate(made):
        assert (frame[hidden] == 128).all()
        assert (frame[kept] == 2 * index).all()
