"""Follow several faces from frame to frame within a shot.

Faces continue the tracks whose boxes they overlap most; all faces of a frame are assigned together.
If boxes overlap, as when faces cross, each track's box is extrapolated by its motion. Tracks
end at cuts and when a face is missing for more than a few frames; shorter gaps are filled
by linear interpolation.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from datasets.faces.landmarks import Face, overlap

MAX_GAP = 5
"""Most consecutive frames for which a face may be missing."""
MIN_OVERLAP = 0.3
"""Smallest intersection over union of a face's boxes in consecutive frames."""
KEPT_SPEED = 0.5
"""Weight of the previous speed in the new one, since landmarks jitter."""
SAME_FACE = 0.6
"""Two boxes in one frame that overlap more are one face found twice."""


Box = tuple[float, float, float, float]
"""Left, top, right, bottom, pixels."""


@dataclass(frozen=True)
class Sighting:
    """A face of a track in one frame."""

    track: int
    """Number of the track in the file, from 0."""
    index: int
    """Frame, from 0."""
    landmarks: np.ndarray
    """float32 (478, 2), pixels."""
    found: bool
    """False if it was filled in between two frames."""


@dataclass
class _Track:
    number: int
    index: int
    face: Face
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))
    """Pixels per frame."""

    def expected(self, index: int) -> Box:
        """Its box in a frame if it keeps moving as before."""
        x, y = self.speed * (index - self.index)
        left, top, right, bottom = self.face.box
        return left + x, top + y, right + x, bottom + y

    def go_on(self, index: int, face: Face) -> None:
        """Record that the face was seen again."""
        moved = (_centre(face.box) - _centre(self.face.box)) / (index - self.index)
        self.speed = KEPT_SPEED * self.speed + (1 - KEPT_SPEED) * moved
        self.index, self.face = index, face


@dataclass
class Tracker:
    """Assigns faces to tracks. Frames come in order; `cut` is called between shots."""

    max_gap: int = MAX_GAP
    min_overlap: float = MIN_OVERLAP
    _open: list[_Track] = field(default_factory=list)
    _made: int = 0

    def add(self, index: int, faces: list[Face]) -> tuple[list[Sighting], list[int]]:
        """Assign the faces of a frame.

        Returns:
            Sightings, each track's in the order of its frames, including those of up to `max_gap`
            earlier frames that were filled in; and the numbers of tracks that ended earlier.
        """
        ended = [track for track in self._open if index - track.index > self.max_gap + 1]
        self._open = [track for track in self._open if track not in ended]
        sightings: list[Sighting] = []
        distinct = _distinct(faces)
        tracks = self._assigned(index, distinct)
        for face, track in zip(distinct, tracks, strict=True):
            if track is None:
                track = _Track(self._made, index, face)
                self._made += 1
                self._open.append(track)
            else:
                sightings += _between(track, index, face)
                track.go_on(index, face)
            sightings.append(Sighting(track.number, index, face.landmarks, True))
        return sightings, [track.number for track in ended]

    def _assigned(self, index: int, faces: list[Face]) -> list[_Track | None]:
        """For each face the track that it continues, maximising the sum of the overlaps."""
        found: list[_Track | None] = [None] * len(faces)
        if not faces or not self._open:
            return found
        last, expected = (
            np.array([[overlap(box, face.box) for box in boxes] for face in faces])
            for boxes in (
                [track.face.box for track in self._open],
                [track.expected(index) for track in self._open],
            )
        )
        possible = np.maximum(last, expected) >= self.min_overlap
        # Tracks that two faces could continue are distinguished by their motion.
        gain = np.where(possible, 1 + expected, 0.0)
        for row, column in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
            if possible[row, column]:
                found[row] = self._open[column]
        return found

    def cut(self) -> list[int]:
        """End all tracks; returns their numbers."""
        ended = [track.number for track in self._open]
        self._open = []
        return ended


def _centre(box: Box) -> np.ndarray:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])


def _distinct(faces: list[Face]) -> list[Face]:
    """The faces without those that repeat an earlier one."""
    kept: list[Face] = []
    for face in faces:
        if all(overlap(face.box, other.box) <= SAME_FACE for other in kept):
            kept.append(face)
    return kept


def _between(track: _Track, index: int, face: Face) -> list[Sighting]:
    """Sightings for the frames that were missed before `index`."""
    gap = index - track.index
    first, last = track.face.landmarks, face.landmarks
    return [
        Sighting(track.number, track.index + step, first + (last - first) * (step / gap), False)
        for step in range(1, gap)
    ]
