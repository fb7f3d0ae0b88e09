"""Stretches of a video: the same pictures, to the bit, and none too many or too few."""

import io
from collections.abc import Sequence

import av
import numpy as np
import pytest

from datasets.media import VideoWriter
from datasets.media.trim import trim

FRAMES, KEY = 70, 12


def encode(shown: Sequence[np.ndarray], crf: int = 15, cheap: bool = True) -> bytes:
    buffer = io.BytesIO()
    with VideoWriter(
        buffer, 64, 64, 25, crf=crf, preset="superfast", seek_frames=KEY, cheap_to_read=cheap
    ) as writer:
        for picture in shown:
            writer.write(picture)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def video() -> bytes:
    """Soft noise that moves, so that pictures depend on each other."""
    drawn = np.random.default_rng(3).integers(0, 255, (8, 8 + FRAMES // 8 + 1, 3))
    smooth = np.kron(drawn, np.ones((8, 8, 1))).astype(np.uint8)
    return encode([np.ascontiguousarray(smooth[:, at : at + 64]) for at in range(FRAMES)])


def decoded(video: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(video), "r") as container:
        assert container.streams.video[0].average_rate == 25
        frames = list(container.decode(video=0))
        assert container.streams.video[0].frames == len(frames)
        assert [round(float(frame.time or 0) * 25) for frame in frames] == list(range(len(frames)))
        return [frame.to_ndarray().astype(int) for frame in frames]


@pytest.mark.parametrize(
    ("first", "stop"), [(0, FRAMES), (0, 30), (1, FRAMES), (12, 48), (13, 61), (30, 66), (24, 25)]
)
def test_a_stretch_has_the_pictures_of_the_whole(video: bytes, first: int, stop: int) -> None:
    found = trim(video, first, stop, encode)
    assert found is not None
    assert found.first == first
    assert stop - 5 < found.stop <= stop, "at most as many are missing as depend on a later one"
    whole, part = decoded(video), decoded(found.video)
    assert len(part) == found.stop - first
    again = -first % KEY
    pairs = list(zip(whole[first : found.stop], part, strict=True))
    assert all((a == b).all() for a, b in pairs[again:])
    assert all(np.abs(a - b).mean() < 2 for a, b in pairs[:again])
    assert trim(video, first, stop, encode) == found


def test_pictures_of_another_encoder_are_not_mixed_in(video: bytes) -> None:
    found = trim(video, 13, FRAMES, lambda shown: encode(shown, cheap=False))
    assert found is not None
    assert found.first == 24
    whole, part = decoded(video), decoded(found.video)
    assert all((a == b).all() for a, b in zip(whole[24:], part, strict=True))


def test_without_a_key_frame_there_is_nothing(video: bytes) -> None:
    assert trim(video, 61, FRAMES, encode) is None
    assert trim(video, 13, 24, encode) is None
