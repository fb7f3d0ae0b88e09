"""Joins the jaw of a generated face to the neck of its source.

Below its chin a network paints a neck by guess: often another colour, a shadow or the edge of a
collar, which would show as a second contour. So the new face ends at its own outline, and the neck
beneath is the source's own, drawn up or down to the new jaw. An old jaw that is lower than the new
one goes up with it.
"""

import cv2
import numpy as np

from datasets.faces.mediapipe_models import LandmarkModel, region_of
from datasets.faces.points import FACE_OVAL, SHAPE
from tasks.lipsync.face_oval import oval_weights

MOST_MOVED = 0.04
"""Mean distance in sides of the face by which points that speech does not move may differ between
source and result; a good result has 0.007. Beyond, the landmarks are not those of this face."""
JAW = slice(FACE_OVAL.index(361), FACE_OVAL.index(132) + 1)
"""The part of the outline below the ears."""
UPWARDS = 1.5
"""Factor of a movement upwards. Landmarks follow a jaw that opens wide by two thirds only; what is
drawn too far lies under the new face, what is not far enough would be seen."""
SHADOW = 0.025
"""How far below the jaw its edge and shadow move along, in sides of the face."""
REACH = 0.2
"""How far below those the neck is drawn at least, likewise, if the picture has room for it."""
ABOVE = 0.1
"""How far above the jaw the picture moves along, likewise."""
STEEPEST = 0.9
"""Most that the jaw may move, as a share of the room that is left below."""
SMOOTH = 0.03
"""Standard deviation across the jaw, in sides of the face, and"""
STILL = 0.004
"""movement, likewise, that landmarks show by trembling alone."""
NOTICED = 1.0
"""Pixels of the aligned face by which the neck must move to be shown in full: elsewhere the video's
own pixels are sharper."""


class JawFinder(LandmarkModel):
    """Finds the outline of generated faces; a context manager. Each face alone, so that it does not
    depend on where a job goes on."""

    def outline(self, painted: np.ndarray, shape: np.ndarray) -> np.ndarray | None:
        """`FACE_OVAL` of a generated face, (n, 2) pixels; None if it cannot be told.

        Args:
            painted: aligned face, uint8 (R, R, 3).
            shape: (points, 2) `SHAPE` of its source, pixels.
        """
        landmarks = np.full((max(SHAPE) + 1, 2), shape.mean(axis=0))
        landmarks[list(SHAPE)] = shape
        found = self.points(painted, region_of(landmarks))
        if found is None:
            return None
        points, count = found[list(SHAPE)], len(FACE_OVAL)
        moved = np.linalg.norm(points[count:] - shape[count:], axis=1).mean()
        return points[:count] if moved <= MOST_MOVED * len(painted) else None


def join_jaw(
    painted: np.ndarray,
    source: np.ndarray,
    region: np.ndarray,
    old: np.ndarray,
    new: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The generated face over the source's neck, and how much of both is shown.

    Args:
        painted: aligned face, uint8 (R, R, 3).
        source: the same face before, uint8 (R, R, 3).
        region: float (R, R) in [0, 1], what is repainted.
        old: (n, 2) `FACE_OVAL` of the source, pixels.
        new: that of the generated face.

    Returns:
        uint8 (R, R, 3) and float32 (R, R) in [0, 1]; the source shows in the rest.
    """
    side = len(region)
    moved = jaw_movement(old, new, side)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    neck = cv2.remap(source, columns, rows - moved, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    face = region * oval_weights(new, side)
    shown = face + (1 - face) * np.clip(np.abs(moved) / NOTICED, 0, 1)
    share = (face / np.maximum(shown, 1e-6))[..., None]
    mixed = neck + share * (painted.astype(np.float32) - neck)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), shown.astype(np.float32)


def jaw_movement(old: np.ndarray, new: np.ndarray, side: int) -> np.ndarray:
    """How far below its place in the source each pixel is shown, float32 (side, side).

    The old jaw comes to lie on the new one or under it; above and below, the picture moves less and
    less, and not at all at its border.

    Args:
        old: (n, 2) `FACE_OVAL` of the source, pixels.
        new: that of the generated face.
        side: of the aligned face.
    """
    columns = np.arange(side, dtype=np.float32)
    before, after = (_jaw_rows(outline, columns) for outline in (old, new))
    left, right = (float(edge(old[JAW, 0])) for edge in (np.min, np.max))
    # Outlines tremble at their steep ends, where a row says little.
    inside = np.clip(1 - ((2 * columns - left - right) / max(right - left, 1.0)) ** 2, 0, 1)
    # Nothing is drawn over the border of the picture.
    room = np.maximum(side - 1 - np.maximum(before, after), 0.0)
    shadow = np.minimum(SHADOW * side, room / 2)
    most = STEEPEST * (room - shadow)
    further = np.where(after < before, UPWARDS, 1.0) * (after - before)
    amount = cv2.GaussianBlur((further * np.minimum(1, 2 * inside))[None], (0, 0), SMOOTH * side)[0]
    amount = np.clip(np.sign(amount) * np.maximum(np.abs(amount) - STILL * side, 0), -most, most)
    jaw = before + amount
    below = np.minimum(room - shadow, REACH * side + 1.5 * np.abs(amount))
    above = np.maximum(ABOVE * side, 1.5 * np.abs(amount))
    rows = np.arange(side, dtype=np.float32)[:, None]
    lower = np.clip(1 - (rows - jaw - shadow) / np.maximum(below, 1e-3), 0, 1)
    upper = np.clip(1 - (jaw - rows) / above, 0, 1)
    return (amount * np.where(rows > jaw, lower, upper)).astype(np.float32)


def _jaw_rows(outline: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The row of the jaw in each column."""
    jaw = outline[JAW]
    order = np.argsort(jaw[:, 0])
    return np.interp(columns, jaw[order, 0], jaw[order, 1])
