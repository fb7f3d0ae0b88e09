"""The published evaluation's view of a clip, beside our own.

LatentSync's FVD looks at 16 frames of each video, 20 to 35, at the box of MediaPipe's short-range
face detector in each frame, scaled to 224. Ours looks at windows of the whole aligned face.
"""

import cv2
import numpy as np

from datasets.faces.mediapipe_models import REGION_SCALE, SHORT_RANGE, DetectionModel
from models.judges.extractors import VIDEO_SIZE
from tasks.evaluate.metrics import BORDER
from tasks.evaluate.sets import published_window

PROTOCOLS = ("own", "latentsync")
CLIPS = 30
"""Videos of the published evaluation."""


class PublishedCrop:
    """Cuts faces out as the published evaluation does."""

    def __init__(self) -> None:
        self._detector = DetectionModel(SHORT_RANGE)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """The window of a video, uint8 (1, 16, 224, 224, 3); (0, 16, 224, 224, 3) where the video
        is too short, or a frame shows no face.

        Args:
            frames: uint8 (t, R, R, 3), aligned faces.
        """
        index = published_window(len(frames))
        cut = [self._cut(frame) for frame in frames[index].reshape(-1, *frames.shape[1:])]
        faces = [each for each in cut if each is not None]
        if not faces or len(faces) < len(cut):
            return np.empty((0, index.shape[1], VIDEO_SIZE, VIDEO_SIZE, 3), np.uint8)
        return np.stack(faces)[None]

    def _cut(self, frame: np.ndarray) -> np.ndarray | None:
        """The face in one frame; None where none is found."""
        margin = round(BORDER * len(frame))
        # Detectors expect some room around a head; what is cut lies within the picture itself.
        framed = cv2.copyMakeBorder(frame, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        found = self._detector.regions(framed)
        if not found:
            return None
        half = found[0].side / REGION_SCALE / 2
        left, top, right, bottom = (
            int(np.clip(place - margin, 0, len(frame)))
            for place in (
                found[0].x - half,
                found[0].y - half,
                found[0].x + half,
                found[0].y + half,
            )
        )
        if right - left < 1 or bottom - top < 1:
            return None
        return np.asarray(cv2.resize(frame[top:bottom, left:right], (VIDEO_SIZE, VIDEO_SIZE)))
