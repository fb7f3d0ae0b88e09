"""The first reading of a video to be lip-synced: where every face is in every frame.

Faces are followed within shots, and tracks that show the same person belong together, through gaps
and over cuts. What is kept per face and frame is a few dozen numbers, so hours of video fit.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from datasets.errors import Reason, SourceError
from datasets.faces.alignment import Aligner, three_points
from datasets.faces.landmarks import Face, FaceDetector, FaceMeshDetector, head_pose, mouth_opening
from datasets.faces.points import SHAPE
from datasets.media import Picture, probe, read_frames
from datasets.progress import Progress, no_progress
from tasks.faces.looks import look_of, mean_look
from tasks.faces.people import Stretch, group_people
from tasks.faces.shots import LATENCY, ShotDetector
from tasks.faces.tracks import Sighting, Tracker
from tasks.sync.mouth_audio import mouth_spans
from tasks.sync.mouth_audio_weights import DISTANCES

STEP = "finding faces"
"""The note that `Progress` gets."""
MAX_GAP_S = 0.32
"""Seconds for which a face may be lost; it is assumed to move evenly meanwhile."""
MOST_FACES = 6
"""Most faces followed at once."""
LOOK_EVERY_S = 0.4
"""Seconds between two samples of a track's look."""
POINTS, OPENING, POSE, BOX = slice(0, 3), 3, slice(4, 6), slice(6, 8)
"""Rows of the values kept for a face: brow, brow and nose, how far the mouth is open, how the head
is held, and the box; `SHAPE` and the spans of the mouth follow."""
PLACES, SPANS = slice(8, 8 + len(SHAPE)), slice(8 + len(SHAPE), None)


@dataclass(frozen=True)
class FaceTrack:
    """One face followed within a shot."""

    shot: int
    frames: np.ndarray
    """(n,) increasing indices of the video frames that show it."""
    values: np.ndarray
    """float64 (n, rows, 2), see `POINTS` and the other rows."""
    look: np.ndarray
    """See `tasks.faces.looks`."""

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) left, top, right, bottom in pixels."""
        return self.values[:, BOX].reshape(-1, 4)

    @property
    def spans(self) -> np.ndarray:
        """(n, distances) of `tasks.sync.mouth_audio.mouth_spans`."""
        return self.values[:, SPANS].reshape(len(self.values), -1)[:, : len(DISTANCES)]

    @property
    def weight(self) -> float:
        """Area of the face summed over its frames, in square brow distances."""
        brows = self.values[:, 1] - self.values[:, 0]
        return float((brows**2).sum())


@dataclass(frozen=True)
class VideoScan:
    """The result of the first reading."""

    times_s: np.ndarray
    """(n,) times of all frames that were read, seconds after the video's first one."""
    duration_s: float
    """End of the last frame that was read, counted in the same way."""
    video_s: float
    """Length of the whole video."""
    shots: list[int]
    """Number of the shot of every frame."""
    tracks: list[FaceTrack]
    people: list[list[int]] = field(default_factory=list)
    """Positions of each person's tracks, people in the order in which they are first seen."""

    def seconds(self, tracks: Sequence[int]) -> float:
        """Seconds for which the faces of these tracks are seen."""
        shown = sum(len(self.tracks[index].frames) for index in tracks)
        return shown * self.read_s / max(1, len(self.times_s))

    @property
    def begin_s(self) -> float:
        """When the first frame that was read is shown."""
        return float(self.times_s[0])

    @property
    def read_s(self) -> float:
        """Length of what was read."""
        return self.duration_s - self.begin_s

    def weight(self, person: Sequence[int]) -> float:
        """How much of the picture a person fills, summed over time."""
        return sum(self.tracks[index].weight for index in person)


@dataclass
class FaceScan:
    """The frames of a video, and where the face is that will be repainted."""

    times_s: np.ndarray
    """(n,) times of all frames, seconds after the first one."""
    duration_s: float
    """End of the last frame."""
    shots: list[int]
    """Number of the shot of every frame."""
    matrices: list[np.ndarray | None]
    """For every frame the matrix source -> crop, float64 (2, 3); None where the face is missing."""
    openings: np.ndarray
    """(n,) how far the mouth is open; infinite where the face is missing."""
    poses: np.ndarray
    """(n, 4) of `datasets.faces.landmarks.head_pose`; NaN where the face is missing."""
    shapes: np.ndarray | None = None
    """float32 (n, points, 2) of `SHAPE`, pixels; NaN where the face is missing; None: not known."""

    @property
    def faces(self) -> int:
        """Number of frames with the face."""
        return sum(matrix is not None for matrix in self.matrices)


def scan_video(
    path: Path,
    progress: Progress | None = None,
    fps: float | None = None,
    until_s: float | None = None,
    begin_s: float = 0.0,
) -> VideoScan:
    """Read a video once and find its faces.

    Args:
        path: the video.
        progress: called with the frames done and their estimated number, exact at the end.
        fps: constant rate at which the video is read; None keeps its own frames.
        until_s: nothing that begins later is read; None reads all of it.
        begin_s: nothing that begins earlier is kept.

    Raises:
        SourceError: the video cannot be read.
    """
    info, tell = probe(path), progress or no_progress
    rate = fps or info.fps
    seconds = info.duration_s if until_s is None else min(info.duration_s, until_s)
    expected = max(1, round((seconds - begin_s) * rate))
    times: list[float] = []
    with FaceMeshDetector(max_faces=MOST_FACES, thorough=True) as detector:
        reading = _Reading(detector, rate)
        for frame in read_frames(path, fps=fps, start_s=begin_s):
            # The previous frame ends here: nothing of this one would be seen.
            if until_s is not None and times and frame.time_s >= until_s - 1e-3:
                break
            times.append(frame.time_s)
            reading.add(frame.picture)
            tell(len(times), max(expected, len(times) + 1), STEP)
        reading.finish()
    if not times:
        raise SourceError(Reason.NO_VIDEO, f"it has no frames from {begin_s:g} s on")
    tell(len(times), len(times), STEP)
    duration = _end(times, rate)
    cuts = [0, *reading.cuts, len(times)]
    shots = [
        number for number, (start, stop) in enumerate(pairwise(cuts)) for _ in range(start, stop)
    ]
    tracks = reading.tracks(shots)
    return VideoScan(
        times_s=np.array(times),
        duration_s=duration,
        video_s=max(duration, info.duration_s),
        shots=shots,
        tracks=tracks,
        people=group_people([_stretch(track) for track in tracks]),
    )


def faces_of(scan: VideoScan, tracks: Sequence[int], resolution: int) -> FaceScan:
    """Where the person shown by some tracks is in every frame.

    Args:
        scan: of the video.
        tracks: positions of the person's tracks.
        resolution: side of the aligned face that the matrices are for.
    """
    count = len(scan.times_s)
    found = FaceScan(
        times_s=scan.times_s,
        duration_s=scan.duration_s,
        shots=scan.shots,
        matrices=[None] * count,
        openings=np.full(count, np.inf),
        poses=np.full((count, 4), np.nan),
        shapes=(shapes := np.full((count, len(SHAPE), 2), np.nan, np.float32)),
    )
    for number in sorted(tracks, key=lambda index: int(scan.tracks[index].frames[0])):
        track = scan.tracks[number]
        aligner, before = Aligner(resolution), -1
        for index, values in zip(track.frames.tolist(), track.values, strict=True):
            if found.matrices[index] is not None:
                continue
            if index != before + 1:
                aligner.reset()
            found.matrices[index] = aligner.matrix_of_points(values[POINTS])
            found.openings[index] = values[OPENING, 0]
            found.poses[index] = values[POSE].ravel()
            shapes[index] = values[PLACES]
            before = index
    return found


class _Reading:
    """Finds shots, faces and tracks in frames given one after another.

    Frames are searched `LATENCY` frames after they arrive, when it is known whether they begin a
    shot: the detector must forget what it followed in the previous one.
    """

    def __init__(self, detector: FaceDetector, rate: float) -> None:
        self._detector = detector
        self._shots = ShotDetector(rate)
        self._tracker = Tracker(max_gap=round(MAX_GAP_S * rate))
        self._look_every = max(1, round(LOOK_EVERY_S * rate))
        self._waiting: deque[Picture] = deque()
        self._searched = 0
        self._sightings: dict[int, list[Sighting]] = {}
        self._looks: dict[int, list[np.ndarray]] = {}
        self._looked: dict[int, int] = {}

    @property
    def cuts(self) -> list[int]:
        """First frame of every shot but the first."""
        return self._shots.cuts()

    def add(self, picture: Picture) -> None:
        """Take the next frame."""
        self._shots.add(picture)
        self._waiting.append(picture)
        if len(self._waiting) > LATENCY:
            self._search()

    def finish(self) -> None:
        """Process what is pending: there are no more frames."""
        while self._waiting:
            self._search()

    def _search(self) -> None:
        index, picture = self._searched, self._waiting.popleft()
        if index in self._shots.cuts():
            self._tracker.cut()
            self._detector.reset()
        faces = self._detector.detect(picture)
        kept = [_small(face) for face in faces]
        whole = {id(small.landmarks): face for small, face in zip(kept, faces, strict=True)}
        for sighting in self._tracker.add(index, kept)[0]:
            self._sightings.setdefault(sighting.track, []).append(sighting)
            if id(sighting.landmarks) in whole:
                self._look(sighting, picture, whole[id(sighting.landmarks)].landmarks)
        self._searched += 1

    def _look(self, sighting: Sighting, picture: Picture, landmarks: np.ndarray) -> None:
        if sighting.index < self._looked.get(sighting.track, 0):
            return
        self._looked[sighting.track] = sighting.index + self._look_every
        self._looks.setdefault(sighting.track, []).append(look_of(picture, landmarks))

    def tracks(self, shots: Sequence[int]) -> list[FaceTrack]:
        """All tracks, in the order in which they begin."""
        return [
            FaceTrack(
                shot=shots[seen[0].index],
                frames=np.array([sighting.index for sighting in seen]),
                values=np.stack([sighting.landmarks for sighting in seen]),
                look=mean_look(np.stack(self._looks[number])),
            )
            for number, seen in sorted(self._sightings.items())
        ]


def _small(face: Face) -> Face:
    """The face with the rows that are kept instead of the whole mesh, so that what is filled
    in between two frames is filled in for all of them."""
    mesh = face.landmarks[None]
    spans = mouth_spans(mesh)[0]
    rows = np.concatenate(
        [
            three_points(face.landmarks).ravel(),
            [mouth_opening(mesh)[0], 0.0],
            head_pose(mesh)[0],
            face.box,
            face.landmarks[list(SHAPE)].ravel(),
            spans,
            np.zeros(len(spans) % 2),
        ]
    )
    return Face(face.box, rows.reshape(-1, 2), face.score)


def _stretch(track: FaceTrack) -> Stretch:
    boxes = track.boxes
    return Stretch(
        shot=track.shot,
        first=int(track.frames[0]),
        last=int(track.frames[-1]),
        begin=boxes[0],
        end=boxes[-1],
        look=track.look,
        weight=track.weight,
    )


def _end(times: list[float], fps: float) -> float:
    """When the last frame ends: one usual gap after its start."""
    gap = float(np.median(np.diff(times))) if len(times) > 1 else 1 / fps
    return times[-1] + gap
