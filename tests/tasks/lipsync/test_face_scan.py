from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.faces.landmarks import Face
from datasets.media import Picture, VideoWriter
from tasks.lipsync import face_scan as module
from tasks.lipsync.face_scan import FaceTrack, VideoScan, faces_of, scan_video
from tests.support.mouths import loudness, mouth
from tests.support.portrait import moving, portrait
from tests.support.tracks_of_faces import face_track


class Listed:
    """A detector with given results; frames are recognised by their grey level."""

    def __init__(self, faces: list[list[float]]) -> None:
        self.faces, self.at, self.resets = faces, 0, [-1]

    def detect(self, image: np.ndarray | Picture) -> list[Face]:
        places = self.faces[self.at]
        self.at += 1
        mesh = np.random.default_rng(0).uniform(0, 60, (478, 2)).astype(np.float32)
        found = []
        for x in places:
            points = mesh + np.array([x, 20], np.float32)
            found.append(Face((x, 20.0, x + 60, 80.0), points))
        return found

    def reset(self) -> None:
        self.resets.append(self.at)

    def close(self) -> None:
        pass


def read(
    faces: list[list[float]], fps: float, cuts: tuple[int, ...] = ()
) -> tuple[list[FaceTrack], Listed]:
    detector = Listed(faces)
    reading = module._Reading(detector, float(fps))
    for index in range(len(faces)):
        level = 60 if sum(index >= cut for cut in cuts) % 2 else 200
        reading.add(Picture.of(np.full((120, 160, 3), level, np.uint8)))
    reading.finish()
    shots = [sum(index >= cut for cut in cuts) for index in range(len(faces))]
    return reading.tracks(shots), detector


@pytest.mark.parametrize(("fps", "bridged", "not_bridged"), [(25, 8, 9), (60, 19, 20)])
def test_short_gaps_are_filled_by_seconds_and_not_by_frames(
    fps: int, bridged: int, not_bridged: int
) -> None:
    for gap, tracks in ((bridged, 1), (not_bridged, 2)):
        faces = [[10.0]] * 10 + [[]] * gap + [[20.0]] * 10
        found, _ = read(faces, fps)
        assert len(found) == tracks
        if tracks == 1:
            assert found[0].frames.tolist() == list(range(20 + gap))
            middle = found[0].boxes[10 + gap // 2, 0]
            assert 10 < middle < 20


def test_the_detector_forgets_at_cuts_and_no_track_goes_on_over_one() -> None:
    found, detector = read([[10.0]] * 30, 25, cuts=(12, 20))
    assert detector.resets == [-1, 12, 20]
    assert [(track.shot, len(track.frames)) for track in found] == [(0, 12), (1, 8), (2, 10)]


def test_everybody_is_followed() -> None:
    found, _ = read([[0.0, 70.0]] * 20, 25)
    assert [track.boxes[0, 0] for track in found] == [0.0, 70.0]
    assert all(len(track.frames) == 20 for track in found)


def test_all_tracks_of_a_person_are_repainted() -> None:
    meshes = mouth(loudness(20, 1))
    tracks = [face_track(meshes, first=0), face_track(meshes, first=40)]
    scan = VideoScan(np.arange(80) / 25, 3.2, 3.2, [0] * 60 + [1] * 20, tracks, [[0, 1]])
    faces = faces_of(scan, scan.people[0], 256)
    there = [index for index, matrix in enumerate(faces.matrices) if matrix is not None]
    assert there == [*range(20), *range(40, 60)]
    assert faces.faces == 40
    assert np.isfinite(faces.openings[there]).all()
    assert np.isnan(faces.poses[20:40]).all()
    # Nothing is carried over a gap: the second stretch begins as the first did.
    assert faces.matrices[40] == pytest.approx(faces.matrices[0])


@pytest.fixture(scope="module")
def medium_shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1280x720: a large face for 12 frames, then, after a cut, one of 48 pixels far from it."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    large, small = moving(12, side=500), cv2.resize(portrait(320), (158, 158))
    with VideoWriter(path, 1280, 720, 25, crf=6, preset="ultrafast") as writer:
        for picture in large:
            frame = np.full((720, 1280, 3), (90, 110, 130), np.uint8)
            frame[100:600, 60:560] = picture
            writer.write(frame)
        for index in range(12):
            frame = np.full((720, 1280, 3), (60, 50, 40), np.uint8)
            frame[520:678, 1100 + index : 1258 + index] = small
            writer.write(frame)
    return path


def test_a_small_face_is_found_within_two_frames_of_a_cut(medium_shots: Path) -> None:
    scan = scan_video(medium_shots)
    assert scan.shots == [0] * 12 + [1] * 12
    after = [track for track in scan.tracks if track.shot == 1]
    assert len(after) == 1
    assert after[0].frames[0] <= 14
    width = np.median(after[0].boxes[:, 2] - after[0].boxes[:, 0])
    assert 40 < width < 60
    # The same person over the cut, ten times smaller and elsewhere.
    assert scan.people == [[0, 1]]


def test_only_what_is_shown_is_read(medium_shots: Path) -> None:
    told: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None, note: str = "") -> None:
        told.append((done, total))

    scan = scan_video(medium_shots, progress, until_s=0.2)
    assert len(scan.times_s) == 5
    assert scan.duration_s == pytest.approx(0.2)
    assert scan.video_s == pytest.approx(24 / 25, abs=0.01)
    assert told[-1] == (5, 5)
