"""LPIPS: a distance, differentiable, the same from both kinds of files."""

from pathlib import Path

import pytest
import torch
from torch import nn

from datasets.store.atomic import content_digest
from models.files.errors import ModelFileError
from models.judges.lpips import VggLpips, convert_vgg, load_vgg_lpips, perceptual_loss

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class FakeVgg(nn.Module):
    """Refuses everything but how the official file is called."""

    def forward(
        self, x: torch.Tensor, resize_images: bool = True, return_lpips: bool = False
    ) -> torch.Tensor:
        assert not resize_images
        assert return_lpips
        return x.mean(dim=[2, 3]) / 255


def images(seed: int) -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_official_file(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pt"
    torch.jit.script(FakeVgg()).save(str(path))
    loss = perceptual_loss(path, trusted={content_digest(path)})
    black, white = torch.full((2, 3, 8, 8), -1.0), torch.full((2, 3, 8, 8), 1.0)
    assert torch.allclose(loss(black, white), torch.full((2,), 3.0))
    assert loss.label == "lpips-vgg16"


class Classifier(nn.Module):
    """Takes pictures only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=[2, 3])


def test_another_network_is_refused_when_loaded(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pt"
    torch.jit.script(Classifier()).save(str(path))
    with pytest.raises(
        ModelFileError, match=r"TorchScript, but cannot be called like NVIDIA's vgg16\.pt"
    ):
        perceptual_loss(path, trusted={content_digest(path)})


def test_it_is_a_distance() -> None:
    loss = perceptual_loss(None)
    first, second = images(0), images(1)
    assert loss(first, first).tolist() == [0.0, 0.0, 0.0]
    assert torch.allclose(loss(first, second), loss(second, first))
    near = loss(first, first + 0.05 * second)
    assert (near < loss(first, second)).all()
    assert (near > 0).all()


def test_stand_in_is_seeded_and_says_so() -> None:
    first, second = images(0), images(1)
    loss = perceptual_loss(None)
    assert torch.equal(loss(first, second), perceptual_loss(None)(first, second))
    assert "not LPIPS" in loss.label


def test_gradient_reaches_the_image_only() -> None:
    loss = perceptual_loss(None)
    image = images(0).requires_grad_()
    loss(image, images(1)).sum().backward()
    assert image.grad is not None
    assert float(image.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in loss.parameters())


TORCHVISION = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
"""Positions of VGG16's convolutions in torchvision's `features`."""


def test_torchvision_weights_fit_one_to_one(tmp_path: Path) -> None:
    network = VggLpips()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    vgg = {
        f"features.{position}.{kind}": getattr(conv, kind)
        for position, conv in zip(TORCHVISION, convolutions, strict=True)
        for kind in ("weight", "bias")
    }
    vgg["classifier.0.bias"] = torch.zeros(2)
    linear = {f"lin{i}.model.1.weight": w.view(1, -1, 1, 1) for i, w in enumerate(network.linear)}
    assert convert_vgg(vgg, linear).keys() == network.state_dict().keys()
    torch.save(vgg, tmp_path / "vgg.pth")
    torch.save(linear, tmp_path / "lin.pth")
    loaded = load_vgg_lpips(tmp_path / "vgg.pth", tmp_path / "lin.pth")
    assert torch.equal(loaded(images(0), images(1)), network(images(0), images(1)))
    with pytest.raises(ModelFileError, match="linear weights"):
        load_vgg_lpips(tmp_path / "vgg.pth", tmp_path / "vgg.pth")
