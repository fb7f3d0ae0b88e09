"""One pass over a video's frames: shots, faces, tracks, and the clips of each track.

Frames are searched for faces `LATENCY` frames after they arrive, when it is known whether they
begin a shot. Only a handful of frames is held, whatever the length of the video.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datasets.faces.landmarks import FaceDetector
from datasets.media import Picture
from tasks.faces.shots import LATENCY, ShotDetector
from tasks.faces.tracks import Sighting, Tracker
from tasks.ingest.clip_writer import TrackWriter


@dataclass
class Shot:
    """Frames `start` to `stop` (exclusive) without a cut."""

    number: int
    start: int
    stop: int = 0
    faces: int = 0
    """Total number of faces found in its frames."""


class FacePass:
    """Follows faces: give it all frames with `add`, then call `finish`.

    Args:
        detector: finds faces; reset at every cut.
        make_writer: (track, shot) -> writer for a new track's frames.
        cuts: look for cuts; otherwise all frames are one shot.
    """

    def __init__(
        self,
        detector: FaceDetector,
        make_writer: Callable[[int, int], TrackWriter],
        cuts: bool = True,
    ) -> None:
        self._detector = detector
        self._make_writer = make_writer
        self._detector.reset()
        self._shot_detector = ShotDetector() if cuts else None
        self._tracker = Tracker()
        self._writers: dict[int, TrackWriter] = {}
        self._frames: deque[Picture] = deque()
        self._searched = 0
        self._cuts: set[int] = set()
        self.count = 0
        self.shots = [Shot(0, 0)]

    def add(self, image: np.ndarray | Picture) -> None:
        """Take the next frame, uint8 (h, w, 3) or a picture; a picture is faster."""
        picture = Picture.of(image)
        if self._shot_detector is not None:
            self._cuts |= set(self._shot_detector.add(picture))
        self._frames.append(picture)
        self.count += 1
        if self.count > LATENCY:
            self._search()
        if len(self._frames) > LATENCY + self._tracker.max_gap + 1:
            self._frames.popleft()

    def finish(self) -> None:
        """End all tracks, since there are no more frames."""
        while self._searched < self.count:
            self._search()
        self._end_shot()

    def abandon(self) -> None:
        """Drop clips that are not complete, after an error."""
        for writer in self._writers.values():
            writer.discard()

    def _search(self) -> None:
        index = self._searched
        if index in self._cuts:
            self._end_shot()
            self._detector.reset()
            self.shots.append(Shot(len(self.shots), index))
        shot = self.shots[-1]
        faces = self._detector.detect(self._frame(index))
        sightings, ended = self._tracker.add(index, faces)
        for sighting in sightings:
            self._pass_on(sighting, shot)
        for track in ended:
            self._writers.pop(track).close()
        shot.faces += len(faces)
        shot.stop = index + 1
        self._searched += 1

    def _pass_on(self, sighting: Sighting, shot: Shot) -> None:
        if sighting.track not in self._writers:
            self._writers[sighting.track] = self._make_writer(sighting.track, shot.number)
        self._writers[sighting.track].add(sighting, self._frame(sighting.index))

    def _end_shot(self) -> None:
        for track in self._tracker.cut():
            self._writers.pop(track).close()

    def _frame(self, index: int) -> Picture:
        return self._frames[index - self.count]
