"""What a face looks like, so that it is recognised after a gap or a cut.

No package used here comes with a face recognition network, so a look is made of what
differs most between the people in one video: the colours of skin and hair, and a coarse picture of
the head and of the part from brows to nose. Roll and size are removed.
"""

import cv2
import numpy as np

from datasets.faces.alignment import three_points
from datasets.media import Picture

SIDE = 96
"""Side of the copy that a look is taken from, pixels."""
REACH = 3.0
"""Extent of the copy around the middle of the face, in distances between the brows."""
SKIN, HAIR = (slice(41, 64), slice(35, 62)), (slice(15, 40), slice(27, 70))
"""Rows and columns of cheeks and nose, and of forehead and hair."""
HEAD, BROWS = (slice(16, 80), slice(16, 80)), (slice(22, 58), slice(28, 68))
HEAD_SIZE, BROWS_SIZE = (16, 16), (20, 18)
CHROMA_BINS, CHROMA_RANGE = 16, (64, 192)
UNITS = {"skin": 0.40, "hair": 0.40, "head": 0.75, "brows": 0.75}
"""Distance of each part at which two looks count as unlike. Of 9 real people, seen at the beginning
and at the end of their clips, the same person reaches at most 0.15, 0.24, 0.52 and 0.54, different
ones at least 0.40, 0.39, 0.79 and 0.78."""
SIZES = (CHROMA_BINS**2, CHROMA_BINS**2, HEAD_SIZE[0] * HEAD_SIZE[1], BROWS_SIZE[0] * BROWS_SIZE[1])


def look_of(picture: Picture, landmarks: np.ndarray) -> np.ndarray:
    """The look of one face, float32 (n,): the concatenated unit vectors of all parts.

    Args:
        picture: the frame; only the part around the face is converted.
        landmarks: (478, 2), pixels.
    """
    copy = _upright(picture, landmarks)
    lab = cv2.cvtColor(copy, cv2.COLOR_RGB2LAB)
    grey = cv2.cvtColor(copy, cv2.COLOR_RGB2GRAY).astype(np.float32)
    parts = (
        _colours(lab[SKIN]),
        _colours(lab[HAIR]),
        _shape(grey[HEAD], HEAD_SIZE, 1.5),
        _shape(grey[BROWS], BROWS_SIZE, 1.0),
    )
    return np.concatenate(parts)


def mean_look(looks: np.ndarray) -> np.ndarray:
    """One look from several looks of the same face (k, n)."""
    parts = np.split(np.asarray(looks, np.float32).mean(axis=0), np.cumsum(SIZES)[:-1])
    return np.concatenate([_unit(part) for part in parts])


def unlikeness(first: np.ndarray, second: np.ndarray) -> float:
    """How different two looks are: well below 1 for one person, well above 1 for two."""
    parts = np.split(first - second, np.cumsum(SIZES)[:-1])
    shares = [
        float(np.linalg.norm(part)) / unit for part, unit in zip(parts, UNITS.values(), strict=True)
    ]
    return float(np.mean(shares))


def _upright(picture: Picture, landmarks: np.ndarray) -> np.ndarray:
    """uint8 (SIDE, SIDE, 3): the head upright in the middle."""
    points = three_points(landmarks)
    middle, brows = points.mean(axis=0), points[1] - points[0]
    span = max(float(np.linalg.norm(brows)), 1.0)
    half = REACH * span * 1.5
    low, high = middle - half, middle + half
    piece = picture.piece((float(low[0]), float(low[1]), float(high[0]), float(high[1])))
    scale = SIDE / (2 * REACH * span)
    cos, sin = brows / span * scale
    turn = np.array([[cos, sin], [-sin, cos]])
    shift = SIDE / 2 - turn @ (middle - np.array([piece.left, piece.top]))
    rgb = piece.rgb
    if scale < 1:
        # Otherwise a few points of a large face would represent all of it.
        rgb = cv2.GaussianBlur(rgb, (0, 0), 0.4 / scale)
    matrix = np.column_stack([turn, shift])
    return cv2.warpAffine(rgb, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


def _colours(lab: np.ndarray) -> np.ndarray:
    """Square root of the histogram of chroma, so that large uniform areas do not dominate."""
    edges = [*CHROMA_RANGE, *CHROMA_RANGE]
    part = np.ascontiguousarray(lab)
    counts = cv2.calcHist([part], [1, 2], None, [CHROMA_BINS, CHROMA_BINS], edges).ravel()
    return _unit(np.sqrt(counts))


def _shape(grey: np.ndarray, size: tuple[int, int], blur: float) -> np.ndarray:
    small = cv2.resize(cv2.GaussianBlur(grey, (0, 0), blur), size, interpolation=cv2.INTER_AREA)
    return _unit((small - small.mean()).ravel())


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-6)).astype(np.float32)
