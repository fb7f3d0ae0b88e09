"""The affine alignment of faces: matrices and one aligned image."""

from pathlib import Path

import numpy as np

from datasets.alignment import TEMPLATE, Aligner, align
from tests.parity.draw import read_case, relative_error

PREFIX = "align"
IMAGE_BAR = 1.0
"""Largest mean difference of the aligned image, grey levels."""


def run(folder: Path, name: str) -> float:
    """Relative error of the matrices; infinite when the image differs too much."""
    _, arrays = read_case(folder, name)
    errors = [relative_error(TEMPLATE, arrays["template"])]
    for smooth, key in ((True, "matrices_smooth"), (False, "matrices_plain")):
        aligner = Aligner(256, smooth=smooth)
        matrices = np.stack([aligner.matrix_of_points(each) for each in arrays["landmarks"]])
        errors.append(relative_error(matrices, arrays[key]))
    image = align(arrays["image"], arrays["matrices_smooth"][0].astype(np.float64), 256)
    difference = np.abs(image.astype(float) - arrays["aligned256"].astype(float)).mean()
    return max(errors) if difference < IMAGE_BAR else float("inf")
