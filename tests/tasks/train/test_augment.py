"""Changes keep what matters: mouth shapes, time, range."""

import numpy as np
import pytest

from tasks.train.augment import PLAIN, change_sound, draw_colours, draw_shift, shift_frames


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 12, 10, 3), dtype=np.uint8)


def test_plain_colours_map_grey_levels_linearly(frames: np.ndarray) -> None:
    pixels = PLAIN.apply(frames)
    assert pixels.shape == (2, 3, 12, 10)
    assert pixels.dtype == np.float32
    expected = frames.transpose(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_no_strength_is_no_change(frames: np.ndarray) -> None:
    assert draw_colours(np.random.default_rng(1), 0.0) is PLAIN
    audio = np.ones(100, np.float32)
    assert change_sound(audio, np.random.default_rng(1), 0.0) is audio


def test_colours_change_all_frames_alike_and_stay_in_range(frames: np.ndarray) -> None:
    same = np.stack([frames[0], frames[0]])
    changed_any = False
    for seed in range(20):
        pixels = draw_colours(np.random.default_rng(seed), 1.0).apply(same)
        np.testing.assert_array_equal(pixels[0], pixels[1])
        assert np.abs(pixels).max() <= 1
        changed_any |= not np.allclose(pixels, PLAIN.apply(same))
    assert changed_any


def test_channels_are_exchanged_not_mixed() -> None:
    frame = np.zeros((1, 1, 3), np.uint8)
    frame[..., 0] = 255
    orders = {draw_colours(np.random.default_rng(seed), 1.0).channels for seed in range(60)}
    assert len(orders) == 6
    assert all(sorted(order) == [0, 1, 2] for order in orders)


def test_colours_are_a_function_of_the_generator(frames: np.ndarray) -> None:
    first = draw_colours(np.random.default_rng(5), 0.7).apply(frames)
    np.testing.assert_array_equal(first, draw_colours(np.random.default_rng(5), 0.7).apply(frames))


def test_shift_moves_and_repeats_the_edge(frames: np.ndarray) -> None:
    moved = shift_frames(frames, (2, -1))
    np.testing.assert_array_equal(moved[:, 2:, :-1], frames[:, :-2, 1:])
    np.testing.assert_array_equal(moved[:, 0, :-1], frames[:, 0, 1:])


def test_shift_stays_within_its_share() -> None:
    draws = [draw_shift(np.random.default_rng(seed), 128, 0.025) for seed in range(300)]
    assert {abs(value) for draw in draws for value in draw} == {0, 1, 2, 3}
    assert draw_shift(np.random.default_rng(0), 128, 0.0) == (0, 0)


def test_sound_keeps_its_time_and_its_range() -> None:
    audio = np.zeros(16000, np.float32)
    audio[8000:8800] = 0.5 * np.sin(np.arange(800) * 2 * np.pi * 1000 / 16000)
    for seed in range(10):
        changed = change_sound(audio, np.random.default_rng(seed), 1.0)
        assert changed.shape == audio.shape
        assert changed.dtype == np.float32
        assert np.abs(changed).max() <= 1
        energy = changed.astype(np.float64) ** 2
        assert energy[7900:8900].sum() > 0.6 * energy.sum()
        assert not np.allclose(changed, audio)
    assert change_sound(np.zeros(0, np.float32), np.random.default_rng(0), 1.0).size == 0


class Extreme:
    """A generator whose every draw is the largest of its range, and whose noise is 1."""

    def uniform(self, low: float, high: float) -> float:
        return high

    def standard_normal(self, count: int) -> np.ndarray:
        return np.ones(count)


@pytest.mark.parametrize(("hertz", "decibels"), [(1000, 9.0), (2000, 13.0), (500, 5.0)])
def test_sound_is_louder_by_9_db_and_tilted_by_4_db_per_octave(hertz: int, decibels: float) -> None:
    tone = (0.1 * np.sin(2 * np.pi * hertz * np.arange(16000) / 16000)).astype(np.float32)
    changed = change_sound(tone, Extreme(), 1.0)  # type: ignore[arg-type]
    swing = float(np.ptp(changed)) / 2
    assert swing == pytest.approx(0.1 * 10 ** (decibels / 20), rel=1e-3)
    # The noise lies 30 dB under the loudest sample.
    assert float(changed.mean()) == pytest.approx(swing * 10 ** (-30 / 20), rel=1e-3)
    half = change_sound(tone, Extreme(), 0.5)  # type: ignore[arg-type]
    assert float(np.ptp(half)) / 2 == pytest.approx(0.1 * 10 ** (decibels / 40), rel=1e-3)


def test_sound_stays_in_range_and_in_time() -> None:
    click = np.zeros(4000, np.float32)
    click[1234] = 0.9
    changed = change_sound(click, np.random.default_rng(3), 1.0)
    assert int(np.abs(changed).argmax()) == 1234
    loud = change_sound(np.full(400, 0.99, np.float32), Extreme(), 1.0)  # type: ignore[arg-type]
    assert np.abs(loud).max() <= 1
    silence = change_sound(np.zeros(400, np.float32), np.random.default_rng(0), 1.0)
    assert not silence.any()
