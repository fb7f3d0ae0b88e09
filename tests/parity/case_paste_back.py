"""An aligned face put back into its frame, against the published program's paste-back.

Ours differs by design in the width of the edge and in rounding, so the bars are grey levels:
a shift by a quarter of a crop pixel goes beyond them.
"""

import math
from pathlib import Path

import numpy as np

from datasets.faces.alignment import align_points, paste_back
from tests.parity.draw import read_case
from tests.parity.outcome import Errors

PREFIX = "paste_back"
FRAME_BAR = 0.6
CORE_BAR = 1.0
"""Largest mean differences of the frame and of the face's core, grey levels."""


def core_of(frame: np.ndarray, matrix: np.ndarray, resolution: int) -> np.ndarray:
    """Whether each pixel (h, w) of a frame shows the middle half of the face each way."""
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
    points = align_points(np.stack([columns, rows], axis=-1), matrix, resolution) / resolution
    return ((points > 0.25) & (points < 0.75)).all(axis=-1)


def run(folder: Path, name: str) -> Errors:
    _, arrays = read_case(folder, name)
    frame, face, matrix = (arrays[key] for key in ("frame", "face", "matrix"))
    pasted, expected = paste_back(frame, face, matrix), arrays["out"]
    if pasted.shape != expected.shape:
        return {"out": (math.inf, FRAME_BAR)}
    difference = np.abs(pasted.astype(float) - expected.astype(float))
    core = difference[core_of(frame, matrix, len(face))]
    return {
        "out": (float(difference.mean()), FRAME_BAR),
        "out, core of the face": (float(core.mean()) if core.size else math.inf, CORE_BAR),
    }
