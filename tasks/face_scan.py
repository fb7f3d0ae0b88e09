"""The first reading of a video to be lip-synced: where the face is in every frame.

In each shot the face that fills most of it is followed. What is kept per frame is one
small matrix, so hours of video fit.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.alignment import Aligner, three_points
from datasets.landmarks import Face, FaceMeshDetector
from datasets.media import probe, read_frames

MAX_GAP = 8
"""Frames that may be missed in a row; the face is taken to move evenly between."""
MIN_OVERLAP = 0.2
"""Intersection over union of the boxes of one face in frames that follow each other."""


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

    @property
    def faces(self) -> int:
        """Frames with a face."""
        return sum(matrix is not None for matrix in self.matrices)


@dataclass
class _Track:
    """One face through a shot."""

    boxes: dict[int, np.ndarray] = field(default_factory=dict)
    points: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return max(self.boxes)

    @property
    def weight(self) -> float:
        """Total area."""
        return float(sum((box[2] - box[0]) * (box[3] - box[1]) for box in self.boxes.values()))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (first, second)]
    return shared / max(sum(areas) - shared, 1e-9)


def main_track(faces: list[list[tuple[np.ndarray, np.ndarray]]]) -> dict[int, np.ndarray]:
    """The points of the face that fills most of a shot, gaps of a few frames filled.

    Args:
        faces: per frame of the shot the boxes (4,) and points (3, 2) of all faces.

    Returns:
        frame of the shot -> points (3, 2).
    """
    tracks: list[_Track] = []
    for index, found in enumerate(faces):
        open_tracks = [track for track in tracks if index - track.last <= MAX_GAP + 1]
        for box, points in found:
            scores = [
                0.0 if track.last == index else overlap(track.boxes[track.last], box)
                for track in open_tracks
            ]
            best = int(np.argmax(scores)) if scores else -1
            if best >= 0 and scores[best] >= MIN_OVERLAP:
                track = open_tracks[best]
            else:
                track = _Track()
                tracks.append(track)
            track.boxes[index], track.points[index] = box, points
    if not tracks:
        return {}
    return _filled(max(tracks, key=lambda track: track.weight).points)


def _filled(points: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Points with short gaps filled in a straight line."""
    known = sorted(points)
    filled = dict(points)
    for before, after in zip(known, known[1:], strict=False):
        for index in range(before + 1, after):
            share = (index - before) / (after - before)
            filled[index] = (1 - share) * points[before] + share * points[after]
    return filled


def scan_faces(
    path: Path, resolution: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> FaceScan:
    """Read a video once and find its main face.

    Args:
        path: the video.
        resolution: side of the aligned face that the matrices are for.
        progress: told frames done and about how many there are.

    Raises:
        SourceError: the video cannot be read.
    """
    from tasks.shots import ShotDetector

    info = probe(path)
    expected = max(1, round(info.duration_s * info.fps))
    times: list[float] = []
    found: list[list[tuple[np.ndarray, np.ndarray]]] = []
    shots = ShotDetector(info.fps)
    with FaceMeshDetector(max_faces=4) as detector:
        for frame in read_frames(path, fps=None):
            times.append(frame.time_s)
            shots.add(frame.rgb)
            found.append([_small(face) for face in detector.detect(frame.rgb)])
            progress(len(times), max(expected, len(times) + 1))
    cuts = [0, *shots.cuts(), len(times)]
    scan = FaceScan(
        np.array(times), _end(times, info.fps), [0] * len(times), [None] * len(times)
    )
    for number, (start, stop) in enumerate(zip(cuts, cuts[1:], strict=False)):
        scan.shots[start:stop] = [number] * (stop - start)
        aligner = Aligner(resolution)
        points = main_track(found[start:stop])
        before = -1
        for index in sorted(points):
            if index != before + 1:
                aligner.reset()
            scan.matrices[start + index] = aligner.matrix_of_points(points[index])
            before = index
    return scan


def _small(face: Face) -> tuple[np.ndarray, np.ndarray]:
    """What is kept of a face: box and three points."""
    return np.asarray(face.box, float), three_points(face.landmarks)


def _end(times: list[float], fps: float) -> float:
    """When the last frame ends: after the usual gap."""
    gap = float(np.median(np.diff(times))) if len(times) > 1 else 1 / fps
    return times[-1] + gap
