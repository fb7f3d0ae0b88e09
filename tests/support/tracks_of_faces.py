"""Tracks of faces that were never in a video."""

import numpy as np

from datasets.faces.landmarks import face_of
from tasks.lipsync.face_scan import FaceTrack, _small


def face_track(
    meshes: np.ndarray, x: float = 0.0, y: float = 0.0, size: float = 100.0, first: int = 0
) -> FaceTrack:
    """A track of meshes (t, 478, 2), moved to begin at x and y and made `size` wide."""
    low, high = meshes[0].min(axis=0), meshes[0].max(axis=0)
    placed = (meshes - low) * (size / (high[0] - low[0])) + np.array([x, y])
    values = np.stack([_small(face_of(mesh)).landmarks for mesh in placed])
    return FaceTrack(0, first + np.arange(len(meshes)), values, np.zeros(4, np.float32))
