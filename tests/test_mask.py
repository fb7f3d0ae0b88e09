"""The fixed mask: exact at 256, the same shape at other sizes, and its soft edge."""

import json

import pytest
import torch

from models.mask import face_mask, latent_mask, soft_edge
from tests.parity import CASES


def test_every_row_is_the_published_one() -> None:
    rows = json.loads((CASES / "mask_rows.json").read_text())["rows"]
    expected = torch.ones(256, 256)
    for row, (first, last) in rows.items():
        expected[int(row), first : last + 1] = 0
    assert torch.equal(face_mask(256)[0, 0], expected)


@pytest.mark.parametrize("resolution", [64, 128, 192, 512])
def test_other_sizes_have_the_same_shape(resolution: int) -> None:
    mask = face_mask(resolution)
    assert mask.shape == (1, 1, resolution, resolution)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask.mean() == pytest.approx(float(face_mask(256).mean()), abs=0.01)
    rows = (mask[0, 0] == 0).any(1).nonzero()
    assert rows.min() / resolution == pytest.approx(95 / 256, abs=0.01)
    assert rows.max() / resolution == pytest.approx(242 / 256, abs=0.015)


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


@pytest.mark.parametrize("radius", [0, 1, 4])
def test_soft_edge_lies_inside_the_repainted_part(radius: int) -> None:
    mask = face_mask(128)
    alpha = soft_edge(mask, radius)
    assert (alpha[mask == 1] == 0).all()
    assert alpha.min() >= 0
    assert alpha.max() == pytest.approx(1)
    assert alpha[0, 0, 85, 64] == pytest.approx(1)
    steps = (alpha[0, 0, :, 64].diff().abs()).max()
    assert steps <= (1.0 if radius == 0 else 1 / (2 * radius + 1) + 1e-5)
