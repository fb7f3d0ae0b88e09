"""Faces followed by region against mediapipe's FaceMesh on whole frames, on real footage."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.landmarks import SETTLING, face_mesh, jitter, moved, square_corners
from datasets.faces.landmarks import FaceMeshDetector, mouth_opening
from datasets.media import read_frames
from tasks.faces.tracks import Sighting
from tasks.ingest.face_pass import FacePass

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "name", ["latentsync_demo2_25fps.mp4", "retalk_2.mp4", "grid_lwbsza.mpg", "syncnet_example.avi"]
)
def test_as_precise_as_face_mesh_on_every_frame(shared: Path, name: str) -> None:
    frames = list(read_frames(shared / "clips" / name, end_s=2.0))
    expected = np.stack([each for each in face_mesh()(frames) if each is not None])
    with FaceMeshDetector() as detector:
        found = np.stack([detector.detect(frame.picture)[0].landmarks for frame in frames])
    assert len(expected) == len(found) == 50
    # FaceMesh takes a few frames to settle from the detector's rough region.
    expected, found = expected[SETTLING:], found[SETTLING:]
    corners = square_corners(expected)
    error = moved(square_corners(found), corners)
    assert error.mean() < 0.3
    assert error.mean() < 0.4 * jitter(corners).mean()
    openings = mouth_opening(found), mouth_opening(expected)
    assert np.corrcoef(*openings)[0, 1] > 0.99


class Counter:
    """A writer that notes which frames a track has."""

    def __init__(self) -> None:
        self.frames: list[int] = []

    def add(self, sighting: Sighting, image: object) -> None:
        self.frames.append(sighting.index)

    def close(self) -> None:
        return None

    def discard(self) -> None:
        return None


def tracks(path: Path, detector: FaceMeshDetector) -> dict[int, Counter]:
    writers: dict[int, Counter] = {}

    def make(track: int, shot: int) -> Counter:
        writers[track] = Counter()
        return writers[track]

    work = FacePass(detector, make)  # type: ignore[arg-type]
    for frame in read_frames(path):
        work.add(frame.picture)
    work.finish()
    return writers


def test_two_people_are_two_tracks_on_every_run(shared: Path) -> None:
    path = shared / "clips/clearvoice_001_2faces.avi"
    with FaceMeshDetector() as detector:
        first = tracks(path, detector)
        tracks(shared / "clips/grid_lwbsza.mpg", detector)
        second = tracks(path, detector)
    lengths = sorted(len(each.frames) for each in first.values())
    assert lengths[-2:] == [201, 201]
    assert [each.frames for each in first.values()] == [each.frames for each in second.values()]
