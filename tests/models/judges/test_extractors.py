"""Feature extractors keep to the official files' calls, and stand-ins say what they are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from datasets.store.atomic import content_digest
from models.files.errors import ModelFileError
from models.judges.extractors import FeatureExtractor, image_extractor, video_extractor
from models.judges.script_process import ScriptProcess

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class FakeInception(nn.Module):
    """Refuses everything but how the official file is called."""

    def forward(
        self, img: torch.Tensor, return_features: bool = False, no_output_bias: bool = False
    ) -> torch.Tensor:
        assert img.dtype == torch.uint8
        assert img.shape[1] == 3
        assert return_features
        return img.float().mean(dim=[2, 3]).repeat(1, 683)[:, :2048]


class FakeI3D(nn.Module):
    """As `FakeInception`, of videos."""

    def forward(
        self,
        x: torch.Tensor,
        rescale: bool = True,
        resize: bool = True,
        return_features: bool = False,
    ) -> torch.Tensor:
        assert not rescale
        assert not resize
        assert return_features
        assert x.shape[1] == 3
        assert x.shape[3] == 224
        assert x.shape[4] == 224
        assert x.abs().max() <= 1
        return x.mean(dim=[2, 3, 4]).repeat(1, 134)[:, :400]


def script(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(str(path))
    return path


def trusted(path: Path) -> set[str]:
    return {content_digest(path)}


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 24, 32, 3), dtype=np.uint8)


def test_official_image_file(tmp_path: Path) -> None:
    path = script(FakeInception(), tmp_path / "a.pt")
    extractor = image_extractor(path, batch=4, trusted=trusted(path))
    frames = images(10)
    features = extractor(frames)
    assert features.shape == (10, extractor.dim) == (10, 2048)
    assert np.allclose(features[:, :3], frames.mean((1, 2)), atol=1e-3)
    assert extractor.label == "inception-2015-12-05"


def test_official_video_file(tmp_path: Path) -> None:
    path = script(FakeI3D(), tmp_path / "a.pt")
    extractor = video_extractor(path, trusted=trusted(path))
    videos = np.full((3, 16, 24, 24, 3), 255, np.uint8)
    videos[..., 1:] = 0
    features = extractor(videos)
    assert features.shape == (3, extractor.dim) == (3, 400)
    assert np.allclose(features[:, :3], [1, -1, -1], atol=1e-3)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_stand_ins_are_seeded_labelled_and_batched(kind: str) -> None:
    build = image_extractor if kind == "image" else video_extractor
    frames = images(32) if kind == "image" else images(32).reshape(4, 8, 24, 32, 3)
    one, small = build(None), build(None, batch=3)
    assert "not the official weights" in one.label
    features = one(frames)
    assert features.dtype == np.float64
    assert features.shape == (len(frames), one.dim)
    assert np.allclose(features, small(frames), atol=1e-5)
    assert np.array_equal(features, build(None)(frames))
    assert one(frames[:0]).shape == (0, one.dim)
    assert (features.std(0) > 0).mean() > 0.8


def test_stand_in_tells_blurred_from_sharp() -> None:
    extractor = image_extractor(None)
    sharp = images(64)
    blurred = np.repeat(np.repeat(sharp[:, ::4, ::4], 4, 1), 4, 2)
    between = np.linalg.norm(extractor(sharp).mean(0) - extractor(blurred).mean(0))
    within = np.linalg.norm(extractor(sharp).mean(0) - extractor(images(64, 1)).mean(0))
    assert between > 1.5 * within


@pytest.mark.parametrize("shape", [(2, 24, 24), (2, 3, 24, 24), (1, 2, 24, 24, 3)])
def test_other_arrays_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="takes uint8 RGB with 4 axes"):
        image_extractor(None)(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="float64"):
        image_extractor(None)(np.zeros((1, 24, 24, 3)))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is not there"):
        image_extractor(tmp_path / "absent.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pt")
    with pytest.raises(ModelFileError, match="not a TorchScript"):
        ScriptProcess(tmp_path / "plain.pt", "cpu", trusted(tmp_path / "plain.pt"))


class Narrow(FakeInception):
    """Called as the official file is, but of another width."""

    def forward(
        self, img: torch.Tensor, return_features: bool = False, no_output_bias: bool = False
    ) -> torch.Tensor:
        return img.float().mean(dim=[2, 3])


class Pair(nn.Module):
    """Gives two things where the official file gives features."""

    def forward(
        self, img: torch.Tensor, return_features: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return img, img


@pytest.mark.parametrize(
    ("network", "build", "match"),
    [
        (FakeI3D(), image_extractor, "cannot be called like inception-2015-12-05.pt"),
        (FakeInception(), video_extractor, "cannot be called like i3d_torchscript.pt"),
        (Narrow(), image_extractor, r"shape \(2, 3\) where .* gives \(2, 2048\): give that file"),
        (Pair(), image_extractor, "gives tuple where"),
    ],
)
def test_other_networks_are_refused_when_loaded(
    network: nn.Module,
    build: Callable[..., FeatureExtractor],
    match: str,
    tmp_path: Path,
) -> None:
    path = script(network, tmp_path / "a.pt")
    with pytest.raises(ModelFileError, match=match) as caught:
        build(path, trusted=trusted(path))
    assert "\n" not in str(caught.value)
