"""The fixed mask: at 256 and 512, at latents' size, and as runs of masked columns per row."""

import json
from pathlib import Path

import numpy as np

from models.latentsync.mask import face_mask, latent_mask
from tests.parity.draw import read_case
from tests.parity.outcome import Errors

PREFIX = "mask"
ROWS = "mask_rows.json"
GREY_LEVEL = 1.001 / 255
"""One grey level, and what rounding adds to it."""
BARS = {"mask256": 0.0, "mask512": GREY_LEVEL, "latent32": 1e-6, "latent64": 1e-6}


def runs_of(covered: np.ndarray) -> list[list[int]]:
    """First and last index of each run of true values of a row (w,)."""
    steps = np.diff(np.concatenate([[0], covered, [0]]))
    ends = zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True)
    return [[int(first), int(last) - 1] for first, last in ends]


def wrong_rows(path: Path, mask: np.ndarray) -> int:
    """How many rows of a mask (h, w), 1 = kept, have other runs than the file says."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return sum(runs_of(row == 0) != rows.get(str(index), []) for index, row in enumerate(mask))


def run(folder: Path, name: str) -> Errors:
    _, arrays = read_case(folder, name)
    full, large = face_mask(256), face_mask(512)
    found = {
        "mask256": full,
        "mask512": large,
        "latent32": latent_mask(full, (32, 32)),
        "latent64": latent_mask(large, (64, 64)),
    }
    errors = {}
    for key, mask in found.items():
        expected = arrays[key].astype(np.float64)
        if key.startswith("mask"):
            expected /= 255
        difference = np.abs(mask[0, 0].double().numpy() - expected)
        errors[key] = (float(difference.max()), BARS[key])
    if (folder / ROWS).is_file():
        errors[ROWS] = (float(wrong_rows(folder / ROWS, full[0, 0].numpy())), 0.0)
    return errors
