"""Faces and their 478 landmarks, and measures taken on landmarks.

`FaceDetector` is the interface for the rest of the program; `FaceMeshDetector` follows faces
with mediapipe's FaceMesh model, which is part of its wheel. It expects a video's frames one
after another, so call `reset` at every cut.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np

from datasets.faces.mediapipe_models import LandmarkModel, Region, region_of
from datasets.faces.search import FaceSearch
from datasets.media import Picture

SAME_FACE = 0.5
"""Two boxes in one frame that overlap more are one face."""
LARGER = 1.5
"""A face this many times larger replaces the smallest one followed."""
SEARCH_EVERY, SEARCH_EVERY_BESIDE = 2, 10
"""Frames between searches of the whole picture, with no face and while one is
followed. If one was just lost, that frame itself is searched."""
THOROUGH_FRAMES, THOROUGH_FACE = 2, 48.0
"""A thorough search looks in tiles, for this many frames after `reset`, for faces of this many
pixels."""
PIXELS_PER_TILE, PIXELS_PER_TILE_BESIDE = 12e6, 50e6
"""Pixels of video per tile searched for small faces, in the same two cases. As decoding takes
time by the pixel, this bounds the share of time that the search takes, whatever the size."""

INNER_LIP_PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))
"""Upper and lower inner lip, the middle pair first."""
EYE_CORNERS = (33, 263)
FOREHEAD, UNDER_NOSE = 10, 2
NOSE_TIP = 4
ABOVE_EYES, BELOW_EYES = (5.6, 1.3), (4.75, 2.9)
"""How far forehead and base of the nose are above and below the corners of the eyes, and in front
of them (canonical face model, centimetres)."""
CHEEKS = (234, 454)
NOSE_OVER_CHEEKS = 1.3
"""How far the tip of the nose is in front of the cheeks, in half face widths (canonical face
model)."""


@dataclass(frozen=True)
class Face:
    """One face in one frame."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom of its landmarks, pixels."""
    landmarks: np.ndarray
    """float32 (478, 2), x y in pixels."""
    score: float = 1.0
    """The detector's confidence, if it gives one."""


class FaceDetector(Protocol):
    """Finds faces in the frames of a video, given one after another."""

    def detect(self, image: np.ndarray | Picture) -> list[Face]:
        """Faces of a frame, uint8 (h, w, 3) or a picture, the largest first."""

    def reset(self) -> None:
        """Forget earlier frames; to be called at a cut."""

    def close(self) -> None:
        """Free its resources."""


class FaceMeshDetector:
    """Follows faces by region with mediapipe's FaceMesh model; a context manager.

    In each frame a face's landmarks are found in the region where they were in the previous one, at
    the frame's own resolution. New faces are searched for every few frames; if there are already
    `max_faces`, one that is much larger replaces the smallest.

    The result depends only on the frames since `reset`.

    Args:
        max_faces: most faces followed at once.
        thorough: search the first frames after `reset` in all tiles, whatever is found first, so
            that every face of 48 pixels is followed from the second frame on at the latest.
    """

    def __init__(self, max_faces: int = 2, thorough: bool = False) -> None:
        if max_faces < 1:
            raise ValueError(f"max_faces is {max_faces}, expected at least 1")
        self._max_faces = max_faces
        self._thorough = thorough
        self._model = LandmarkModel()
        self._search = FaceSearch()
        self._regions: list[Region] = []
        self._frames = self._unsearched = 0

    def detect(self, image: np.ndarray | Picture) -> list[Face]:
        """Faces of a frame, uint8 (h, w, 3) or a picture, the largest first."""
        picture = Picture.of(image)
        faces: list[Face] = []
        for region in self._regions:
            landmarks = self._landmarks(picture, region)
            if landmarks is not None:
                _add(faces, face_of(landmarks))
        lost = len(faces) < len(self._regions)
        for region in self._new(picture, faces, lost):
            self._take(picture, region, faces)
        self._regions = [region_of(face.landmarks) for face in faces]
        self._frames += 1
        return sorted(faces, key=_area, reverse=True)

    def _take(self, picture: Picture, region: Region, faces: list[Face]) -> None:
        """Add the face in a new region, in place of a much smaller one if there are enough."""
        if any(_inside(region, face.box) for face in faces):
            return
        full = len(faces) == self._max_faces
        smallest = min(faces, key=_area) if full else None
        if smallest and region.side < LARGER * region_of(smallest.landmarks).side:
            return
        landmarks = self._landmarks(picture, self._search.upright(picture, region))
        if landmarks is not None:
            # A detector's region is rough: look again around the face that was found.
            landmarks = self._landmarks(picture, region_of(landmarks))
        if landmarks is not None and _add(faces, face_of(landmarks)) and smallest:
            faces[:] = [face for face in faces if face is not smallest]

    def _landmarks(self, picture: Picture, region: Region) -> np.ndarray | None:
        piece = picture.piece(region.box)
        here = Region(region.x - piece.left, region.y - piece.top, region.side, region.roll)
        points = self._model.points(piece.rgb, here)
        return None if points is None else points + np.array([piece.left, piece.top], np.float32)

    def _new(self, picture: Picture, faces: list[Face], lost: bool) -> list[Region]:
        """Regions of possible faces that are not followed yet, the largest first."""
        found: list[Region] = []
        every = SEARCH_EVERY_BESIDE if faces else SEARCH_EVERY
        if lost or self._frames % every == 0:
            found = self._search.whole(picture)
        if len(faces) < self._max_faces:
            if self._thorough and self._frames < THOROUGH_FRAMES:
                found = found + self._search.sweep(picture, THOROUGH_FACE)
            elif self._frames == 0 and not found:
                found = self._search.sweep(picture)
            elif self._is_tile_due(picture, bool(faces)):
                found = found + self._search.next_tile(picture)
        return sorted(found, key=lambda region: region.side, reverse=True)

    def _is_tile_due(self, picture: Picture, has_face: bool) -> bool:
        self._unsearched += picture.width * picture.height
        if self._unsearched < (PIXELS_PER_TILE_BESIDE if has_face else PIXELS_PER_TILE):
            return False
        self._unsearched = 0
        return True

    def reset(self) -> None:
        """Forget earlier frames, so that no face of the previous shot is looked for in this one."""
        self._regions = []
        self._frames = self._unsearched = 0
        self._search.reset()

    def close(self) -> None:
        """Free the models."""
        self._model.close()
        self._search.close()

    def __enter__(self) -> "FaceMeshDetector":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _add(faces: list[Face], found: Face) -> bool:
    """Add a face unless it is already among them; returns whether it was added."""
    is_new = all(overlap(found.box, face.box) <= SAME_FACE for face in faces)
    if is_new:
        faces.append(found)
    return is_new


def face_of(landmarks: np.ndarray) -> Face:
    """A face from its landmarks (n, 2)."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    return Face((float(low[0]), float(low[1]), float(high[0]), float(high[1])), landmarks)


def overlap(
    first: tuple[float, float, float, float], second: tuple[float, float, float, float]
) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / max(sum(areas) - shared, 1e-9)


def _area(face: Face) -> float:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)


def _inside(region: Region, box: tuple[float, float, float, float]) -> bool:
    """Whether a region is that of the face with this box."""
    size = max(box[2] - box[0], box[3] - box[1])
    middle = abs(region.x - (box[0] + box[2]) / 2) + abs(region.y - (box[1] + box[3]) / 2)
    return middle < size / 3


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """How far the mouth is open, independent of scale and of the head's roll.

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

    Measured by the position of the nose's tip between the cheeks; landmarks (t, 478, 2).
    """
    points = np.asarray(landmarks, np.float64)
    left, right = points[:, CHEEKS[0]], points[:, CHEEKS[1]]
    across = (right - left) / 2
    half = np.maximum(np.linalg.norm(across, axis=-1), 1e-6)
    nose = points[:, NOSE_TIP] - (left + right) / 2
    sideways = np.einsum("tc,tc->t", nose, across) / half**2
    return np.degrees(np.arctan(sideways / NOSE_OVER_CHEEKS))


def pitch_deg(landmarks: np.ndarray) -> np.ndarray:
    """How far heads are bowed, degrees (t,); positive: chin to the chest.

    Measured by the distances from the eyes to the forehead and to the base of the nose, points that
    no mouth moves; landmarks (t, 478, 2).
    """
    points = np.asarray(landmarks, np.float64)
    left, right = points[:, EYE_CORNERS[0]], points[:, EYE_CORNERS[1]]
    along = (right - left) / np.maximum(np.linalg.norm(right - left, axis=-1, keepdims=True), 1e-6)
    down = np.stack([-along[:, 1], along[:, 0]], axis=1)
    middle = (left + right) / 2
    above = np.einsum("tc,tc->t", middle - points[:, FOREHEAD], down)
    below = np.einsum("tc,tc->t", points[:, UNDER_NOSE] - middle, down)
    (high, back), (low, front) = ABOVE_EYES, BELOW_EYES
    return np.degrees(
        np.arctan2(high * below - low * above, np.maximum(front * above + back * below, 1e-6))
    )


def head_pose(landmarks: np.ndarray) -> np.ndarray:
    """How heads (t, 478, 2) are held, float64 (t, 4): yaw, pitch and roll in degrees, and the
    logarithm of the face's size."""
    points = np.asarray(landmarks, np.float64)
    eyes = points[:, EYE_CORNERS[1]] - points[:, EYE_CORNERS[0]]
    roll = np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]))
    size = np.log(face_size(points))
    return np.stack([yaw_deg(points), pitch_deg(points), roll, size], axis=1)
