"""Frames in the order of a timeline: the right ones, and decoded only as often as needed."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from datasets.media import read_frames, video
from datasets.media.form import Kind
from datasets.media.keyframes import keyframes
from tasks.lipsync import playback
from tasks.lipsync.playback import Shown, frames_in_order
from tests.support.coded_video import write_coded

COUNT = 120
KINDS = [
    ("a.ts", "libx264", {"g": "25"}),
    ("b.ts", "mpeg2video", {"g": "15", "bf": "2", "b": "3M"}),
    ("a.mpg", "mpeg2video", {"g": "15", "bf": "2", "b": "3M"}),
    ("b.mpg", "mpeg1video", {"g": "12", "b": "3M"}),
    ("a.mp4", "libx264", {"g": "25"}),
    ("a.mkv", "libx264", {"g": "25"}),
]


def moving(count: int = COUNT) -> list[av.VideoFrame]:
    """A picture that moves, with a bar that tells the frames apart."""
    rng = np.random.default_rng(0)
    wide = cv2.resize(rng.integers(0, 255, (24, 64, 3), np.uint8), (480, 160))
    frames = []
    for index in range(count):
        picture = wide[:, index : index + 208].copy()
        picture[:16, : index + 16] = 255
        frames.append(av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p"))
    return frames


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames were decoded since it was last cleared."""
    count: list[int] = []
    original = video.decode

    def counted(*given: Any) -> Iterator[Any]:
        for frame in original(*given):
            count.append(1)
            yield frame

    monkeypatch.setattr(video, "decode", counted)
    monkeypatch.setattr(playback, "MOST_HELD", 24)
    return count


@pytest.mark.parametrize(("name", "codec", "options"), KINDS)
def test_backwards_each_frame_is_decoded_a_few_times_at_most(
    tmp_path: Path, decodes: list[int], name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_coded(tmp_path / name, moving(), codec, options=options)
    whole = list(read_frames(path, fps=None))
    assert len(whole) == COUNT
    times = np.array([frame.time_s for frame in whole])
    order = [Shown(index, 0.0) for index in range(COUNT - 1, -1, -1)]
    decodes.clear()
    shown = frames_in_order(path, order, times)
    for each, picture in zip(order, shown, strict=True):
        assert (picture.rgb == whole[each.source].rgb).all(), each.source
    assert len(decodes) / COUNT <= 3


@pytest.mark.parametrize(("name", "codec", "options"), KINDS)
def test_a_part_late_in_the_file_costs_as_much_as_an_early_one(
    tmp_path: Path, decodes: list[int], name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_coded(tmp_path / name, moving(), codec, options=options)
    whole = [frame.rgb for frame in read_frames(path, fps=None)]
    for first in (40, 110):
        decodes.clear()
        part = list(
            read_frames(path, fps=None, start_s=first / 25 - 0.01, end_s=(first + 5) / 25 - 0.01)
        )
        assert len(part) == 5
        assert all((each.rgb == whole[first + k]).all() for k, each in enumerate(part))
        assert len(decodes) <= 45


def test_key_frames_end_where_times_jump(tmp_path: Path) -> None:
    one = write_coded(tmp_path / "a.ts", moving(50), "libx264", options={"g": "10"})
    both = tmp_path / "b.ts"
    both.write_bytes(one.read_bytes() * 2)
    known = keyframes(both)
    assert len(known) == len(keyframes(one)) == 5
    whole = [frame.rgb for frame in read_frames(both, fps=None)]
    assert len(whole) == 100
    for first in (20, 70):
        part = list(read_frames(both, fps=None, start_s=first / 25 - 0.01, end_s=first / 25 + 0.15))
        assert all((each.rgb == whole[first + k]).all() for k, each in enumerate(part))
        assert len(part) == 4


def test_a_file_that_was_written_anew_is_looked_at_anew(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.ts", moving(50), "libx264", options={"g": "10"})
    assert len(keyframes(path)) == 5
    write_coded(path, moving(60), "libx264", options={"g": "5"})
    assert len(keyframes(path)) == 12


@pytest.mark.parametrize(("size", "bits", "held"), [((640, 360), 8, 128), ((3840, 2160), 8, 24)])
def test_memory_bounds_what_is_held(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], bits: int, held: int
) -> None:
    info = SimpleNamespace(width=size[0], height=size[1], kind=Kind(bits=bits))
    monkeypatch.setattr(playback, "probe", lambda path: info)
    assert playback._frames_held(Path("a.mp4")) == held
