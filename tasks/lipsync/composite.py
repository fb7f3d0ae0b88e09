"""Puts a generated face into its frame, so that only the mouth tells that it is new."""

from collections.abc import Callable

import numpy as np

from datasets.faces.alignment import face_patch
from datasets.faces.points import FACE_OVAL
from datasets.media.canvas import Canvas
from tasks.lipsync.face_oval import JAW_ROOM, oval_weights
from tasks.lipsync.grain import kept_around, with_grain
from tasks.lipsync.jaw import JawFinder, join_jaw

Match = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Painted face, source and region -> the painted face with other colours."""


def blend_face(
    painted: np.ndarray,
    source: np.ndarray,
    region: np.ndarray,
    *,
    match: Match | None,
    jaws: JawFinder | None = None,
    shape: np.ndarray | None = None,
    front: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What of a generated face is shown, and how much.

    A network that sees each frame's own face knows what is around it, and all of its picture is
    shown. Others see the surroundings as they were in another pose: from those only the face is
    taken, which `jaws` and `shape` are for.

    Args:
        painted: aligned face, uint8 (R, R, 3).
        source: the same face before, uint8 (R, R, 3).
        region: float (R, R) in [0, 1], what the model repaints.
        match: shifts the colours of `painted` to those of `source`, by how much of it is shown.
        jaws: finds where the new face ends; None: show all of it.
        shape: (points, 2) `SHAPE` of the source, pixels.
        front: float (R, R) in [0, 1], what is in front of the face.

    Returns:
        uint8 (R, R, 3), and float (R, R) in [0, 1].
    """
    if jaws is None or shape is None:
        if match is not None:
            painted = match(painted, source, region)
    else:
        old, whole = shape[: len(FACE_OVAL)], region
        region = whole * oval_weights(old, len(whole), JAW_ROOM)
        if match is not None:
            painted = match(painted, source, region)
        new = jaws.outline(painted, shape)
        # Where it cannot be told, the face is shown as far down as a jaw can open.
        if new is not None:
            painted, region = join_jaw(painted, source, whole, old, new)
    if front is not None:
        region = region * (1 - front)
    return painted, region


def paint_face(
    canvas: Canvas,
    matrix: np.ndarray,
    face: np.ndarray,
    source: np.ndarray,
    region: np.ndarray,
    repainted: np.ndarray,
    frame: int,
) -> None:
    """Paint an aligned face into a frame, with the grain that is around it.

    Args:
        canvas: the frame, which is changed.
        matrix: source -> crop, (2, 3).
        face: what is shown, uint8 (R, R, 3), where `region` (R, R) says so.
        source: the face before, uint8 (R, R, 3).
        repainted: float (R, R), what the model repaints.
        frame: its number, which decides the grain.
    """
    shape = (canvas.height, canvas.width)
    patch = face_patch(shape, face, matrix, region)
    around = face_patch(shape, source, matrix, kept_around(repainted)).weights > 0.99
    canvas.paint(with_grain(patch, canvas.rgb[patch.box], around, frame))
