"""Where repainted frames meet frames of the same shot that stay, the new face comes and goes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.media import VideoWriter, write_flac
from datasets.media.canvas import Canvas
from tasks.lipsync import video as lipsync_video
from tasks.lipsync.face_scan import FaceScan
from tasks.lipsync.fades import FADE_S, fade_shares
from tasks.lipsync.video import lip_sync_video
from tests.support.fake_generator import Brightener
from tests.support.fake_scan import give_scan

COUNT = 60
BRIGHTER = 40.0


def second_differences(values: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(values, 2))


def test_shares_are_a_smooth_step_on_the_side_where_frames_stay() -> None:
    times = np.arange(20) / 25
    assert fade_shares(times) == pytest.approx(np.ones(20))
    begin = fade_shares(times, before_s=-0.04)
    # At 25 fps five frames lie between none and all of it.
    assert begin[:6] == pytest.approx([2 / 27, 7 / 27, 1 / 2, 20 / 27, 25 / 27, 1])
    assert (begin[6:] == 1).all()
    assert fade_shares(times, after_s=0.8) == pytest.approx(begin[::-1])
    assert fade_shares(times, -0.04, 0.8) == pytest.approx(begin * begin[::-1])


@pytest.mark.parametrize("fps", [12.5, 24, 50, 120])
def test_a_fade_takes_its_time_at_every_rate(fps: float) -> None:
    times = np.arange(round(fps)) / fps
    shares = fade_shares(times, before_s=-1 / fps)
    partly = int((shares < 1).sum())
    assert partly / fps == pytest.approx(FADE_S, abs=1 / fps)
    shown = np.concatenate([[0.0], shares])
    assert (np.diff(shown) >= 0).all()
    # A face that is there at once changes the difference from frame to frame by all of it.
    assert second_differences(np.concatenate([[0.0], shown])).max() < (0.35 if fps < 20 else 0.2)


def test_frames_of_another_rate_fade_by_their_times() -> None:
    times = np.array([0.0, 0.08, 0.24, 0.28])
    shares = fade_shares(times, before_s=-0.04)
    assert shares == pytest.approx([2 / 27, 1 / 2, 1, 1])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_short_stretch_rises_no_higher_than_both_fades_let_it(count: int) -> None:
    shares = fade_shares(np.arange(count) / 25, -0.04, count / 25)
    assert shares.max() <= 0.5
    assert shares.min() == pytest.approx(2 / 27)


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How bright the middle of every written frame is; a new face is `BRIGHTER`."""
    found: list[float] = []

    class Recorder(VideoWriter):
        def write(self, picture: np.ndarray | Canvas, time_s: Any = None) -> None:
            assert isinstance(picture, Canvas)
            found.append(float(picture.rgb[44:52, 44:52].mean()))
            super().write(picture, time_s)

    class Brighter(Brightener):
        def window(self, faces: np.ndarray, *_: Any) -> np.ndarray:
            return faces.astype(np.float32) + BRIGHTER

    monkeypatch.setattr(lipsync_video, "VideoWriter", Recorder)
    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: Brighter(64))
    return found


def faces(away: range, shots: list[int]) -> FaceScan:
    middle = np.array([[1.0, 0.0, -22.0], [0.0, 1.0, -13.0]])
    return FaceScan(
        np.arange(COUNT) / 25,
        COUNT / 25,
        shots,
        [None if index in away else middle for index in range(COUNT)],
        np.where(np.isin(np.arange(COUNT), away), np.inf, 0.1),
        np.zeros((COUNT, 4)),
    )


def spoken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, scan: FaceScan, seconds: float, length: str
) -> None:
    give_scan(monkeypatch, scan)
    with VideoWriter(folder / "v.mkv", 96, 96, 25, crf=1) as writer:
        for _ in range(COUNT):
            writer.write(np.full((96, 96, 3), 100, np.uint8))
    write_flac(folder / "s.flac", np.full(round(16000 * seconds), 0.1, np.float32), 16000)
    lip_sync_video(
        folder / "v.mkv", folder / "s.flac", folder / "o.mp4", folder, match=False, length=length
    )


def test_nothing_jumps_where_the_face_is_lost_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: list[float]
) -> None:
    spoken(tmp_path, monkeypatch, faces(range(20, 30), [0] * COUNT), COUNT / 25, "auto")
    assert len(levels) == COUNT
    seen = np.array(levels)
    assert second_differences(seen).max() < 0.25 * BRIGHTER
    assert seen[20:30] == pytest.approx(np.full(10, 100), abs=1)
    # The video's own ends are no joins.
    for full in (slice(0, 15), slice(35, COUNT)):
        assert seen[full] == pytest.approx(np.full(len(seen[full]), 100 + BRIGHTER), abs=1.5)


def test_nothing_jumps_where_speech_ends_before_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: list[float]
) -> None:
    spoken(tmp_path, monkeypatch, faces(range(0), [0] * COUNT), 1.2, "keep")
    seen = np.array(levels)
    assert len(seen) == COUNT
    assert second_differences(seen).max() < 0.25 * BRIGHTER
    assert seen[24] == pytest.approx(100 + BRIGHTER, abs=1.5)
    assert seen[30:] == pytest.approx(np.full(30, 100), abs=1)


def test_a_cut_stays_a_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: list[float]
) -> None:
    spoken(tmp_path, monkeypatch, faces(range(30, COUNT), [0] * 30 + [1] * 30), COUNT / 25, "auto")
    assert levels[29] == pytest.approx(100 + BRIGHTER, abs=1.5)
    assert levels[30] == pytest.approx(100, abs=1)
