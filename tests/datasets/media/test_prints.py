"""Prints of recordings: near for one in other encodings, far for others, and small."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.media import SAMPLES_PER_FRAME
from datasets.media.prints import (
    MOST_PICTURES,
    MOST_SOUNDS,
    SAME_PICTURES,
    SAME_SOUND,
    Print,
    PrintMaker,
    contour,
    picture_distance,
    same_recording,
    sound_distance,
)


def scene(seed: int, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (side, side))


def sound(seed: int, frames: int) -> np.ndarray:
    """Syllables of noise whose colour changes."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(-(-frames // 5)):
        white = rng.normal(0, 0.1, 5 * SAMPLES_PER_FRAME)
        pieces.append(np.convolve(white, rng.normal(0, 1, 24), "same") * rng.uniform(0.1, 1))
    return np.concatenate(pieces)[: frames * SAMPLES_PER_FRAME].astype(np.float32)


def made(picture: int, speech: int, frames: int = 100, side: int = 64, noise: float = 0) -> Print:
    maker = PrintMaker()
    for _ in range(frames):
        maker.picture(lambda: scene(picture, side))
    heard = sound(speech, frames)
    hiss = np.random.default_rng(9).normal(0, noise, len(heard))
    heard = np.asarray(heard + hiss, np.float32)
    for begin in range(0, len(heard), 7001):
        maker.sound(heard[begin : begin + 7001])
    return maker.made()


def test_another_encoding_is_the_same_recording() -> None:
    one, other = made(1, 1), made(1, 1, side=40, noise=0.003)
    pictures, heard = same_recording(one, other) or (1.0, 1.0)
    assert pictures < SAME_PICTURES / 2
    assert heard < SAME_SOUND / 2


@pytest.mark.parametrize(("picture", "speech"), [(1, 2), (2, 1), (2, 2)])
def test_other_pictures_or_other_sound_is_another_recording(picture: int, speech: int) -> None:
    one, other = made(1, 1), made(picture, speech)
    assert same_recording(one, other) is None
    assert (picture_distance(one, other) > SAME_PICTURES) == (picture == 2)
    assert (sound_distance(one, other) > SAME_SOUND) == (speech == 2)


def test_length_matters_and_a_small_shift_of_the_sound_does_not() -> None:
    one = made(1, 1, 200)
    assert same_recording(one, made(1, 1, 150)) is None
    maker = PrintMaker()
    for _ in range(200):
        maker.picture(lambda: scene(1))
    late = np.concatenate([np.zeros(1105, np.float32), sound(1, 200)])
    maker.sound(late[: 200 * SAMPLES_PER_FRAME])
    assert same_recording(one, maker.made())


def test_too_little_sound_says_nothing() -> None:
    silent = PrintMaker()
    for _ in range(100):
        silent.picture(lambda: scene(1))
    silent.sound(np.zeros(100 * SAMPLES_PER_FRAME, np.float32))
    assert sound_distance(silent.made(), silent.made()) == 1.0
    assert picture_distance(PrintMaker().made(), silent.made()) == 1.0
    assert not contour(PrintMaker().made()).any()


def test_prints_stay_small_and_comparable_for_long_recordings() -> None:
    frames = 2000
    one, other = made(1, 1, frames), made(1, 1, frames - 5, noise=0.003)
    assert len(one.pictures) <= MOST_PICTURES
    assert len(one.sounds) <= MOST_SOUNDS
    assert len(one.text()) < 5000
    assert same_recording(one, other)
    assert same_recording(one, made(1, 2, frames)) is None


def test_prints_survive_as_text() -> None:
    one = made(1, 1)
    again = Print.of(one.text())
    assert again is not None
    assert (again.frames, again.picture_stride, again.sound_stride) == (100, 1, 1)
    for name in ("pictures", "sounds", "levels"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
    assert Print.of("") is None


@pytest.mark.real
@pytest.mark.timeout(600)
def test_sentences_of_one_studio_are_different_recordings(shared: Path) -> None:
    from benchmarks.duplicates import printed

    prints = [printed(path) for path in sorted((shared / "clips").glob("grid_*.mpg"))]
    assert len(prints) == 7
    for number, one in enumerate(prints):
        assert same_recording(one, one) == (0.0, 0.0)
        for other in prints[:number]:
            assert sound_distance(one, other) > 1.5 * SAME_SOUND
            assert same_recording(one, other) is None
