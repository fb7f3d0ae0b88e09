"""Finds where one shot ends and the next begins while the video is being decoded.

PySceneDetect's own adaptive and content detectors, fed frame by frame with a small copy.
A frame is a cut if either says so: the adaptive one finds cuts between similar pictures,
the content one those close to other fast changes. Both use the same change from frame to
frame, which is measured once.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from datasets.media import Picture

LATENCY = 2
"""Most frames until a cut is known."""


@dataclass(frozen=True)
class ShotConfig:
    """Thresholds of the detectors, in averaged grey levels of hue, saturation and brightness.

    PySceneDetect's own defaults are `ShotConfig(least_change=15, least_frames=15)`.
    """

    adaptive_threshold: float = 3.0
    """Change relative to the mean change of the neighbouring frames. The reference chain uses 2,
    which splits single shots of lively speakers."""
    least_change: float = 22.0
    """Least change at a cut of the adaptive detector; PySceneDetect's 15 is sometimes
    exceeded by the noisy hues of a nearly grey picture at a key frame, which reach 20."""
    content_threshold: float = 27.0
    """Change that is a cut regardless of its neighbours; infinity turns this detector off."""
    least_frames: int = 0
    """Shorter shots are not split off. PySceneDetect uses 15, but no track may
    go on over a cut, and a short shot gives no clip anyway."""


class ShotDetector:
    """Finds cuts in frames given one after another.

    Args:
        fps: frame rate; it only labels times and does not affect decisions.
        config: thresholds.
    """

    def __init__(self, fps: float = 25.0, config: ShotConfig | None = None) -> None:
        from scenedetect.detectors import AdaptiveDetector, ContentDetector

        config = config or ShotConfig()
        self._fps = fps
        self._count = 0
        self._change = 0.0
        self._last: np.ndarray | None = None
        self._cuts: set[int] = set()
        self._detectors: tuple[Any, ...] = (
            AdaptiveDetector(
                config.adaptive_threshold,
                min_scene_len=config.least_frames,
                window_width=LATENCY,
                min_content_val=config.least_change,
            ),
            ContentDetector(config.content_threshold, min_scene_len=config.least_frames),
        )
        for detector in self._detectors:
            # Each detector would convert and compare the frames again.
            detector._calculate_frame_score = lambda *_: self._change

    def add(self, image: np.ndarray | Picture) -> list[int]:
        """Look at the next frame, uint8 (h, w, 3) or a picture.

        Returns:
            Frames, counted from 0, that are now known to begin a shot: this one or one of
            the `LATENCY` before it (or earlier where `least_frames` joins short shots).
        """
        from scenedetect.common import FrameTimecode

        self._measure(Picture.of(image).small())
        here = FrameTimecode(self._count, self._fps)
        found = {
            cut.frame_num
            for detector in self._detectors
            for cut in detector.process_frame(here, self._last)
        }
        new = found - self._cuts - {0}
        self._cuts |= new
        self._count += 1
        return sorted(new)

    def _measure(self, small: np.ndarray) -> None:
        """Mean absolute change of hue, saturation and brightness, as PySceneDetect defines it."""
        colours = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
        before, self._last = self._last, colours
        if before is None or before.shape != colours.shape:
            self._change = 0.0
        else:
            self._change = cv2.norm(before, colours, cv2.NORM_L1) / colours.size

    def cuts(self) -> list[int]:
        """All frames so far that begin a shot, except the first."""
        return sorted(self._cuts)
