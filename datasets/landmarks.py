"""Faces and their 478 landmarks, and what is measured on landmarks.

`FaceDetector` is what the rest of the program needs to know; `FaceMeshDetector` is mediapipe's
FaceMesh, whose models come with its wheel. It follows faces from frame to frame, so call
`reset` at every cut.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np

POINTS = 478
"""Landmarks of a face: 468 of the mesh and 5 of each iris."""
MAX_SIDE = 2048
"""Larger frames are searched in a smaller copy. Below, making the copy takes longer than it
saves, and landmarks lose precision: 0.6 px for a 1080x1920 frame searched at 1280."""

WARM_UP = np.zeros((64, 64, 3), np.uint8)
"""A frame without a face: models are loaded, and write notes about it, at the first one."""

INNER_LIP_PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))
"""Upper and lower inner lip, the middle pair first."""
EYE_CORNERS = (33, 263)
FOREHEAD, UNDER_NOSE = 10, 2
NOSE_TIP = 4
CHEEKS = (234, 454)
NOSE_OVER_CHEEKS = 1.3
"""How far the nose's tip stands before the cheeks, in half face widths (canonical face model)."""


@dataclass(frozen=True)
class Face:
    """One face in one frame."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom of its landmarks, pixels."""
    landmarks: np.ndarray
    """float32 (478, 2), x y in pixels."""
    score: float = 1.0
    """The detector's confidence, where it tells one."""


class FaceDetector(Protocol):
    """Finds faces in the frames of a video, given one after the other."""

    def detect(self, rgb: np.ndarray) -> list[Face]:
        """Faces of a frame, uint8 (h, w, 3), the largest first."""

    def reset(self) -> None:
        """Forget earlier frames; call it at a cut."""

    def close(self) -> None:
        """Free what it holds."""


class FaceMeshDetector:
    """mediapipe's FaceMesh, a context manager.

    Args:
        max_faces: how many faces are looked for; with 1 a second face is at times preferred.
        min_confidence: of detection and of following, 0 to 1.
        max_side: frames with a longer side are searched in a scaled copy.
    """

    def __init__(
        self, max_faces: int = 2, min_confidence: float = 0.5, max_side: int = MAX_SIDE
    ) -> None:
        if max_faces < 1:
            raise ValueError(f"max_faces is {max_faces}, expected at least 1")
        self._max_side = max_side
        self._seen_face = False
        with _quiet_stderr():
            from mediapipe.python.solutions.face_mesh import FaceMesh

            self._mesh: Any = FaceMesh(
                static_image_mode=False,
                max_num_faces=max_faces,
                refine_landmarks=True,
                min_detection_confidence=min_confidence,
                min_tracking_confidence=min_confidence,
            )
            self._mesh.process(WARM_UP)

    def detect(self, rgb: np.ndarray) -> list[Face]:
        """Faces of a frame, uint8 (h, w, 3), the largest first."""
        height, width = rgb.shape[:2]
        scale = self._max_side / max(height, width)
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)
        rgb = np.ascontiguousarray(rgb)
        # The models of the mesh write a note about the first face that they see.
        with nullcontext() if self._seen_face else _quiet_stderr():
            found = self._mesh.process(rgb).multi_face_landmarks or []
        self._seen_face |= bool(found)
        faces = [_face(each.landmark, width, height) for each in found]
        return sorted(faces, key=_area, reverse=True)

    def reset(self) -> None:
        """Forget earlier frames, so that no face of the last shot is looked for in this one."""
        with _quiet_stderr():
            self._mesh.reset()
            self._mesh.process(WARM_UP)
        self._seen_face = False

    def close(self) -> None:
        """Free the models."""
        self._mesh.close()

    def __enter__(self) -> "FaceMeshDetector":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _face(points: Any, width: int, height: int) -> Face:
    landmarks = np.array([(point.x, point.y) for point in points], np.float32)
    landmarks *= np.array([width, height], np.float32)
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    return Face((float(low[0]), float(low[1]), float(high[0]), float(high[1])), landmarks)


def _area(face: Face) -> float:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what C++ libraries write to stderr; shown after all when something fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """How far the mouth is open, free of scale and of the head's roll.

    Args:
        landmarks: (t, 478, 2).

    Returns:
        float64 (t,): gap between the inner lips over the size of the face, about 0 when closed.
    """
    points = np.asarray(landmarks, np.float64)
    upper, lower = (points[:, [pair[side] for pair in INNER_LIP_PAIRS]] for side in (0, 1))
    gap = np.linalg.norm(upper - lower, axis=-1).mean(axis=-1)
    return gap / face_size(points)


def face_size(landmarks: np.ndarray) -> np.ndarray:
    """A size (t,) of faces (t, 478, 2) that hardly changes when they turn, nod or speak."""
    eyes = landmarks[:, EYE_CORNERS[0]] - landmarks[:, EYE_CORNERS[1]]
    height = landmarks[:, FOREHEAD] - landmarks[:, UNDER_NOSE]
    size = np.hypot(np.linalg.norm(eyes, axis=-1), np.linalg.norm(height, axis=-1))
    return np.maximum(size, 1e-6)


def yaw_deg(landmarks: np.ndarray) -> np.ndarray:
    """How far heads are turned to the side, degrees (t,); positive: to the image's right.

    From where the nose's tip lies between the cheeks; landmarks (t, 478, 2).
    """
    points = np.asarray(landmarks, np.float64)
    left, right = points[:, CHEEKS[0]], points[:, CHEEKS[1]]
    across = (right - left) / 2
    half = np.maximum(np.linalg.norm(across, axis=-1), 1e-6)
    nose = points[:, NOSE_TIP] - (left + right) / 2
    sideways = np.einsum("tc,tc->t", nose, across) / half**2
    return np.degrees(np.arctan(sideways / NOSE_OVER_CHEEKS))
