"""Interlaced pictures are made whole, at the same times."""

from pathlib import Path

import av
import numpy as np
import pytest

from datasets.media import read_frames
from datasets.media.deinterlace import deinterlaced
from tests.support.coded_video import write_coded

INTERLACED = 0x40000 | 0x20000000
"""FFmpeg's flags for coding and motion search by fields."""
KINDS = [("a.mpg", "mpeg2video", INTERLACED), ("a.ts", "libx264", 0), ("a.mp4", "libx264", 0)]


def bar(index: int) -> av.VideoFrame:
    """A bright bar that goes right by 8 pixels per frame, the upper lines half a frame later: the
    order that encoders note where nothing is said."""
    picture = np.full((96, 160, 3), 40, np.uint8)
    picture[1::2, 8 * index : 8 * index + 24] = 220
    picture[0::2, 8 * index + 4 : 8 * index + 28] = 220
    return av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")


def comb(rgb: np.ndarray) -> float:
    """Mean difference of neighbouring lines."""
    return float(np.abs(np.diff(rgb[..., 0].astype(int), axis=0)).mean())


@pytest.mark.parametrize(("name", "codec", "flags"), KINDS)
def test_fields_become_whole_pictures(tmp_path: Path, name: str, codec: str, flags: int) -> None:
    options = {"x264-params": "bff=1", "crf": "4"} if codec == "libx264" else {"b": "6M"}
    frames = [bar(index) for index in range(12)]
    path = write_coded(tmp_path / name, frames, codec, options=options, flags=flags)
    with av.open(str(path)) as container:
        coded = list(container.decode(video=0))
    assert all(frame.interlaced_frame for frame in coded)
    assert comb(coded[5].to_ndarray(format="rgb24")) > 5
    read = list(read_frames(path, fps=None))
    assert len(read) == 12
    assert [frame.time_s for frame in read] == pytest.approx(np.arange(12) / 25, abs=1e-4)
    assert max(comb(frame.rgb) for frame in read[1:-1]) < 0.5
    # Of the first field's moment.
    for index, frame in enumerate(read[1:-1], 1):
        lit = np.flatnonzero(frame.rgb[48, :, 0] > 130)
        assert lit[0] == pytest.approx(8 * index, abs=2)
        assert lit[-1] == pytest.approx(8 * index + 23, abs=2)


def test_a_part_is_the_same_as_in_the_whole(tmp_path: Path) -> None:
    options = {"x264-params": "bff=1", "crf": "4", "g": "6"}
    path = write_coded(
        tmp_path / "a.mp4", [bar(index % 12) for index in range(40)], "libx264", options=options
    )
    whole = [frame.rgb for frame in read_frames(path, fps=None)]
    part = [frame.rgb for frame in read_frames(path, fps=None, start_s=20 / 25, end_s=30 / 25)]
    assert len(part) == 10
    for index, rgb in enumerate(part, 20):
        assert (rgb == whole[index]).all()


def test_frames_that_are_whole_are_not_touched(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", [bar(index) for index in range(5)], "libx264")
    with av.open(str(path)) as container:
        for frame in deinterlaced(container.decode(video=0)):
            assert comb(frame.to_ndarray(format="rgb24")) > 5


def test_a_size_that_changes_on_the_way(tmp_path: Path) -> None:
    options = {"x264-params": "bff=1", "crf": "4"}
    large = write_coded(
        tmp_path / "a.ts", [bar(index) for index in range(6)], "libx264", options=options
    )
    small = write_coded(
        tmp_path / "b.ts",
        [bar(index).reformat(width=80, height=48) for index in range(6)],
        "libx264",
        options=options,
    )
    frames = []
    for path in (large, small):
        with av.open(str(path)) as container:
            frames += list(container.decode(video=0))
    whole = list(deinterlaced(frames))
    assert [frame.width for frame in whole] == [160] * 6 + [80] * 6
    assert [frame.pts for frame in whole] == [frame.pts for frame in frames]
