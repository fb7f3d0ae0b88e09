"""Stretches of a video: the same pictures, to the bit, and none too many or too few."""

import io

import av
import numpy as np
import pytest

from datasets.media import VideoWriter
from datasets.media.trim import trim

FRAMES, KEY = 70, 12


def pictures() -> list[np.ndarray]:
    """Noise that moves, so that pictures depend on each other."""
    drawn = np.random.default_rng(3).integers(0, 255, (64, 64 + FRAMES, 3), np.uint8)
    return [np.ascontiguousarray(drawn[:, at : at + 64]) for at in range(FRAMES)]


@pytest.fixture(scope="module")
def video() -> bytes:
    buffer = io.BytesIO()
    with VideoWriter(
        buffer, 64, 64, 25, crf=15, preset="superfast", seek_frames=KEY, cheap_to_read=True
    ) as writer:
        for picture in pictures():
            writer.write(picture)
    return buffer.getvalue()


def decoded(video: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(video), "r") as container:
        assert container.streams.video[0].average_rate == 25
        frames = list(container.decode(video=0))
        assert container.streams.video[0].frames == len(frames)
        assert [round(frame.time * 25) for frame in frames] == list(range(len(frames)))
        return [frame.to_ndarray() for frame in frames]


@pytest.mark.parametrize(
    ("first", "stop"), [(0, FRAMES), (0, 30), (1, FRAMES), (12, 48), (13, 61), (30, 66), (24, 25)]
)
def test_a_stretch_has_the_pictures_of_the_whole(video: bytes, first: int, stop: int) -> None:
    found = trim(video, first, stop)
    assert found is not None
    assert first <= found.first < found.stop <= stop
    assert found.first - first < KEY
    assert stop - found.stop < 5, "as many as pictures depend on a later one"
    whole, part = decoded(video), decoded(found.video)
    assert len(part) == found.stop - found.first
    assert all((a == b).all() for a, b in zip(whole[found.first : found.stop], part, strict=True))
    assert trim(video, first, stop) == found


def test_without_a_key_frame_there_is_nothing(video: bytes) -> None:
    assert trim(video, 61, FRAMES) is None
    assert trim(video, 13, 24) is None
