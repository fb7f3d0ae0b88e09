"""Samples of a sound lie where its timestamps say."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from datasets.media.pcm import pcm

RATE = 16000


def write_sound(path: Path, starts_s: list[float], seconds: float = 0.5) -> Path:
    """A file whose sound comes in stretches of a constant level each, 0.1, 0.2, ..."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE)
        stream.layout = "mono"
        for number, start in enumerate(starts_s, 1):
            samples = np.full((1, round(seconds * RATE)), round(0.1 * number * 32767), np.int16)
            for first in range(0, samples.shape[1], 800):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[:, first : first + 800]), "s16", "mono"
                )
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = round(start * RATE) + first
                for packet in stream.encode(frame):
                    container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def pieces(path: Path, zero: float | None, rate: int = RATE) -> list[tuple[int, np.ndarray]]:
    with av.open(str(path)) as container:
        return list(pcm(container, container.streams.audio[0], rate, zero))


def level_at(found: list[tuple[int, np.ndarray]], position: int) -> float | None:
    for first, sound in found:
        if first <= position < first + sound.shape[1]:
            return float(sound[0, position - first])
    return None


@pytest.mark.parametrize("rate", [16000, 8000])
def test_sound_after_a_break_lies_after_it(tmp_path: Path, rate: int) -> None:
    found = pieces(write_sound(tmp_path / "a.mkv", [0.0, 1.25]), 0.0, rate)
    for at_s, level in ((0.25, 0.1), (0.75, None), (1.5, 0.2), (2.0, None)):
        heard = level_at(found, round(at_s * rate))
        assert heard == (level if level is None else pytest.approx(level, abs=0.01)), at_s
    begins = min(first for first, sound in found if sound[0, sound.shape[1] // 2] > 0.15)
    assert begins == pytest.approx(1.25 * rate, abs=0.004 * rate)


def test_sound_that_starts_late_lies_late_and_from_its_own_beginning_on_request(
    tmp_path: Path,
) -> None:
    path = write_sound(tmp_path / "a.mkv", [0.75])
    (late, _), *_ = pieces(path, 0.0)
    assert late == 0.75 * RATE
    (own, _), *_ = pieces(path, None)
    assert own == 0
    (early, _), *_ = pieces(path, 1.0)
    assert early == -0.25 * RATE


@pytest.mark.parametrize("jitter_s", [0.008, -0.008])
def test_timestamps_that_tremble_do_not_tear_the_sound(tmp_path: Path, jitter_s: float) -> None:
    starts = [0.0, 0.5 + jitter_s, 1.0, 1.5 + jitter_s]
    found = pieces(write_sound(tmp_path / "a.mkv", starts), 0.0)
    ends = [first + sound.shape[1] for first, sound in found]
    assert [first for first, _ in found][1:] == ends[:-1]
    assert (found[0][0], ends[-1]) == (0, 2 * RATE)
