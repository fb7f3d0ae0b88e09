"""Which picture shows the network who the person is when it repaints a window.

`frame`: each frame's own face, as in LatentSync's published programs; their networks were
trained to take identity and lighting from it and the mouth from the speech. `still`: one face with
a calm mouth, turned as the window's faces are, for networks that would copy the mouth of a moving
reference. `away`: a window from another moment, as in training. The bundle says which one a model
needs; both evaluation and lip-sync use this file.
"""

from collections.abc import Callable, Sequence

import numpy as np

from datasets.errors import UserError
from models.latentsync.config import REFERENCES

Faces = Callable[[Sequence[int]], np.ndarray]
"""Gives aligned faces (n, R, R, 3) uint8 for their positions."""
References = Callable[[np.ndarray], np.ndarray]
"""Gives the reference window (f, R, R, 3) for the window of faces at these positions (f,)."""

DISTANCE = 16
"""Frames between a window and its reference with `away`, as in training."""
CALM_SHARE = 0.2
"""Share of a shot's faces that count as calm: those whose mouths are least open,"""
CALM_OPENING = 0.012
"""and all whose inner lips are closer than this share of the face, which counts as closed."""
POSE_UNITS = np.array([5.0, 5.0, 15.0, 0.25])
"""Yaw, pitch and roll in degrees and log size by which a face changes equally much. The
alignment removes roll and size, except for lighting and sharpness."""
MOST_STILLS = 12
"""Most poses per shot, so that an hour's faces are never held."""


def check_reference(name: str) -> None:
    """Raise a `UserError` where there is no reference of that name."""
    if name not in REFERENCES:
        raise UserError(f"--reference must be {', '.join(REFERENCES)}, got {name!r}")


def make_references(
    kind: str, poses: np.ndarray, openings: np.ndarray, faces: Faces
) -> References | None:
    """Make the references that `FaceGenerator.stream` takes for the faces of one shot.

    Args:
        kind: `frame`, `still` or `away`.
        poses: (t, 4) of `datasets.faces.landmarks.head_pose`.
        openings: (t,) of `datasets.faces.landmarks.mouth_opening`.
        faces: gives the shot's aligned faces; positions are as in `poses`.

    Returns:
        The references; None for `frame`, which means the faces themselves.
    """
    if kind == "frame":
        return None
    return StillFaces(poses, openings, faces) if kind == "still" else AwayFaces(len(poses), faces)


class StillFaces:
    """For each window the calm face whose pose is most like it, in every frame.

    A few calm faces stand for all poses of a shot, so few are held.
    """

    def __init__(self, poses: np.ndarray, openings: np.ndarray, faces: Faces) -> None:
        self._poses = np.asarray(poses, np.float64) / POSE_UNITS
        self._chosen = _spread(self._poses, np.asarray(openings, np.float64))
        self._faces = faces
        self._kept: dict[int, np.ndarray] = {}

    def nearest(self, positions: np.ndarray) -> int:
        """Position of the calm face for the window of faces at `positions`."""
        middle = np.median(self._poses[positions], axis=0)
        distances = np.linalg.norm(self._poses[self._chosen] - middle, axis=1)
        return int(self._chosen[int(distances.argmin())])

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        position = self.nearest(positions)
        if position not in self._kept:
            self._kept[position] = self._faces([position])[0]
        return np.repeat(self._kept[position][None], len(positions), axis=0)


def _spread(poses: np.ndarray, openings: np.ndarray) -> np.ndarray:
    """Positions of calm faces: first the calmest, then always the one whose pose is least like
    those so far, until one is near every calm face."""
    limit = max(float(np.quantile(openings, CALM_SHARE)), CALM_OPENING)
    calm = np.flatnonzero(openings <= limit)
    chosen = [int(calm[openings[calm].argmin()])]
    distances = np.linalg.norm(poses[calm] - poses[chosen[0]], axis=1)
    while len(chosen) < MOST_STILLS and distances.max() > 1:
        chosen.append(int(calm[distances.argmax()]))
        distances = np.minimum(distances, np.linalg.norm(poses[calm] - poses[chosen[-1]], axis=1))
    return np.array(chosen)


class AwayFaces:
    """For each window the one `DISTANCE` frames after it, or before it at the end."""

    def __init__(self, count: int, faces: Faces) -> None:
        self._count, self._faces = count, faces

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        first, last = int(positions.min()), int(positions.max())
        distance = max(DISTANCE, last - first + 1)
        before, after = first, self._count - 1 - last
        # Where neither side has room for a whole window, the outermost face of the longer one is
        # repeated.
        ahead = after >= distance or (before < distance and after >= before)
        move = distance if ahead else -distance
        return self._faces(np.clip(positions + move, 0, self._count - 1).tolist())
