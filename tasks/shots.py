"""Where one shot ends and the next begins, told while the video is decoded.

PySceneDetect's own adaptive and content detectors, fed frame by frame with a small copy.
A frame is a cut when either says so: the adaptive one finds cuts between similar pictures,
the content one those close to other fast changes.
"""

from typing import Any

import cv2
import numpy as np

ADAPTIVE_THRESHOLD = 3.0
"""Change over the mean change of the neighbouring frames. The reference chain takes 2, which
splits single shots of lively speakers."""
LEAST_CHANGE = 22.0
"""Change in grey levels that a cut has at least; PySceneDetect's 15 is at times reached by the
noisy hues of a nearly grey picture at a key frame, which reach 20."""
CONTENT_THRESHOLD = 27.0
"""Change in hue, saturation and brightness, grey levels."""
SEARCH_SIDE = 256
"""Frames are compared in copies whose longer side is this, as PySceneDetect does."""
LATENCY = 2
"""A cut is known at most this many frames after its own frame."""


class ShotDetector:
    """Finds cuts in frames that are given one after the other.

    Args:
        fps: of the frames; only names times, decides nothing.
        adaptive_threshold, content_threshold: of the two detectors.
    """

    def __init__(
        self,
        fps: float = 25.0,
        adaptive_threshold: float = ADAPTIVE_THRESHOLD,
        content_threshold: float = CONTENT_THRESHOLD,
    ) -> None:
        from scenedetect.detectors import AdaptiveDetector, ContentDetector

        self._fps = fps
        self._count = 0
        self._cuts: set[int] = set()
        self._detectors: tuple[Any, ...] = (
            AdaptiveDetector(
                adaptive_threshold,
                min_scene_len=0,
                window_width=LATENCY,
                min_content_val=LEAST_CHANGE,
            ),
            ContentDetector(content_threshold, min_scene_len=0),
        )

    def add(self, rgb: np.ndarray) -> list[int]:
        """Look at the next frame, uint8 (h, w, 3).

        Returns:
            Frames, counted from 0, that are now known to begin a shot: this one or one of
            the `LATENCY` before it.
        """
        from scenedetect.common import FrameTimecode

        small = _search_copy(rgb)
        here = FrameTimecode(self._count, self._fps)
        found = {
            cut.frame_num
            for detector in self._detectors
            for cut in detector.process_frame(here, small)
        }
        new = found - self._cuts - {0}
        self._cuts |= new
        self._count += 1
        return sorted(new)

    def cuts(self) -> list[int]:
        """All frames so far that begin a shot, without the first."""
        return sorted(self._cuts)


def _search_copy(rgb: np.ndarray) -> np.ndarray:
    """A small BGR copy."""
    height, width = rgb.shape[:2]
    scale = SEARCH_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
