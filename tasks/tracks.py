"""Follow several faces from frame to frame within a shot.

A face continues the track whose last box it overlaps most. Tracks end at cuts and where a
face is missing for longer than a few frames; shorter gaps are filled in a straight line.
"""

from dataclasses import dataclass, field

import numpy as np

from datasets.landmarks import Face, overlap

MAX_GAP = 5
"""Frames that a face may be missed in a row."""
MIN_OVERLAP = 0.3
"""Smallest intersection over union of a face's boxes in frames that follow each other."""
SAME_FACE = 0.6
"""Two boxes of one frame that overlap more are one face found twice."""


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
    """False where it was filled in between two frames."""


@dataclass
class _Track:
    number: int
    index: int
    face: Face


@dataclass
class Tracker:
    """Gives faces their tracks. Frames come in order, `cut` is called between shots."""

    max_gap: int = MAX_GAP
    min_overlap: float = MIN_OVERLAP
    _open: list[_Track] = field(default_factory=list)
    _made: int = 0

    def add(self, index: int, faces: list[Face]) -> tuple[list[Sighting], list[int]]:
        """Assign the faces of a frame.

        Returns:
            Sightings, each track's in the order of its frames, also of frames up to `max_gap`
            earlier that were filled in; and the numbers of tracks that ended before.
        """
        ended = [track for track in self._open if index - track.index > self.max_gap + 1]
        self._open = [track for track in self._open if track not in ended]
        sightings: list[Sighting] = []
        free = list(self._open)
        for face in _distinct(faces):
            track = max(free, key=lambda each: overlap(each.face.box, face.box), default=None)
            if track is None or overlap(track.face.box, face.box) < self.min_overlap:
                track = _Track(self._made, index, face)
                self._made += 1
                self._open.append(track)
            else:
                free.remove(track)
                sightings += _between(track, index, face)
            track.index, track.face = index, face
            sightings.append(Sighting(track.number, index, face.landmarks, True))
        return sightings, [track.number for track in ended]

    def cut(self) -> list[int]:
        """End all tracks; returns their numbers."""
        ended = [track.number for track in self._open]
        self._open = []
        return ended


def _distinct(faces: list[Face]) -> list[Face]:
    """Faces without those that repeat an earlier one."""
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
