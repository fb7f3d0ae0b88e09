"""LPIPS by every kind of weights, read as training and evaluation read them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from models.judges.lpips import VggLpips
from tasks.weights import lpips as module
from tasks.weights.lpips import load_lpips, lpips

CPU = torch.device("cpu")


def test_the_stand_in_orders_pictures_by_what_was_done_to_them() -> None:
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
    little = np.clip(real.astype(int) + rng.integers(-4, 5, real.shape), 0, 255).astype(np.uint8)
    network = load_lpips("", CPU)
    assert "not LPIPS weights" in network.label
    same, near, far = (lpips(network, real, each, CPU) for each in (real, little, real[::-1]))
    assert same.shape == (20,)
    assert np.abs(same).max() < 1e-6
    assert (near < far).all()
    assert np.allclose(near[17:], lpips(network, real[17:], little[17:], CPU), rtol=1e-4)


def test_torchvision_weights_come_with_their_linear_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[Path, Path]] = []

    def load(vgg: Path, linear: Path) -> VggLpips:
        used.append((vgg, linear))
        return VggLpips(divide=8)

    monkeypatch.setattr(module, "load_vgg_lpips", load)
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path))
    vgg = tmp_path / "vgg16.pth"
    vgg.touch()
    with pytest.raises(UserError, match="lpips-vgg are not at"):
        load_lpips(str(vgg), CPU)
    linear = tmp_path / "metrics" / "lpips_vgg.pth"
    linear.parent.mkdir()
    linear.touch()
    assert isinstance(load_lpips(str(vgg), CPU), VggLpips)
    assert used == [(vgg, linear)]
    with pytest.raises(UserError, match="there is no file nothing"):
        load_lpips("nothing", CPU)
