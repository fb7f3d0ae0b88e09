"""The affine alignment of faces: matrices and one aligned image."""

from pathlib import Path

import numpy as np

from datasets.faces.alignment import BASE_RESOLUTION, CROP_SIZE, TEMPLATE, Aligner, align, crop_size
from tests.parity.draw import read_case, relative_error

PREFIX = "align"
IMAGE_BAR = 1.0
"""Largest mean difference of the aligned image, grey levels."""


def resolution_of(arrays: dict[str, np.ndarray]) -> int:
    """The resolution whose crop has the case's `face_size`, width and height.

    Raises:
        ValueError: there is none, or the aligned image has another size.
    """
    size = tuple(int(side) for side in arrays["face_size"])
    resolution = round(BASE_RESOLUTION * size[0] / CROP_SIZE[0])
    if crop_size(resolution) != size:
        raise ValueError(f"face_size {size} is not of the shape of {CROP_SIZE}")
    if f"aligned{resolution}" not in arrays:
        raise ValueError(f"face_size {size} belongs to an image aligned{resolution}: not there")
    return resolution


def run(folder: Path, name: str) -> float:
    """Relative error of the matrices; infinite when the image differs too much."""
    _, arrays = read_case(folder, name)
    resolution = resolution_of(arrays)
    template = TEMPLATE * (resolution / BASE_RESOLUTION)
    errors = [relative_error(template, arrays["template"])]
    for smooth, key in ((True, "matrices_smooth"), (False, "matrices_plain")):
        aligner = Aligner(resolution, smooth=smooth)
        matrices = np.stack([aligner.matrix_of_points(each) for each in arrays["landmarks"]])
        errors.append(relative_error(matrices, arrays[key]))
    image = align(arrays["image"], arrays["matrices_smooth"][0].astype(np.float64), resolution)
    expected = arrays[f"aligned{resolution}"]
    if image.shape != expected.shape:
        return float("inf")
    difference = np.abs(image.astype(float) - expected.astype(float)).mean()
    return max(errors) if difference < IMAGE_BAR else float("inf")
