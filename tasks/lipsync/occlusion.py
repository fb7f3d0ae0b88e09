"""Where a hand or a thing is in front of a face, so that it stays in front of the new mouth.

What is in front does not look like the face at any other moment. Some faces of the shot, spread
over all of it and bent into the pose of the frame, say how each place may look, whatever is being
said; what is far from all but a few of them, over more than a small part of the repainted region,
is in front. How far is far is calibrated by these faces themselves, each compared with the others.

Something that is there in most of a shot, such as a microphone or a beard, counts as the face.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from datasets.errors import UserError
from datasets.faces.points import FACE_OVAL
from tasks.lipsync.face_oval import JAW_ROOM, oval_weights
from tasks.lipsync.pose_warp import warp_all

KEEP, OFF = "keep", "off"
OCCLUSIONS = (KEEP, OFF)
"""Values of `--occlusion`: what is in front of the face stays there, or is painted over."""
SIDE = 64
"""Side at which faces are compared: an occluder is larger than what is lost."""
SAMPLES = 12
"""Faces of a shot that say how it may look. A shot with fewer frames is not judged."""
EXPLAINED_BY = 4
"""So many of them must look alike at a place for it to be the face: what is in front may be in some
of them, too."""
ROOM = 5
"""Side in pixels of the square in which a place of another face may lie, which was bent only by
points that speech does not move."""
LIGHT = 0.6
"""Weight of lightness against colour: shadows change it, and hands have the colour of faces."""
LEAST_DISTANCE = 6.0
"""CIELAB units, with that weight, below which nothing is in front."""
USUAL = 1.5
"""Times the usual distance of the shot's own faces from each other, at least."""
USUAL_SHARE = 0.96
"""Share of the region that is nearer than that usual distance,"""
LEAST_SHARE = 0.04
"""and share that must be further away: speech and blinking light change smaller parts."""
ABOVE_SHARE, ABOVE_ROOM = 0.9, 2.0
"""If the kept part of the face is as far away, the pose is one that the others do not show."""
GROW = 0.4
"""A part that is in front reaches to where the distance falls below this share of the limit."""
HOLES = 9
"""Side in pixels of holes that are filled: a palm may look like a cheek."""
BROW_ROWS = 8
"""Rows at the top that show hair."""


def check_occlusion(name: str) -> None:
    """Raise a `UserError` where there is no such value."""
    if name not in OCCLUSIONS:
        raise UserError(f"--occlusion must be {' or '.join(OCCLUSIONS)}, got {name!r}")


class Occlusion:
    """Finds what is in front of one person's face in one shot; see `make_occlusion`.

    Args:
        faces: (k, R, R, 3) uint8 aligned faces of the shot.
        shapes: (k, points, 2) their `SHAPE`, pixels.
        region: (R, R) what is repainted, above 0.
    """

    def __init__(self, faces: np.ndarray, shapes: np.ndarray, region: np.ndarray) -> None:
        self._scale = SIDE / faces.shape[1]
        self._region = cv2.resize((region > 0).astype(np.uint8) * 255, (SIDE, SIDE)) > 127
        self._faces = [_small(face) for face in faces]
        self._shapes = np.asarray(shapes) * self._scale
        usual = []
        for number, (face, shape) in enumerate(zip(self._faces, self._shapes, strict=True)):
            inside = self._region & _oval(shape)
            others = [other for other in range(len(faces)) if other != number]
            distances = self._distances(face, shape, others)[inside]
            usual.append(np.quantile(distances, USUAL_SHARE) if distances.size else 0.0)
        self._usual = float(np.median(usual))

    def __call__(self, face: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """How much of each pixel is in front of the face, float32 (R, R) in [0, 1].

        Args:
            face: uint8 (R, R, 3), aligned.
            shape: (points, 2) its `SHAPE`, pixels.
        """
        side = face.shape[0]
        shape = shape * self._scale
        oval = _oval(shape)
        inside, above = self._region & oval, ~self._region & oval
        above[:BROW_ROWS] = False
        distances = self._distances(_small(face), shape, range(len(self._faces)))
        limit = max(LEAST_DISTANCE, USUAL * self._usual)
        if above.any():
            limit = max(limit, float(np.quantile(distances[above], ABOVE_SHARE)) + ABOVE_ROOM)
        front = _parts(distances, inside, limit)
        if not front.any():
            return np.zeros((side, side), np.float32)
        closing = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (HOLES, HOLES))
        front = cv2.dilate(cv2.morphologyEx(front, cv2.MORPH_CLOSE, closing), np.ones((3, 3)))
        soft = cv2.resize(front.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
        return cv2.GaussianBlur(soft, (0, 0), side / SIDE / 2)

    def _distances(self, face: np.ndarray, shape: np.ndarray, others: Sequence[int]) -> np.ndarray:
        """How far each place is from what `EXPLAINED_BY` other faces show there, (SIDE, SIDE)."""
        here, room = _colours(face), np.ones((ROOM, ROOM), np.uint8)
        faces, shapes = [self._faces[other] for other in others], self._shapes[list(others)]
        found = []
        for bent in map(_colours, warp_all(faces, shapes, shape)):
            beyond = np.maximum(cv2.erode(bent, room) - here, here - cv2.dilate(bent, room))
            found.append(np.linalg.norm(np.maximum(beyond, 0), axis=-1))
        return np.partition(np.stack(found), EXPLAINED_BY - 1, axis=0)[EXPLAINED_BY - 1]


def make_occlusion(
    sources: Sequence[int],
    faces: Callable[[Sequence[int]], np.ndarray],
    shapes: Callable[[Sequence[int]], np.ndarray],
    region: np.ndarray,
) -> Occlusion | None:
    """Look at a shot. It depends on the whole shot only, and so not on where a job goes on.

    Args:
        sources: frames of the shot that have the face.
        faces: gives the aligned faces (n, R, R, 3) of frames close to each other.
        shapes: gives their `SHAPE`, (n, points, 2) in pixels of the aligned face.
        region: (R, R) what is repainted, above 0.

    Returns:
        None for a shot of too few frames to tell.
    """
    if len(sources) < SAMPLES:
        return None
    places = np.linspace(0, len(sources) - 1, SAMPLES).round().astype(int)
    chosen = [int(sources[place]) for place in places]
    seen = np.stack([faces([source])[0] for source in chosen])
    return Occlusion(seen, shapes(chosen), region)


def _parts(distances: np.ndarray, inside: np.ndarray, limit: float) -> np.ndarray:
    """uint8 (SIDE, SIDE): 1 in connected parts of which enough is beyond the limit."""
    _, labels = cv2.connectedComponents((distances > GROW * limit).astype(np.uint8), connectivity=4)
    far = np.bincount(labels[(distances > limit) & inside], minlength=int(labels.max()) + 1)
    counts = far >= max(1, LEAST_SHARE * int(inside.sum()))
    counts[0] = False
    return counts[labels].astype(np.uint8)


def _small(face: np.ndarray) -> np.ndarray:
    """float32 (SIDE, SIDE, 3), without its finest detail."""
    small = cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 0.8).astype(np.float32)


def _colours(face: np.ndarray) -> np.ndarray:
    """CIELAB, with `LIGHT`."""
    found = cv2.cvtColor(face / np.float32(255), cv2.COLOR_RGB2LAB)
    return found * np.array([LIGHT, 1, 1], np.float32)


def _oval(shape: np.ndarray) -> np.ndarray:
    return oval_weights(shape[: len(FACE_OVAL)], SIDE, JAW_ROOM) > 0.5
