"""The first reading of a video to be lip-synced: where the face is in every frame.

In each shot the face that fills most of it is followed. What is kept per frame is one
small matrix, so hours of video fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from datasets.faces.alignment import Aligner, three_points
from datasets.faces.landmarks import Face, FaceMeshDetector, head_pose, mouth_opening
from datasets.media import probe, read_frames
from datasets.progress import Progress
from tasks.faces.shots import ShotDetector
from tasks.faces.tracks import Tracker

MAX_GAP = 8
"""Frames that may be missed in a row; the face is taken to move evenly between."""


@dataclass
class FaceScan:
    """What the first reading found."""

    times_s: np.ndarray
    """(n,) of every frame, seconds after the first one."""
    duration_s: float
    """End of the last frame."""
    shots: list[int]
    """Number of the shot of every frame."""
    matrices: list[np.ndarray | None]
    """For every frame source -> crop, float64 (2, 3); None where no face is."""
    openings: np.ndarray
    """(n,) how far the mouth is open; infinite where no face is."""
    poses: np.ndarray
    """(n, 4) of `datasets.faces.landmarks.head_pose`; NaN where no face is."""

    @property
    def faces(self) -> int:
        """Frames with a face."""
        return sum(matrix is not None for matrix in self.matrices)


def main_track(faces: Sequence[list[Face]]) -> dict[int, np.ndarray]:
    """Where the face is that fills most of a shot, gaps of a few frames filled.

    Args:
        faces: per frame of the shot all faces; their landmarks may be any points, of which
            the first two are the brows.

    Returns:
        frame of the shot -> the face's points.
    """
    tracker = Tracker(max_gap=MAX_GAP)
    tracks: dict[int, dict[int, np.ndarray]] = {}
    for index, found in enumerate(faces):
        for sighting in tracker.add(index, found)[0]:
            tracks.setdefault(sighting.track, {})[sighting.index] = sighting.landmarks
    return max(tracks.values(), key=_weight, default={})


def _weight(points: dict[int, np.ndarray]) -> float:
    """Area of a face summed over its frames, up to a factor."""
    return float(sum(((each[1] - each[0]) ** 2).sum() for each in points.values()))


def scan_faces(
    path: Path,
    resolution: int,
    progress: Progress | None = None,
    fps: float | None = None,
) -> FaceScan:
    """Read a video once and find its main face.

    Args:
        path: the video.
        resolution: side of the aligned face that the matrices are for.
        progress: told frames done and about how many there are.
        fps: constant rate at which the video is read; None: its own frames.

    Raises:
        SourceError: the video cannot be read.
    """
    info = probe(path)
    rate = fps or info.fps
    expected = max(1, round(info.duration_s * rate))
    times: list[float] = []
    found: list[list[Face]] = []
    shots = ShotDetector(rate)
    with FaceMeshDetector(max_faces=4) as detector:
        for frame in read_frames(path, fps=fps):
            times.append(frame.time_s)
            shots.add(frame.picture)
            found.append([_small(face) for face in detector.detect(frame.picture)])
            if progress:
                progress(len(times), max(expected, len(times) + 1), "finding the face")
    cuts = [0, *shots.cuts(), len(times)]
    scan = FaceScan(
        times_s=np.array(times),
        duration_s=_end(times, rate),
        shots=[0] * len(times),
        matrices=[None] * len(times),
        openings=np.full(len(times), np.inf),
        poses=np.full((len(times), 4), np.nan),
    )
    for number, (start, stop) in enumerate(pairwise(cuts)):
        scan.shots[start:stop] = [number] * (stop - start)
        aligner = Aligner(resolution)
        points = main_track(found[start:stop])
        before = -1
        for index in sorted(points):
            if index != before + 1:
                aligner.reset()
            scan.matrices[start + index] = aligner.matrix_of_points(points[index][:3])
            scan.openings[start + index] = points[index][3, 0]
            scan.poses[start + index] = points[index][4:6].ravel()
            before = index
    return scan


def _small(face: Face) -> Face:
    """The face with its three points, (opening, 0) and its pose instead of the whole mesh."""
    mesh = face.landmarks[None]
    opening = np.array([[mouth_opening(mesh)[0], 0.0]])
    pose = head_pose(mesh).reshape(2, 2)
    points = np.concatenate([three_points(face.landmarks), opening, pose])
    return Face(face.box, points, face.score)


def _end(times: list[float], fps: float) -> float:
    """When the last frame ends: after the usual gap."""
    gap = float(np.median(np.diff(times))) if len(times) > 1 else 1 / fps
    return times[-1] + gap
