"""SyncNet: 2-D does what 3-D would, whole clips do what single windows would."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from models.audio.mfcc import mfcc
from models.files.errors import ModelFileError
from models.syncnet.syncnet_v2 import FoldedConv, SyncNet, load_syncnet
from models.syncnet.syncnet_v2_clips import ClipFeatures


@pytest.fixture(scope="module")
def network() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet().eval()


@pytest.mark.parametrize(("time", "stride", "padding"), [(5, 2, 0), (1, 1, 1)])
def test_folded_convolution_equals_3d(time: int, stride: int, padding: int) -> None:
    conv = FoldedConv(3, 4, (time, 3, 3), (1, stride, stride), (0, padding, padding))
    frames = torch.randn(2, 3, time, 9, 9)
    expected = torch.nn.functional.conv3d(frames, conv.weight, conv.bias, conv.stride, conv.padding)
    assert torch.allclose(conv(frames.flatten(1, 2)), expected[:, :, 0], atol=1e-5)


@torch.no_grad()
def test_clip_features_are_those_of_the_windows(network: SyncNet) -> None:
    rng = np.random.default_rng(0)
    network = copy.deepcopy(network)
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            # As if trained: such norms change what they are given.
            norm.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            norm.weight.uniform_(-1.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
    frames = torch.from_numpy(rng.integers(0, 256, (9, 3, 224, 224), dtype=np.uint8))
    wave = (0.1 * rng.standard_normal(9 * 640)).astype(np.float32)
    lips, sound = ClipFeatures(network, 3)(frames, wave)
    assert lips.shape == sound.shape == (4, 1024)
    window = frames[2:7].flip(1).float().movedim(0, 1)[None]
    assert torch.allclose(lips[2], network.forward_lip(window)[0], atol=1e-4)
    steps = mfcc(wave).float().T[None, None, :, 8:28]
    assert torch.allclose(sound[2], network.forward_audio(steps)[0], atol=1e-4)


def test_frames_of_other_sizes_are_resized(network: SyncNet) -> None:
    frames = torch.zeros(7, 3, 96, 64, dtype=torch.uint8)
    lips, _ = ClipFeatures(network)(frames, np.zeros(7 * 640, np.float32))
    assert lips.shape == (2, 1024)


def test_frames_are_rounded_to_8_bits(network: SyncNet) -> None:
    frames = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (7, 3, 224, 224), dtype=np.uint8)
    )
    wave = np.zeros(7 * 640, np.float32)
    exact, _ = ClipFeatures(network)(frames, wave)
    near, _ = ClipFeatures(network)((frames.float() + 0.4).clamp(0, 255.3), wave)
    assert torch.equal(exact, near)


@pytest.mark.parametrize(("frames", "samples"), [(5, 6_400), (50, 5 * 640)])
def test_too_short_is_refused(network: SyncNet, frames: int, samples: int) -> None:
    with pytest.raises(ValueError, match="more than 5 frames"):
        ClipFeatures(network)(torch.zeros(frames, 3, 224, 224), np.zeros(samples))


def test_file_and_back(network: SyncNet, tmp_path: Path) -> None:
    path = tmp_path / "syncnet_v2.model"
    torch.save(network.state_dict(), path)
    loaded = load_syncnet(path)
    assert all(
        torch.equal(value, network.state_dict()[key]) for key, value in loaded.state_dict().items()
    )
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ModelFileError, match="is not a SyncNet"):
        load_syncnet(path)
