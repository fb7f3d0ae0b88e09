"""Where the face ends inside the part that is repainted.

The mask reaches beyond the cheeks, so that ears, hair and what is behind lie in it. A network that
copies its picture from a still face copies these, too, as they were in that face's pose; no speech
changes them, and so they stay the source's own.
"""

import cv2
import numpy as np

JAW_ROOM = 0.09
"""How far below its chin a face's jaw may open, in sides of the aligned face."""
MARGIN = 0.012
"""How far beyond the outline the new face goes, likewise: the outline runs inside of the edge."""
SOFT = 0.025
"""Standard deviation of the edge, likewise."""


def oval_weights(outline: np.ndarray, side: int, jaw_room: float = 0.0) -> np.ndarray:
    """How much of each pixel belongs to a face, float32 (side, side) in [0, 1].

    Args:
        outline: (n, 2) `FACE_OVAL`, pixels of the aligned face.
        side: of the aligned face.
        jaw_room: how far below its chin the face may reach, see `JAW_ROOM`.
    """
    points = np.asarray(outline, np.float64).copy()
    middle = points.mean(axis=0)
    half = max(float(np.ptp(points[:, 0])) / 2, 1.0)
    # The chin comes down, the points beside the ears do not.
    below = points[:, 1] > middle[1]
    across = np.clip(1 - ((points[:, 0] - middle[0]) / half) ** 2, 0, 1)
    points[:, 1] += np.where(below, jaw_room * side * across, 0)
    shape = np.zeros((side, side), np.uint8)
    # In sixteenths of a pixel, so that the edge does not tremble.
    cv2.fillPoly(shape, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    grown = 2 * max(1, round(MARGIN * side)) + 1
    shape = cv2.dilate(shape, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grown, grown)))
    soft = cv2.GaussianBlur(shape, (0, 0), SOFT * side)
    return soft.astype(np.float32) / 255
