"""A real face for tests: scikit-image's public-domain portrait, in motion if wanted."""

from functools import lru_cache

import cv2
import numpy as np


@lru_cache
def portrait(side: int = 320) -> np.ndarray:
    """The head of the portrait, uint8 (side, side, 3)."""
    from skimage import data

    head = np.ascontiguousarray(data.astronaut()[0:300, 80:380])
    return cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)


def moving(frames: int, side: int = 320, reach: float = 6.0) -> list[np.ndarray]:
    """The head swaying from side to side, `frames` pictures."""
    image = portrait(side)
    out = []
    for index in range(frames):
        shift = reach * np.sin(index / 8)
        matrix = np.array([[1, 0, shift], [0, 1, shift / 2]])
        out.append(cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE))
    return out


def blank(side: int = 320, level: int = 90) -> np.ndarray:
    """A picture without a face."""
    return np.full((side, side, 3), level, np.uint8)
