"""A picture of a face bent into the pose of another picture of it.

What a network copies from a still face (the outline, ears, hair and what is behind) would lie
where it was in that face's pose. Points that speech does not move say where each part has to be;
between them and beyond, the picture is bent as a thin plate would be.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from datasets.faces.points import FACE_OVAL, SHAPE

JAW = slice(FACE_OVAL.index(397), FACE_OVAL.index(172) + 1)
"""The part of the outline that speech moves."""
HELD = np.setdiff1d(np.arange(len(SHAPE)), np.arange(len(SHAPE))[JAW])
GRID = 17
"""Points per side at which the bend is computed; it is smooth between them."""
STIFFNESS = 2.0
"""Of the plate: landmarks tremble, and the picture must not."""


def warp_to(face: np.ndarray, shape: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The face as it would look in another pose, uint8 (R, R, 3).

    Args:
        face: aligned face, uint8 (R, R, 3).
        shape: (n, 2) its points `SHAPE`, pixels.
        target: (n, 2) the same points in the pose that is wanted.
    """
    return warp_all([face], shape[None], target)[0]


def warp_all(
    faces: Sequence[np.ndarray], shapes: np.ndarray, target: np.ndarray
) -> list[np.ndarray]:
    """Several faces as they would look in one pose, each (R, R, 3) of its own type.

    Args:
        faces: k aligned faces (R, R, 3).
        shapes: (k, n, 2) their points `SHAPE`, pixels.
        target: (n, 2) the same points in the pose that is wanted.
    """
    side, count = faces[0].shape[0], len(faces)
    try:
        # The points that are wanted make the equations, which are the same for all faces.
        bend = RBFInterpolator(
            target[HELD],
            np.concatenate(list(shapes[:, HELD]), axis=1),
            smoothing=STIFFNESS,
            kernel="thin_plate_spline",
        )
    except np.linalg.LinAlgError:
        # Points in a line, as no face has them, say nothing about a pose.
        return list(faces)
    ticks = np.linspace(0, side - 1, GRID)
    places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    coarse = bend(places).reshape(GRID, GRID, count, 2).astype(np.float32)
    at = np.arange(side, dtype=np.float32) * ((GRID - 1) / max(1, side - 1))
    columns, rows = np.meshgrid(at, at)
    found = []
    for number, face in enumerate(faces):
        grid = np.ascontiguousarray(coarse[:, :, number])
        whence = cv2.remap(grid, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        found.append(
            cv2.remap(face, whence, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        )
    return found
