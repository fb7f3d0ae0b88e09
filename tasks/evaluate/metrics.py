"""Numbers about generated faces, each with a label and how many things it is a mean of."""

import math
from typing import TypedDict

import cv2
import numpy as np

from datasets.faces.landmarks import FaceDetector
from datasets.faces.points import INNER_LIPS, OUTER_LIPS

LIPS = OUTER_LIPS + INNER_LIPS
STILL = (33, 133, 362, 263, 168, 6, 197, 195)
"""FaceMesh points that speech does not move: corners of the eyes and bridge of the nose."""
BORDER = 0.35
"""Margin added around an aligned face, as a share of its side, before the face is detected:
detectors expect some room around a head."""
EYES = ((33, 133), (362, 263))
"""Corners of either eye, from left to right as seen; a face's eyes lie between."""
NOSE_AND_MOUTH = (4, 61, 291)
"""Tip of the nose and corners of the mouth."""
DETECTION_SIDE = 320
"""Side of the picture in which the face is detected, pixels."""


class ClipScores(TypedDict):
    """The measurements of one clip, as in `details.json`."""

    clip_id: str
    values: dict[str, float | None]
    """None where a number could not be measured."""
    distances: dict[str, list[float]]
    """Kind of video -> distance of lips and sound at each of 31 shifts."""


def psnr(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures (n, h, w, 3).

    Args:
        first: pictures.
        second: the same shape.
        mask: bool (h, w); only true pixels count. None: all.

    Returns:
        Infinity for equal pictures.
    """
    difference = first.astype(np.float32) - second.astype(np.float32)
    if mask is not None:
        difference = difference[:, mask]
    error = float(np.mean(difference.astype(np.float64) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def landmarks_of(frames: np.ndarray, detector: FaceDetector) -> tuple[np.ndarray, float]:
    """Landmarks of aligned faces.

    Args:
        frames: uint8 (t, R, R, 3).
        detector: finds the face.

    Returns:
        float32 (t, 478, 2) in pixels of R, interpolated where no face was found, and the
        share of frames with a face. Without any face: NaN and 0.
    """
    side = frames.shape[1]
    margin = round(BORDER * side)
    scale = DETECTION_SIDE / (side + 2 * margin)
    found = np.full((len(frames), 478, 2), np.nan, np.float32)
    detector.reset()
    for index, frame in enumerate(frames):
        framed = cv2.copyMakeBorder(frame, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        faces = detector.detect(cv2.resize(framed, (DETECTION_SIDE, DETECTION_SIDE)))
        if faces:
            found[index] = faces[0].landmarks / scale - margin
    seen = np.isfinite(found[:, 0, 0])
    if seen.any():
        positions = np.arange(len(frames))
        flat = found.reshape(len(frames), -1)
        for column in flat.T:
            column[~seen] = np.interp(positions[~seen], positions[seen], column[seen])
    return found, float(seen.mean())


def landmark_distance(first: np.ndarray, second: np.ndarray) -> float:
    """LMD: mean distance of the lips' landmarks in percent of the distance between the eyes.

    Both faces are first moved so that their eyes and noses coincide: the number describes
    the mouth and not where the head was found.

    Args:
        first: (t, 478, 2) landmarks.
        second: the same shape.
    """
    eyes = np.linalg.norm(first[:, 33] - first[:, 263], axis=-1).mean()
    shift = (first[:, STILL] - second[:, STILL]).mean(1, keepdims=True)
    distance = np.linalg.norm(first[:, LIPS] - second[:, LIPS] - shift, axis=-1)
    return float(100 * distance.mean() / eyes)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, tip of the nose and corners of the mouth, (t, 5, 2) of (t, 478, 2)."""
    eyes = [landmarks[:, corners].mean(1) for corners in EYES]
    return np.stack([*eyes, *(landmarks[:, each] for each in NOSE_AND_MOUTH)], axis=1)


def unrest(frames: np.ndarray, mask: np.ndarray) -> float:
    """Mean size of the second differences over time, in grey levels: what flickers is large in
    it, while even movement is not.

    Args:
        frames: uint8 (t, h, w, 3), three or more.
        mask: bool (h, w); only true pixels count.
    """
    shown = frames[:, mask].astype(np.int16)
    return float(np.abs(shown[2:] - 2 * shown[1:-1] + shown[:-2]).mean())
