"""The pose's bottleneck: what it lets through, and that at first nothing depends on it."""

from typing import Any

import pytest
import torch

from models.unet import LipSyncUNet
from models.unet.pose import POSES, PoseBottleneck, pose_channels
from tests.support.small_models import UNET, unet_inputs

KINDS = [("full", 0), ("channel", 1), ("channel", 3), ("vector", 2), ("outside", 0)]
BASE = UNET["in_channels"]


def posed_unet(kind: str, width: int, **options: Any) -> LipSyncUNet:
    torch.manual_seed(0)
    count = BASE + pose_channels(kind, width, 4)
    more = {"in_channels": count, "pose": kind, "pose_width": width}
    return LipSyncUNet(**{**UNET, **more, **options}).eval()


def latents(seed: int = 2, frames: int = 3) -> torch.Tensor:
    return torch.randn(2, 4, frames, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "width"), KINDS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_fresh_network_returns_what_one_without_a_pose_returns(
    kind: str, width: int, residual: bool, order: torch.memory_format
) -> None:
    torch.manual_seed(0)
    plain = LipSyncUNet(**{**UNET, "residual": residual}).eval().to(memory_format=order)
    posed = posed_unet(kind, width, residual=residual).to(memory_format=order)
    if residual:
        for network in (plain, posed):
            torch.nn.init.constant_(network.conv_out.weight, 0.01)
    sample, timesteps, audio = unet_inputs()
    with torch.no_grad():
        expected = plain(sample, timesteps, audio)
        found = posed(torch.cat([sample, 5 * latents()], dim=1), timesteps, audio)
    assert torch.equal(found, expected)
    assert expected.abs().max() > 0


@pytest.mark.parametrize(("kind", "width"), KINDS)
def test_the_pose_counts_once_its_weights_have_moved(kind: str, width: int) -> None:
    posed = posed_unet(kind, width)
    sample, timesteps, audio = unet_inputs()
    sample[:, 4] = 1
    whole = torch.cat([sample, latents()], dim=1)
    before = posed(whole, timesteps, audio)
    before.square().sum().backward()
    gradient = posed.conv_in.weight.grad
    assert gradient is not None
    assert (gradient[:, BASE:].abs().amax(dim=(0, 2, 3)) > 0).all()
    with torch.no_grad():
        posed.conv_in.weight[:, BASE:] += 0.1
        assert not torch.equal(posed(whole, timesteps, audio), before)


def test_outside_has_no_lips() -> None:
    bottleneck = PoseBottleneck("outside", 0, 4)
    keep = torch.ones(2, 1, 8, 8)
    keep[:, :, 4:] = torch.tensor([0.0, 0.5]).repeat(4)
    pose, other = latents(2)[:, :, 0], latents(3)[:, :, 0]
    other[:, :, :4] = pose[:, :, :4]
    passed = bottleneck(pose, keep)
    assert torch.equal(passed, bottleneck(other, keep))
    assert torch.equal(passed[:, :, :4], pose[:, :, :4])
    assert (passed[:, :, 4:] == 0).all()


def test_a_vector_is_so_many_bounded_numbers_the_same_everywhere() -> None:
    torch.manual_seed(0)
    bottleneck = PoseBottleneck("vector", 3, 4)
    passed = bottleneck(100 * latents()[:, :, 0], torch.ones(2, 1, 8, 8))
    assert passed.shape == (2, 3, 8, 8)
    assert (passed == passed[..., :1, :1]).all()
    assert passed.abs().max() <= 1
    assert not torch.equal(passed[0], passed[1])


@pytest.mark.parametrize(
    ("kind", "width", "count"),
    [("none", 8, 0), ("full", 8, 4), ("outside", 8, 4), ("channel", 3, 3), ("vector", 16, 16)],
)
def test_how_many_channels_a_kind_gives(kind: str, width: int, count: int) -> None:
    assert kind in POSES
    assert pose_channels(kind, width, 4) == count


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pose": "lips"}, "unknown pose 'lips'"),
        ({"pose": "vector"}, "width of at least 1, got 0"),
        ({"pose": "full"}, r"a pose needs in_channels = .* \+ 4 of the pose = 17, got 13"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LipSyncUNet(**{**UNET, **options})


def test_a_pose_that_is_not_given_is_missed() -> None:
    sample, timesteps, audio = unet_inputs()
    with pytest.raises(ValueError, match=r"sample must be \(b, 17, f, h, w\), got \(2, 13, 3"):
        posed_unet("vector", 2)(sample, timesteps, audio)
