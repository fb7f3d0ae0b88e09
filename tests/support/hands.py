"""Hands cut from real videos and moved over faces of others."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.faces.alignment import invert, square_matrix
from datasets.media import read_frames

ROOM = 0.35
"""Around a hand, in hands."""
SIDE = 0.62
"""Of the aligned face that a hand fills."""


@dataclass(frozen=True)
class Hand:
    """A hand without what is behind it."""

    rgb: np.ndarray
    """uint8 (h, w, 3)."""
    alpha: np.ndarray
    """float32 (h, w) in [0, 1]."""


def cut_hands(path: Path, frame: int) -> list[Hand]:
    """The hands that can be seen in a frame of a video: their bones as mediapipe sees them are
    surely hand, and what looks like that around them belongs to it (GrabCut)."""
    import mediapipe

    picture = next(each.rgb for k, each in enumerate(read_frames(path, fps=None)) if k == frame)
    bones = sorted(mediapipe.solutions.hands.HAND_CONNECTIONS)
    with mediapipe.solutions.hands.Hands(static_image_mode=True) as model:
        seen = model.process(picture).multi_hand_landmarks or []
    found = []
    for each in seen:
        points = np.array([(point.x, point.y) for point in each.landmark])
        points = points * [picture.shape[1], picture.shape[0]]
        size = float(np.ptp(points, axis=0).max())
        low = np.maximum(points.min(axis=0) - ROOM * size, 0).astype(int)
        high = (points.max(axis=0) + ROOM * size).astype(int)
        rgb = picture[low[1] : high[1], low[0] : high[0]].copy()
        found.append(Hand(rgb, _alpha(rgb, (points - low).astype(np.int32), bones, size)))
    return found


def _alpha(
    rgb: np.ndarray, points: np.ndarray, bones: list[tuple[int, int]], size: float
) -> np.ndarray:
    marks = np.full(rgb.shape[:2], cv2.GC_BGD, np.uint8)
    hull, sure = np.zeros_like(marks), np.zeros_like(marks)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    for first, second in bones:
        cv2.line(sure, points[first].tolist(), points[second].tolist(), 1, max(2, int(0.09 * size)))
    marks[_grown(hull, 0.2 * size)] = cv2.GC_PR_BGD
    marks[_grown(sure, 0.07 * size)] = cv2.GC_PR_FGD
    marks[sure > 0] = cv2.GC_FGD
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    cv2.grabCut(bgr, marks, (0, 0, 1, 1), *models, 4, cv2.GC_INIT_WITH_MASK)
    hand = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.GaussianBlur(hand, (0, 0), 1.0)


def _grown(mask: np.ndarray, by: float) -> np.ndarray:
    return cv2.dilate(mask, np.ones((int(by) | 1,) * 2, np.uint8)) > 0


def with_hand(
    picture: np.ndarray, hand: Hand, matrix: np.ndarray, resolution: int, along: float
) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a hand in front of its face, and the hand's alpha there (h, w).

    Args:
        picture: uint8 (h, w, 3).
        hand: what is put there.
        matrix: (2, 3) source -> crop, of an `Aligner` of the resolution.
        resolution: side of the aligned face.
        along: 0 to 1, how far the hand has gone from the right of the chin over the mouth.
    """
    rows, columns = np.nonzero(hand.alpha > 0.5)
    scale = SIDE * resolution / max(np.ptp(rows), np.ptp(columns))
    place = np.array([0.95 - 0.6 * along, 0.85 - 0.25 * np.sin(3 * along)]) * resolution
    move = np.column_stack(
        [np.eye(2) * scale, place - scale * np.array([columns.mean(), rows.mean()])]
    )
    back = invert(square_matrix(matrix, resolution))
    whole = back @ np.vstack([move, [0, 0, 1]])
    smaller = float(np.sqrt(abs(np.linalg.det(whole[:, :2]))))
    blurred = cv2.GaussianBlur(hand.rgb, (0, 0), max(0.1, 0.4 / smaller))
    size = (picture.shape[1], picture.shape[0])
    alpha = cv2.warpAffine(hand.alpha, whole, size)
    over = cv2.warpAffine(blurred, whole, size)
    mixed = picture + alpha[..., None] * (over.astype(np.float32) - picture)
    return np.rint(mixed).astype(np.uint8), alpha
