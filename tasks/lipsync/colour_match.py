"""Gives a generated face the colours and lighting of the picture around it.

The network's picture is often a little darker, greyer or warmer than the source. Along the edge of
the repainted part both show the same skin, so their difference there is subtracted everywhere
inside: a plane for each channel, which follows light from the side. Planes of single frames tremble
by more than the light changes, which is seen as flicker, so those of the frames before count, too.
"""

from collections import deque
from collections.abc import Iterable
from functools import lru_cache

import cv2
import numpy as np

BAND = 0.07
"""Width of the strip along the edge in which the two are compared, in sides of the face."""
STILL_ROWS = 0.72
"""Below this, the jaw moves with the speech: source and result show different things there."""
OUTLIERS = 12.0
"""Levels beyond the usual difference at which a pixel shows different things in the two."""
MOST = 40.0
"""Largest change of a level: a larger one is not a shift of colours."""
AGREED, CONCESSION = 1.0, 1.0
"""Levels: how far the mean along the edge may be off because of pixels that show different things,
and how much is done about more, since the eye sees the mean as well."""
LEAST_PIXELS = 60
"""Fewest pixels that must agree: fewer prove nothing."""
PAST = 4
"""Frames before one whose planes count as much as its own."""
SUDDEN = 8.0
"""Levels in the middle of the face, which lies amid the edge, by which a plane differs from the one
before it where the light has changed: a lamp that goes on must not fade in."""


class ColourMatch:
    """Matches the colours of consecutive faces of one person.

    Args:
        position: of the last face whose plane is known; -1: of none.
        planes: (3, 3) of the last faces, oldest first.
    """

    def __init__(self, position: int = -1, planes: Iterable[np.ndarray] = ()) -> None:
        self.position = position
        self.planes = deque(planes, PAST + 1)

    def first_needed(self, position: int) -> int:
        """The face to go on with, so that the one at `position` comes out as if all before it had
        been matched."""
        return position if position == self.position + 1 else max(0, position - PAST)

    def __call__(
        self, position: int, painted: np.ndarray, source: np.ndarray, region: np.ndarray
    ) -> np.ndarray:
        """The generated face with its colours shifted so that they agree with the source's.

        Args:
            position: of the face in its stretch; after a gap, those before it are forgotten.
            painted: aligned face, uint8 (R, R, 3).
            source: the same face before, uint8 (R, R, 3).
            region: float (R, R) in [0, 1], how much of `painted` will be shown.

        Returns:
            uint8 (R, R, 3); `painted` itself if the two have nothing in common.
        """
        plane = colour_plane(painted, source, region)
        if position != self.position + 1 or plane is None:
            self.planes.clear()
        self.position = position
        if plane is None:
            return painted
        if self.planes and np.abs(plane[0] - self.planes[-1][0]).max() > SUDDEN:
            self.planes.clear()
        self.planes.append(plane)
        return _shifted(painted, region, np.mean(self.planes, axis=0))


def colour_plane(painted: np.ndarray, source: np.ndarray, region: np.ndarray) -> np.ndarray | None:
    """What is to be added to a generated face: (3, 3), at its middle, per half a side to the right,
    and downwards, for each channel; None if the two have nothing in common."""
    side = painted.shape[0]
    rows, columns = _band(region.astype(np.float32).tobytes(), side)
    if len(rows) < LEAST_PIXELS:
        return None
    difference = source[rows, columns].astype(np.float32) - painted[rows, columns]
    # What the soft edge has mixed in already makes the two alike, so it is taken out.
    shown = region[rows, columns][:, None]
    difference = difference / np.maximum(shown, 0.5)
    usual = np.median(difference, axis=0)
    alike = (np.abs(difference - usual) < OUTLIERS).all(axis=1)
    if int(alike.sum()) < LEAST_PIXELS:
        return None
    places = _places(rows[alike], columns[alike], side)
    plane, *_ = np.linalg.lstsq(places, difference[alike], rcond=None)
    usual_shift = (_places(rows, columns, side) @ plane).mean(axis=0)
    plane[0] -= (1 - _helps(difference.mean(axis=0), usual_shift)) * usual_shift
    left = difference.mean(axis=0) - (_places(rows, columns, side) @ plane).mean(axis=0)
    plane[0] += np.clip(left - np.clip(left, -AGREED, AGREED), -CONCESSION, CONCESSION)
    return np.asarray(plane, np.float32)


def _shifted(painted: np.ndarray, region: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """The face with a plane added, as far as it is shown."""
    side = painted.shape[0]
    height, width = np.mgrid[:side, :side]
    shift = _places(height.ravel(), width.ravel(), side) @ plane
    shift = np.clip(shift, -MOST, MOST).reshape(side, side, 3) * region[..., None]
    return np.clip(np.rint(painted + shift), 0, 255).astype(np.uint8)


def _helps(difference: np.ndarray, shift: np.ndarray) -> float:
    """The share of a shift (3,), 0 to 1, that leaves the least mean difference (3,) along the edge:
    where what differs otherwise outweighs the colours, the shift would only add to it."""
    return float(np.clip(difference @ shift / max(float(shift @ shift), 1e-6), 0, 1))


def border_difference(result: np.ndarray, source: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Mean difference (3,) of a result and its source in the strip along the edge, levels."""
    rows, columns = _band(region.astype(np.float32).tobytes(), result.shape[0])
    return np.asarray(
        (result[rows, columns].astype(np.float64) - source[rows, columns]).mean(axis=0)
    )


@lru_cache(maxsize=4)
def _band(region: bytes, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the strip, inside of what is shown and above the jaw."""
    shown = np.frombuffer(region, np.float32).reshape(side, side)
    inside = (shown > 0.5).astype(np.uint8)
    width = max(1, round(BAND * side))
    deep = cv2.erode(inside, np.ones((2 * width + 1, 2 * width + 1), np.uint8))
    strip = (inside == 1) & (deep == 0)
    strip[round(STILL_ROWS * side) :] = False
    rows, columns = np.nonzero(strip)
    return rows, columns


def _places(rows: np.ndarray, columns: np.ndarray, side: int) -> np.ndarray:
    """(n, 3) of the plane's terms: 1 and where a pixel lies, from -1 to 1."""
    middle = (side - 1) / 2
    ones = np.ones(len(rows), np.float32)
    return np.stack([ones, (columns - middle) / middle, (rows - middle) / middle], axis=1).astype(
        np.float32
    )
