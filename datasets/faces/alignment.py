"""Turning faces upright and back: the affine alignment that training and inference share.

Three points of a face (left brow, right brow, nose, as seen in the image) are brought onto
a template by a similarity. The crop it gives is 210x280 for a resolution of 256, and is then
resized to a square, as the published weights expect (LatentSync, arXiv 2412.09262).
"""

import math

import cv2
import numpy as np

from datasets.media import Picture
from datasets.media.canvas import Patch

BASE_RESOLUTION = 256
TEMPLATE = np.array([[17.0, 20.0], [58.0, 20.0], [37.5, 40.0]]) * 2.8
"""(3, 2) positions of brow, brow and nose in the crop for a resolution of 256, x y in pixels."""
CROP_SIZE = (210, 280)
"""Width and height of that crop."""
FILL = 127
"""Grey level outside the image."""
KEPT_BIAS = 0.2
"""Share of the previous frame's nose offset in the smoothed one."""

LEFT_BROW = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55)
RIGHT_BROW = (300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)
"""Points of the 478-point face mesh whose means are the three points; left and right as seen in the
image. They replace points 17..21, 22..26 and 27..35 (bridge and nostrils) of the usual 68, which
the published weights were trained on: the crop's scale and the mouth's place decide whether
the chin is in the repainted part."""
CROP = "latentsync-1.5"
"""Name of this alignment, in datasets, bundles and evaluations."""
BOXED = "face-box"
"""Name of a crop that is no alignment, see `BoxAligner`."""
CROPS = (CROP, BOXED)
BOX_CENTRE, BOX_HEIGHT = (0.5, 0.41), 0.89
"""Middle and height of the mesh's box in the crop, in its width and height: about where aligned
faces that look into the camera have them."""
PARTS = np.array([*LEFT_BROW, *RIGHT_BROW, *NOSE])
PART_SIZES = np.array([len(LEFT_BROW), len(RIGHT_BROW), len(NOSE)])
PART_STARTS = np.cumsum(PART_SIZES) - PART_SIZES


def three_points(landmarks: np.ndarray) -> np.ndarray:
    """Brow, brow and nose (3, 2) of a face mesh (478, 2), in its units."""
    points = landmarks[PARTS].astype(np.float64)
    return np.add.reduceat(points, PART_STARTS) / PART_SIZES[:, None]


def crop_size(resolution: int) -> tuple[int, int]:
    """Width and height of the crop before it becomes a square of `resolution`."""
    width, height = (max(1, round(side * resolution / BASE_RESOLUTION)) for side in CROP_SIZE)
    return width, height


class Aligner:
    """Matrices from a video's frames to the crop, one face at a time.

    Args:
        resolution: side of the square that the crop becomes.
        smooth: carry part of the nose's offset over to the next frame, as the reference does.
    """

    def __init__(self, resolution: int = BASE_RESOLUTION, smooth: bool = True) -> None:
        if resolution < 8:
            raise ValueError(f"resolution {resolution} is too small, expected at least 8")
        self.resolution = resolution
        self.smooth = smooth
        self._template = TEMPLATE * (resolution / BASE_RESOLUTION)
        self._bias: np.ndarray | None = None

    def reset(self) -> None:
        """Forget the previous frame; to be called when a new face or shot begins."""
        self._bias = None

    def matrix(self, landmarks: np.ndarray) -> np.ndarray:
        """Matrix (2, 3) float64, source -> crop, of the next frame's mesh (478, 2)."""
        return self.matrix_of_points(three_points(landmarks))

    def matrix_of_points(self, points: np.ndarray) -> np.ndarray:
        """The same from brow, brow, nose (3, 2)."""
        points = np.asarray(points, np.float64)
        centre, target_centre = points.mean(axis=0), self._template.mean(axis=0)
        # The unbiased deviation, as in the published matrices: it scales the bias below.
        spread = (points - centre).std(ddof=1)
        target_spread = (self._template - target_centre).std(ddof=1)
        if not spread > 0:
            raise ValueError(f"three different points are needed, got {points.tolist()}")
        unit = (points - centre) / spread
        target_unit = (self._template - target_centre) / target_spread
        # Orthogonal Procrustes without reflection, which in the plane needs no SVD.
        (xx, xy), (yx, yy) = unit.T @ target_unit
        cos, sin = xx + yy, xy - yx
        length = math.hypot(cos, sin) or 1.0
        rotation = np.array([[cos, -sin], [sin, cos]]) * (target_spread / spread / length)
        shift = target_centre - rotation @ centre
        if self.smooth:
            bias = target_unit[2] - unit[2]
            if self._bias is not None:
                bias = KEPT_BIAS * self._bias + (1 - KEPT_BIAS) * bias
            self._bias = bias
            shift = shift + bias
        return np.column_stack([rotation, shift])


class BoxAligner:
    """Matrices from a video's frames to a crop around the box of each frame's face: what pipelines
    without alignment cut out. Heads stay as tilted as they are, and the crop jumps as boxes do.

    Args:
        resolution: side of the square that the crop becomes.
    """

    def __init__(self, resolution: int = BASE_RESOLUTION) -> None:
        self.resolution = resolution

    def matrix(self, landmarks: np.ndarray) -> np.ndarray:
        """Matrix (2, 3) float64, source -> crop, of the next frame's mesh (478, 2)."""
        low, high = landmarks.min(axis=0).astype(float), landmarks.max(axis=0).astype(float)
        if not high[1] > low[1]:
            raise ValueError(f"a face must have a height, got a box from {low} to {high}")
        size = np.array(CROP_SIZE) * (self.resolution / BASE_RESOLUTION)
        scale = BOX_HEIGHT * size[1] / (high[1] - low[1])
        shift = np.array(BOX_CENTRE) * size - scale * (low + high) / 2
        return np.column_stack([scale * np.eye(2), shift])


def aligner_for(crop: str, resolution: int) -> Aligner | BoxAligner:
    """What cuts out faces in the way of this name.

    Raises:
        ValueError: there is no such way.
    """
    if crop not in CROPS:
        raise ValueError(f"there is no crop {crop!r}: choose {' or '.join(CROPS)}")
    return Aligner(resolution) if crop == CROP else BoxAligner(resolution)


def align(
    image: np.ndarray | Picture, matrix: np.ndarray, resolution: int = BASE_RESOLUTION
) -> np.ndarray:
    """The aligned face, uint8 (resolution, resolution, 3).

    Args:
        image: uint8 (h, w, 3), or a picture, of which only the needed part is converted.
        matrix: (2, 3) of an `Aligner` of the same resolution.
        resolution: side of the square.
    """
    picture = Picture.of(image)
    low, high = _corners(matrix, resolution)
    piece = picture.piece((low[0] - 2, low[1] - 2, high[0] + 2, high[1] + 2))
    here = matrix.copy()
    here[:, 2] += matrix[:, :2] @ np.array([piece.left, piece.top])
    crop = cv2.warpAffine(
        piece.rgb,
        here,
        crop_size(resolution),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(FILL, FILL, FILL),
    )
    # The reference resizes by Lanczos. That takes ten times longer and differs by 0.1 to 0.5 grey
    # levels on average, a tenth of what encoding changes.
    return cv2.resize(crop, (resolution, resolution), interpolation=cv2.INTER_CUBIC)


def square_matrix(matrix: np.ndarray, resolution: int) -> np.ndarray:
    """Matrix (2, 3) from the source straight to the square, given the one to the crop."""
    width, height = crop_size(resolution)
    stretch = np.array([[resolution / width], [resolution / height]])
    # Pixel centres are at whole numbers, so resizing also shifts by half a pixel.
    return matrix * stretch + np.array([[0, 0, 1]]) * (stretch - 1) / 2


def align_points(points: np.ndarray, matrix: np.ndarray, resolution: int) -> np.ndarray:
    """Points (..., 2) of the source in pixels of the aligned square, float32."""
    full = square_matrix(matrix, resolution)
    return (points @ full[:, :2].T + full[:, 2]).astype(np.float32)


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse (2, 3) of an affine matrix (2, 3)."""
    (a, b, x), (c, d, y) = np.asarray(matrix, np.float64).tolist()
    size = a * d - b * c
    if size == 0:
        raise ValueError(f"the matrix has no inverse: {np.asarray(matrix).tolist()}")
    # numpy would start its threads for four numbers.
    return np.array([[d, -b, b * y - d * x], [-c, a, c * x - a * y]]) / size


def paste_back(
    frame: np.ndarray, face: np.ndarray, matrix: np.ndarray, region: np.ndarray | None = None
) -> np.ndarray:
    """A copy of the frame with an aligned face put back in its place.

    Args:
        frame: uint8 (h, w, 3).
        face, matrix, region: see `face_patch`.
    """
    patch = face_patch(frame.shape, face, matrix, region)
    out = frame.copy()
    if patch.weights.size:
        out[patch.box] = patch.mixed(out[patch.box]).astype(np.uint8)
    return out


def face_patch(
    shape: tuple[int, ...],
    face: np.ndarray,
    matrix: np.ndarray,
    region: np.ndarray | None = None,
) -> Patch:
    """An aligned face as the patch of its frame that it came from.

    The edge is soft and inside the face's area: nothing outside it changes.

    Args:
        shape: height and width of the frame; further numbers are ignored.
        face: uint8 (r, r, 3), aligned.
        matrix: source -> crop (2, 3), of an `Aligner` of resolution r.
        region: float (r, r) in [0, 1], the share of the face to take; all of it by default.
    """
    resolution = face.shape[0]
    left, top, right, bottom = _area(shape, matrix, resolution)
    if right <= left or bottom <= top:
        return Patch(0, 0, np.zeros((0, 0, 3), np.float32), np.zeros((0, 0), np.float32))
    size = (right - left, bottom - top)
    to_square = square_matrix(matrix, resolution)
    to_square[:, 2] += to_square[:, :2] @ np.array([left, top])
    inside = _warp_back(np.ones((resolution, resolution), np.float32), to_square, size)
    mask = _soft_edge(inside, _edge_width(inside))
    if region is not None:
        mask *= _warp_back(np.asarray(region, np.float32), to_square, size)
    pasted = _warp_back(face, to_square, size, repeat_edge=True).astype(np.float32)
    return Patch(left, top, pasted, mask)


def _area(shape: tuple[int, ...], matrix: np.ndarray, resolution: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part of a frame that the crop covers."""
    limit = np.array([shape[1], shape[0]])
    low, high = _corners(matrix, resolution)
    low = np.clip(np.floor(low) - 1, 0, limit).astype(int)
    high = np.clip(np.ceil(high) + 2, 0, limit).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _corners(matrix: np.ndarray, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest x, y of the source that the crop covers."""
    width, height = crop_size(resolution)
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
    inverse = invert(matrix)
    corners = corners @ inverse[:, :2].T + inverse[:, 2]
    return corners.min(axis=0), corners.max(axis=0)


def _warp_back(
    image: np.ndarray, to_square: np.ndarray, size: tuple[int, int], repeat_edge: bool = False
) -> np.ndarray:
    """An image of the square's size drawn into a part of the frame of `size` (w, h)."""
    shrink = math.sqrt(abs(np.linalg.det(to_square[:, :2])))
    if shrink > 1.5:
        # Sampling a larger image at a few points would flicker: average it first.
        side = max(1, round(image.shape[0] / shrink))
        factor = side / image.shape[0]
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        to_square = to_square * factor + np.array([[0, 0, 1]]) * (factor - 1) / 2
    border = cv2.BORDER_REPLICATE if repeat_edge else cv2.BORDER_CONSTANT
    smooth = cv2.INTER_CUBIC if repeat_edge else cv2.INTER_LINEAR
    return cv2.warpAffine(
        image, to_square, size, flags=smooth | cv2.WARP_INVERSE_MAP, borderMode=border
    )


def _edge_width(inside: np.ndarray) -> int:
    """Width of the blend edge: a twentieth of the face's side, in pixels."""
    return int(math.sqrt(float(inside.sum()))) // 20


def _soft_edge(inside: np.ndarray, edge: int) -> np.ndarray:
    """A mask shrunk by the edge's width on each side, then blurred over twice that."""
    if edge < 1:
        return inside
    # Outside the frame there is nothing to blend with: only the face's own border is soft.
    pad = 2 * edge
    padded = cv2.copyMakeBorder(inside, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    kernel = 2 * edge + 1
    shrunk = cv2.erode(padded, np.ones((kernel, kernel), np.uint8))
    sigma = 0.3 * ((kernel - 1) / 2 - 1) + 0.8
    blurred = cv2.GaussianBlur(shrunk, (kernel, kernel), sigma)
    return blurred[pad:-pad, pad:-pad]
