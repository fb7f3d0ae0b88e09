"""Lets a generated face go over into the neck without a second contour under the chin.

Below the chin the network often paints a shadow or a neck of another colour, which ends where the
repainted region ends: a line beside the jaw's own. Along that lower edge both pictures should show
the same, so what the source has more is added there, less and less upwards.
"""

import cv2
import numpy as np

FIRST_ROW = 0.6
"""The edge's upper parts lie above this share of the face."""
REACH = 0.12
"""How far up the picture changes, in sides of the face."""
SPREAD = 0.03
"""Standard deviation of the neighbourhood along the edge that is compared, likewise."""
MOST = 60.0
"""Largest change of a level."""


def blend_lower_edge(
    painted: np.ndarray, source: np.ndarray, region: np.ndarray, front: np.ndarray | None = None
) -> np.ndarray:
    """The generated face with the source's colours along the lower edge.

    Args:
        painted: aligned face, uint8 (R, R, 3).
        source: the same face before, uint8 (R, R, 3).
        region: float (R, R) in [0, 1], how much of `painted` will be shown.
        front: float (R, R) in [0, 1], what is in front of the face in `source`.

    Returns:
        uint8 (R, R, 3); nothing changes further than `REACH` from the edge.
    """
    side, first = len(region), round(FIRST_ROW * len(region))
    edge = ((region > 0.02) & (region < 0.98)).astype(np.float32)
    beyond = (region < 0.5).astype(np.uint8)
    edge[:first], beyond[:first] = 0, 0
    if front is not None:
        edge *= 1 - front
    if not edge.any() or not beyond.any():
        return painted
    missing = (source.astype(np.float32) - painted) * edge[..., None]
    sigma = SPREAD * side
    near = cv2.GaussianBlur(edge, (0, 0), sigma)
    change = cv2.GaussianBlur(missing, (0, 0), sigma) / np.maximum(near, 1e-4)[..., None]
    away = cv2.distanceTransform(1 - beyond, cv2.DIST_L2, 5) / side
    share = np.clip(1 - away / REACH, 0, 1)
    share = share * share * (3 - 2 * share)
    changed = painted + np.clip(change, -MOST, MOST) * share[..., None]
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def lower_edge_energy(face: np.ndarray, region: np.ndarray) -> float:
    """Mean squared change of luma across the region's lower edge, square levels per square pixel;
    NaN where the region has none.

    Args:
        face: aligned, uint8 (R, R, 3).
        region: float (R, R) in [0, 1].
    """
    side = len(region)
    luma = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    luma = cv2.GaussianBlur(luma, (0, 0), side / 170)
    smooth = cv2.GaussianBlur(region.astype(np.float32), (0, 0), side / 85)
    across, down = cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)
    length = np.hypot(across, down)
    there = (region > 0.1) & (region < 0.9) & (down < -0.5 * length)
    there[: round(FIRST_ROW * side)] = False
    if not there.any():
        return float("nan")
    slope = cv2.Sobel(luma, -1, 1, 0) * across + cv2.Sobel(luma, -1, 0, 1) * down
    return float(((slope[there] / length[there] / 8) ** 2).mean())
