"""The fixed mask: exact at 256, resized as published at other sizes, and its soft edge."""

import json

import cv2
import numpy as np
import pytest
import torch

from models.latentsync.mask import face_mask, latent_mask, soft_edge
from tests.parity import CASES


def test_every_row_is_the_published_one() -> None:
    rows = json.loads((CASES / "mask_rows.json").read_text())["rows"]
    expected = torch.ones(256, 256)
    for row, runs in rows.items():
        for first, last in runs:
            expected[int(row), first : last + 1] = 0
    assert torch.equal(face_mask(256)[0, 0], expected)


def test_the_nose_is_kept() -> None:
    keep = face_mask(256)[0, 0]
    assert (keep[95:128, 78:178] == 1).all()
    assert (keep[95:128, 77] == 0).all()
    assert (keep[95:128, 178] == 0).all()
    assert (keep[128, 9:248] == 0).all()
    assert int((keep == 0).sum()) == 26673


@pytest.mark.parametrize("resolution", [64, 96, 128, 192, 384, 512])
def test_other_sizes_are_resized_the_published_way(resolution: int) -> None:
    """OpenCV's Lanczos on the picture at 256, to the last of 256 levels."""
    picture = (face_mask(256)[0, 0].numpy() * 255).astype(np.uint8)
    side = (resolution, resolution)
    expected = cv2.resize(picture, side, interpolation=cv2.INTER_LANCZOS4)
    mask = face_mask(resolution)
    assert mask.shape == (1, 1, resolution, resolution)
    assert np.array_equal(np.rint(mask[0, 0].numpy() * 255).astype(np.uint8), expected)


def test_edges_at_512_are_soft() -> None:
    mask = face_mask(512)
    small = latent_mask(mask, (64, 64))
    assert int(((small > 0) & (small < 1)).sum()) == 133


def test_each_call_gives_an_own_tensor() -> None:
    face_mask(64).zero_()
    assert face_mask(64).sum() > 0


def test_resolution_must_be_positive() -> None:
    with pytest.raises(ValueError, match="got 0"):
        face_mask(0)


def test_latent_mask_takes_nearest_pixels() -> None:
    mask = face_mask(256).reshape(1, 1, 1, 256, 256)
    small = latent_mask(mask, (32, 32))
    assert small.shape == (1, 1, 1, 32, 32)
    assert torch.equal(small[0, 0], mask[0, 0, :, ::8, ::8])


@pytest.mark.parametrize("resolution", [128, 256, 512])
@pytest.mark.parametrize("radius", [0, 1, 4])
def test_soft_edge_lies_inside_the_repainted_part(radius: int, resolution: int) -> None:
    mask = face_mask(resolution)
    alpha = soft_edge(mask, radius)
    assert (alpha[mask > 0] == 0).all()
    assert alpha.min() >= 0
    assert alpha.max() == pytest.approx(1)
    middle = alpha[0, 0, :, resolution // 2]
    assert middle[round(0.7 * resolution)] == pytest.approx(1)
    notch = slice(round(95 / 256 * resolution), round(127 / 256 * resolution))
    columns = slice(round(80 / 256 * resolution), round(176 / 256 * resolution))
    assert (alpha[0, 0, notch, columns] == 0).all()
    steps = (middle.diff().abs()).max()
    assert steps <= (1.0 if radius == 0 else 1 / (2 * radius + 1) + 1e-5)
