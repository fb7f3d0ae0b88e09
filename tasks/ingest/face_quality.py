"""What is measured on every clip, whatever the current thresholds are."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from datasets.faces.landmarks import yaw_deg


@dataclass(frozen=True)
class Quality:
    """Scores of a clip; the fields are columns of the ledger."""

    face_px: float
    """Median side of the face's bounding box in the source, pixels."""
    coverage: float
    """Share of frames in which the face was found and not filled in."""
    sharpness: float
    """Variance of the Laplacian of the aligned face in grey levels, median over frames."""
    yaw_deg: float
    """Median absolute yaw, degrees."""
    brightness: float
    """Mean grey level of the aligned face, 0 to 255."""


@dataclass
class QualityMeter:
    """Collects a few numbers for each frame."""

    _sides: list[float] = field(default_factory=list)
    _found: list[bool] = field(default_factory=list)
    _sharp: list[float] = field(default_factory=list)
    _landmarks: list[np.ndarray] = field(default_factory=list)
    _bright: list[float] = field(default_factory=list)

    def add(self, face: np.ndarray, landmarks: np.ndarray, found: bool) -> None:
        """Measure a frame.

        Args:
            face: aligned, uint8 (r, r, 3).
            landmarks: (478, 2) in pixels of the source.
            found: whether they were detected and not filled in.
        """
        grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
        width, height = np.ptp(landmarks, axis=0)
        self._sides.append(float(np.sqrt(width * height)))
        self._found.append(found)
        self._sharp.append(float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0] ** 2))
        self._landmarks.append(landmarks)
        self._bright.append(cv2.mean(grey)[0])

    def result(self, first: int = 0, stop: int | None = None) -> Quality:
        """Scores of the frames from `first` to before `stop`, of which there must be at least one;
        by default of all so far."""
        part = slice(first, stop)
        return Quality(
            face_px=float(np.median(self._sides[part])),
            coverage=float(np.mean(self._found[part])),
            sharpness=float(np.median(self._sharp[part])),
            yaw_deg=float(np.median(np.abs(yaw_deg(np.stack(self._landmarks[part]))))),
            brightness=float(np.mean(self._bright[part])),
        )
