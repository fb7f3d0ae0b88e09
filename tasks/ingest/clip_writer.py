"""The aligned clips of one face track, encoded in memory while the video is being decoded.

Frames pass through: at most half of a longest clip of aligned faces is held back, as needed
to end a long track in two clips of equal length instead of a long and a short one.
"""

import io
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from datasets.faces.alignment import CROP, align, align_points, aligner_for
from datasets.media import FPS, Picture, VideoWriter
from tasks.faces.tracks import Sighting
from tasks.ingest.face_quality import Quality, QualityMeter

PRESET = "superfast"
"""x264's preset: half the time of the next slower one for the same error at the same crf, and a
fifth more bytes of video."""
SEEK_FRAMES = 12
"""Most frames from one key frame to the next: training draws windows of 16 frames, and each costs
the decoding from a key frame on. One a second would save a thirtieth of the bytes and take a
seventh longer."""


@dataclass(frozen=True)
class TrackClip:
    """A stretch of a track that is a clip, or too short to be one."""

    track: int
    number: int
    """Number of the clip in its track, from 0."""
    start: int
    """First frame in the source."""
    landmarks: np.ndarray
    """float32 (t, 478, 2), pixels of the source."""
    aligned: np.ndarray
    """The same in pixels of the aligned face."""
    meter: QualityMeter
    video: bytes | None
    """The encoded faces; None if the track was too short."""
    faces: np.ndarray | None
    """uint8 (t, r, r, 3) the aligned faces, for scorers that look at them; None if no scorer
    does."""

    @property
    def frames(self) -> int:
        return len(self.landmarks)

    @property
    def quality(self) -> Quality:
        """Scores of all its frames."""
        return self.meter.result()


@dataclass(frozen=True)
class _Held:
    face: np.ndarray
    landmarks: np.ndarray
    aligned: np.ndarray
    found: bool


class TrackWriter:
    """Cuts a track into clips of `min_frames` to `max_frames` and encodes them.

    Args:
        track: number of the track.
        resolution: side of the aligned faces.
        min_frames, max_frames: length of a clip; the longest at least twice the shortest.
        crf: x264's quality.
        crop: how faces are cut out, one of `datasets.faces.alignment.CROPS`.
        keep_faces: whether clips carry their faces.
        on_clip: called with every clip once its video is complete.
    """

    def __init__(
        self,
        track: int,
        *,
        resolution: int,
        min_frames: int,
        max_frames: int,
        crf: int,
        crop: str = CROP,
        keep_faces: bool = False,
        on_clip: Callable[[TrackClip], None],
    ) -> None:
        self._track, self._keep_faces = track, keep_faces
        self._resolution, self._crf = resolution, crf
        self._min, self._max = min_frames, max_frames
        self._hold = max(min_frames, max_frames // 2)
        self._on_clip = on_clip
        self._aligner = aligner_for(crop, resolution)
        self._waiting: deque[_Held] = deque()
        self._start = -1
        self._number = 0
        self._begin_clip()

    def _begin_clip(self) -> None:
        self._writer: VideoWriter | None = None
        self._faces: list[np.ndarray] = []
        self._meter = QualityMeter()
        self._landmarks: list[np.ndarray] = []
        self._aligned: list[np.ndarray] = []

    def add(self, sighting: Sighting, image: np.ndarray | Picture) -> None:
        """Take the track's next frame."""
        if self._start < 0:
            self._start = sighting.index
        matrix = self._aligner.matrix(sighting.landmarks)
        points = align_points(sighting.landmarks, matrix, self._resolution)
        face = align(image, matrix, self._resolution)
        self._waiting.append(_Held(face, sighting.landmarks, points, sighting.found))
        if len(self._waiting) > self._hold:
            self._encode_one()
            if len(self._landmarks) == self._max:
                self._finish_clip()

    def close(self) -> None:
        """End the track: hand out what is left, split evenly if it makes two clips."""
        left = len(self._landmarks) + len(self._waiting)
        if left == 0:
            return
        if left < self._min:
            self._give_out_short()
            return
        if left > self._max:
            first = max(len(self._landmarks), left // 2)
            while len(self._landmarks) < first:
                self._encode_one()
            self._finish_clip()
        while self._waiting:
            self._encode_one()
        self._finish_clip()

    def discard(self) -> None:
        """Drop the clip that is being encoded."""
        if self._writer is not None:
            self._writer.__exit__(RuntimeError, None, None)
            self._writer = None

    def _encode_one(self) -> None:
        held = self._waiting.popleft()
        if self._writer is None:
            self._video = io.BytesIO()
            self._writer = _writer(self._video, self._resolution, self._crf)
        self._writer.write(held.face)
        self._note(held)

    def _note(self, held: _Held) -> None:
        self._meter.add(held.face, held.landmarks, held.found)
        self._landmarks.append(held.landmarks)
        if self._keep_faces:
            self._faces.append(held.face)
        self._aligned.append(held.aligned)

    def _finish_clip(self) -> None:
        assert self._writer is not None
        self._writer.close()
        self._give_out(self._video.getvalue())

    def _give_out_short(self) -> None:
        while self._waiting:
            self._note(self._waiting.popleft())
        self._give_out(None)

    def _give_out(self, video: bytes | None) -> None:
        clip = TrackClip(
            track=self._track,
            number=self._number,
            start=self._start,
            landmarks=np.stack(self._landmarks),
            aligned=np.stack(self._aligned),
            meter=self._meter,
            video=video,
            faces=np.stack(self._faces) if self._faces else None,
        )
        self._start += clip.frames
        self._number += 1
        self._begin_clip()
        self._on_clip(clip)


def encode_faces(faces: Sequence[np.ndarray], resolution: int, crf: int) -> bytes:
    """An mp4 of aligned faces, uint8 (resolution, resolution, 3), as that of a clip."""
    video = io.BytesIO()
    with _writer(video, resolution, crf) as writer:
        for face in faces:
            writer.write(face)
    return video.getvalue()


def _writer(video: io.BytesIO, side: int, crf: int) -> VideoWriter:
    return VideoWriter(
        video,
        side,
        side,
        FPS,
        crf=crf,
        preset=PRESET,
        seek_frames=SEEK_FRAMES,
        cheap_to_read=True,
    )
