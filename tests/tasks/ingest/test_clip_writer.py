"""Clips of a track: lengths, order, content, and what is left when something goes wrong."""

import io
from typing import Any

import av
import numpy as np
import pytest

from tasks.faces.tracks import Sighting
from tasks.ingest.clip_writer import TrackClip, TrackWriter

SIDE = 64
MIN, MAX = 6, 20


def landmarks() -> np.ndarray:
    mesh = np.full((478, 2), 60, np.float32)
    mesh[[70, 63, 105, 66, 107, 46, 53, 52, 65, 55]] = (40, 40)
    mesh[[300, 293, 334, 296, 336, 276, 283, 282, 295, 285]] = (80, 40)
    mesh[[197, 195, 5, 4]] = (60, 60)
    mesh[[234, 454]] = (30, 55), (90, 55)
    return mesh


def picture(index: int) -> np.ndarray:
    """A grey level for each frame, so that its place shows in the clip."""
    return np.full((120, 120, 3), 20 + 2 * index, np.uint8)


class Fixture:
    def __init__(self, **options: Any) -> None:
        self.clips: list[TrackClip] = []
        self.writer = TrackWriter(
            3,
            resolution=SIDE,
            min_frames=MIN,
            max_frames=MAX,
            crf=10,
            on_clip=self.clips.append,
            **options,
        )

    def feed(self, frames: int, first: int = 10) -> None:
        for index in range(frames):
            self.writer.add(Sighting(3, first + index, landmarks(), True), picture(index))


@pytest.fixture
def made() -> Fixture:
    return Fixture()


def decoded(video: bytes | None) -> list[np.ndarray]:
    assert video is not None
    with av.open(io.BytesIO(video), "r") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("frames", [6, 7, 19, 20, 21, 25, 26, 30, 39, 40, 41, 55, 60, 100])
def test_lengths(made: Fixture, frames: int) -> None:
    made.feed(frames)
    made.writer.close()
    lengths = [clip.frames for clip in made.clips]
    assert sum(lengths) == frames
    assert all(MIN <= length <= MAX for length in lengths)
    assert [clip.number for clip in made.clips] == list(range(len(lengths)))
    starts = 10 + np.cumsum([0, *lengths[:-1]])
    assert [clip.start for clip in made.clips] == starts.tolist()
    if frames > MAX:
        assert min(lengths) >= MAX // 2, "no clip may be much shorter than the others"


def test_frames_are_the_track_s_own(made: Fixture) -> None:
    made.feed(33)
    made.writer.close()
    shown = []
    for clip in made.clips:
        frames = decoded(clip.video)
        assert len(frames) == clip.frames == len(clip.aligned)
        assert frames[0].shape == (SIDE, SIDE, 3)
        shown += [float(frame[24:40, 24:40].mean()) for frame in frames]
    assert shown == pytest.approx([20 + 2 * index for index in range(33)], abs=2)


def test_aligned_landmarks_are_the_template(made: Fixture) -> None:
    made.feed(8)
    made.writer.close()
    (clip,) = made.clips
    assert clip.track == 3
    brows = clip.aligned[-1][[70, 300]]
    assert brows[1, 0] - brows[0, 0] > SIDE / 3
    assert brows[0, 1] == pytest.approx(SIDE / 5, abs=4)
    assert (clip.landmarks[-1] == landmarks()).all()


def test_a_short_track_gives_no_video(made: Fixture) -> None:
    made.feed(MIN - 1)
    made.writer.close()
    (clip,) = made.clips
    assert clip.video is None
    assert clip.frames == MIN - 1
    assert clip.quality.coverage == 1
    assert clip.faces is None


def test_faces_go_along_where_a_scorer_wants_them() -> None:
    made = Fixture(keep_faces=True)
    made.feed(33)
    made.writer.close()
    for clip in made.clips:
        assert clip.faces is not None
        shown = np.stack(decoded(clip.video))
        assert clip.faces.shape == shown.shape
        assert np.abs(clip.faces.astype(int) - shown).mean() < 4


def test_an_empty_track_gives_nothing(made: Fixture) -> None:
    made.writer.close()
    assert made.clips == []


def test_discarding_gives_nothing(made: Fixture) -> None:
    made.feed(MAX - 2)
    assert made.writer._writer is not None
    made.writer.discard()
    assert made.writer._writer is None
    assert made.clips == []


def test_little_is_held_back(made: Fixture) -> None:
    made.feed(200)
    assert len(made.writer._waiting) <= MAX // 2
    assert len(made.clips) == (200 - MAX // 2) // MAX
