"""The losses on pictures: zero where nothing is wrong, with a gradient where something is."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datasets.errors import UserError
from models.judges.videomae import VideoMAE, VideoMAEConfig
from tasks.recipes.config import LossWeights
from tasks.recipes.recipe import recipe
from tasks.sync.network_files import LoadedSyncNet, build_syncnet
from tasks.train.pixel_losses import PixelLosses, load_trepa, lower_half, sync_loss

CPU = torch.device("cpu")
DEBUG = recipe("debug")


@pytest.fixture
def syncnet() -> LoadedSyncNet:
    torch.manual_seed(0)
    network = build_syncnet(DEBUG.syncnet.network, DEBUG.syncnet.options)
    return LoadedSyncNet(network.eval().requires_grad_(False), DEBUG.syncnet, 0.5)


def pictures(seed: int, side: int = 64) -> torch.Tensor:
    return torch.rand(1, 16, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class Loudness(nn.Module):
    """A sync network for which lips are as open as the picture is bright: one number per frame
    on either side, so that the cosine can be worked out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.empty(0)

    def forward(self, half: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        self.seen = half
        return (half + 1).mean(dim=(2, 3, 4)), mel[:, 0, 0, :16]


def loudness() -> LoadedSyncNet:
    return LoadedSyncNet(Loudness(), DEBUG.syncnet, 0.5)


def talking(courses: list[list[float]]) -> Tensor:
    """Pictures (b, 16, 3, 64, 64) whose lower halves are as bright as the courses, from 0."""
    brightness = torch.tensor(courses)[:, :, None, None, None]
    faces = torch.full((len(courses), 16, 3, 64, 64), 0.7)
    faces[..., 32:, :] = brightness - 1
    return faces


def sounding(courses: list[list[float]]) -> Tensor:
    """Mel (b, 1, 80, 52) as loud as the courses."""
    mel = torch.zeros(len(courses), 1, 80, 52)
    mel[:, 0, :, :16] = torch.tensor(courses)[:, None]
    return mel


SPEAKS = [0.0, 0.4, 1.0, 0.2] * 4
LATER = [0.2, 0.0, 0.4, 1.0] * 4
HALF = torch.ones(1, 1, 64, 64)


def with_losses(syncnet: LoadedSyncNet | None = None, **weights: Any) -> PixelLosses:
    config = replace(DEBUG.unet("stage2"), losses=LossWeights(**weights))
    return PixelLosses.load(config, syncnet, CPU)


def test_the_sync_loss_is_the_mean_logarithm_of_the_cosines() -> None:
    losses = with_losses(loudness(), sync=0.05)
    lips, sound = [1.0, 0.0] * 8, [0.6, 0.8] * 8
    parts = losses(talking([lips, SPEAKS]), talking([SPEAKS] * 2), sounding([sound, SPEAKS]), HALF)
    assert set(parts) == {"sync"}
    assert float(parts["sync"]) == pytest.approx(0.05 * -math.log(0.6) / 2, rel=1e-4)


def test_lips_that_fit_have_less_sync_loss_than_lips_of_another_moment() -> None:
    losses = with_losses(loudness(), sync=1.0)
    found = {}
    for name, course in (("fit", SPEAKS), ("late", LATER)):
        # What should have come out says nothing: the sound alone does.
        parts = losses(talking([course]), talking([LATER]), sounding([SPEAKS]), HALF)
        found[name] = float(parts["sync"])
    assert found["fit"] == pytest.approx(0, abs=1e-5)
    # The cosine of the two courses is 0.6 / 1.2.
    assert found["late"] == pytest.approx(math.log(2), rel=1e-4)


def test_following_the_sync_loss_brings_lips_and_sound_together() -> None:
    network = loudness()
    generated = talking([LATER]).requires_grad_()
    before = sync_loss(network, generated, sounding([SPEAKS]))
    before.backward()
    assert generated.grad is not None
    with torch.no_grad():
        moved = generated - 2000 * generated.grad
    assert float(sync_loss(network, moved, sounding([SPEAKS]))) < float(before.detach()) - 0.05
    assert not generated.grad[..., :32, :].any()


def test_the_sync_network_sees_lower_halves_in_their_order() -> None:
    network, faces = Loudness(), pictures(5)
    sync_loss(LoadedSyncNet(network, DEBUG.syncnet, 0.5), faces, sounding([SPEAKS]))
    assert torch.equal(network.seen, faces[..., 32:, :])


def test_a_sync_network_on_latents_is_shown_them_and_nothing_is_decoded() -> None:
    losses = with_losses(loudness(), sync=0.05, sync_on="latents")
    assert not losses.weights.decodes
    assert losses.syncnet is None
    lips, sound = [1.0, 0.0] * 8, [0.6, 0.8] * 8
    # (b, c, f, r, r), all of the face.
    latents = (torch.tensor([lips]) - 1)[:, None, :, None, None].expand(1, 5, 16, 3, 3)
    latents = latents.clone().requires_grad_()
    parts = losses.of_latents(latents, sounding([sound]))
    assert float(parts["sync"].detach()) == pytest.approx(0.05 * -math.log(0.6), rel=1e-4)
    parts["sync"].backward()
    assert latents.grad is not None
    assert latents.grad[:, :, 1::2].abs().min() > 0
    assert with_losses(loudness(), sync=0.05).of_latents(latents, sounding([sound])) == {}


def test_the_pixel_loss_is_the_mean_error_of_what_is_repainted() -> None:
    repaint = torch.zeros(1, 1, 64, 64)
    repaint[..., 40:56, 8:24] = 1
    target = torch.zeros(1, 16, 3, 64, 64)
    generated = torch.where(repaint > 0, -0.25, 0.9).expand_as(target).clone().requires_grad_()
    part = with_losses(pixel=2.0)(generated, target, sounding([SPEAKS]), repaint)["pixel"]
    assert float(part.detach()) == pytest.approx(2 * 0.25)
    part.backward()
    assert generated.grad is not None
    inside = (repaint > 0).expand_as(target)
    assert not generated.grad[~inside].any()
    expected = torch.full((16 * 3 * 16 * 16,), -2 / (16 * 3 * 16 * 16))
    torch.testing.assert_close(generated.grad[inside], expected)


def test_nothing_repainted_is_no_pixel_loss_instead_of_no_number() -> None:
    part = with_losses(pixel=1.0)(pictures(0), pictures(1), sounding([SPEAKS]), 0 * HALF)["pixel"]
    assert float(part) == 0


class Difference(nn.Module):
    """Stands for LPIPS: the mean difference of each pair of pictures."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        assert first.shape[1:] == (3, 32, 64)
        return (first - second).abs().mean(dim=(1, 2, 3))


def test_lpips_is_the_mean_over_the_lower_halves() -> None:
    losses = with_losses(lpips=0.1)
    losses.lpips = Difference()
    target = pictures(0) / 2
    generated = target.clone()
    generated[:, 3, :, 32:] += 0.8
    generated[..., :32, :] += 0.3
    parts = losses(generated, target, sounding([SPEAKS]), HALF)
    assert set(parts) == {"lpips"}
    assert float(parts["lpips"]) == pytest.approx(0.1 * 0.8 / 16)


def test_lpips_of_equal_pictures_is_zero_and_the_stand_in_is_named() -> None:
    losses = with_losses(lpips=0.1)
    mel = sounding([SPEAKS])
    assert losses(pictures(0), pictures(0), mel, HALF)["lpips"] == 0
    other = losses(pictures(1), pictures(0), mel, HALF)["lpips"]
    assert other > 0
    ten = with_losses(lpips=1.0)(pictures(1), pictures(0), mel, HALF)["lpips"]
    torch.testing.assert_close(ten, 10 * other)
    assert losses.notes == [f"losses.lpips is measured by {losses.lpips.label}"]  # type: ignore[union-attr]


class Brightness(nn.Module):
    """Stands for a video network: how bright each frame is."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=(2, 3, 4))


def test_trepa_is_the_mean_squared_difference_of_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.train.pixel_losses.load_trepa", lambda *_: Brightness())
    losses = with_losses(trepa=10.0)
    target = torch.zeros(1, 16, 3, 64, 64)
    generated = target.clone()
    generated[:, 5] = 0.4
    generated.requires_grad_()
    parts = losses(generated, target, sounding([SPEAKS]), HALF)
    assert set(parts) == {"trepa"}
    assert float(parts["trepa"].detach()) == pytest.approx(10 * 0.4**2 / 16)
    parts["trepa"].backward()
    assert generated.grad is not None
    assert (generated.grad[:, 5] > 0).all()
    assert not generated.grad[:, :5].any()


def test_parts_of_weight_zero_are_left_out() -> None:
    losses = with_losses(loudness())
    assert losses(pictures(0), pictures(1), sounding([SPEAKS]), HALF) == {}
    assert losses.syncnet is None
    assert losses.lpips is None
    assert losses.trepa is None
    assert losses.notes == []


def test_gradients_reach_the_picture_and_no_network(syncnet: LoadedSyncNet) -> None:
    weights = LossWeights(sync=1.0, lpips=1.0, pixel=1.0)
    losses = PixelLosses.load(replace(DEBUG.unet("stage2"), losses=weights), syncnet, CPU)
    generated = pictures(2).requires_grad_()
    parts = losses(generated, pictures(3), torch.rand(1, 1, 80, 52), torch.ones(1, 1, 64, 64))
    torch.stack(list(parts.values())).sum().backward()
    assert generated.grad is not None
    # What lies above the lower half only the pixel loss sees: one sign everywhere.
    upper = generated.grad[..., :32, :].abs()
    torch.testing.assert_close(upper, torch.full_like(upper, float(upper.max())))
    assert generated.grad[..., 32:, :].abs().std() > 0
    assert not any(weight.requires_grad for weight in losses.parameters())


def test_pictures_of_another_size_are_scaled_for_the_sync_network(syncnet: LoadedSyncNet) -> None:
    mel = torch.rand(1, 1, 80, 52)
    flat = torch.zeros(1, 16, 3, 64, 64) + torch.linspace(-1, 1, 16).view(1, 16, 1, 1, 1)
    large = torch.zeros(1, 16, 3, 128, 128) + torch.linspace(-1, 1, 16).view(1, 16, 1, 1, 1)
    torch.testing.assert_close(sync_loss(syncnet, flat, mel), sync_loss(syncnet, large, mel))
    with pytest.raises(UserError, match="windows of 16 frames, but this stage has 4"):
        sync_loss(syncnet, flat[:, :4], mel)


class Recorder(torch.nn.Module):
    """A sync network that keeps the pictures it is shown."""

    def forward(self, frames: torch.Tensor, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.shown = frames
        return mel.flatten(1), mel.flatten(1)


def test_the_sync_network_is_shown_bicubic_pictures(syncnet: LoadedSyncNet) -> None:
    network = Recorder()
    large = torch.zeros(1, 16, 3, 128, 128)
    large[..., 100, 60] = 1
    sync_loss(replace(syncnet, network=network), large, torch.rand(1, 1, 80, 52))
    assert network.shown.shape == (1, 16, 3, 32, 64)
    # The cubic kernel (a = -3/4) half way between two pixels: -3, 19, 19 and -3 of 32. Pixel 60
    # is the last of the four around pixel 29, and the second of those around 30.
    rows, columns = torch.zeros(32), torch.zeros(64)
    rows[17:19] = columns[29:31] = torch.tensor([-3.0, 19.0]) / 32
    torch.testing.assert_close(network.shown[0, 0, 0], torch.outer(rows, columns))


def test_trepa_compares_video_features(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    sizes = {
        "image_size": 32,
        "patch_size": 16,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_frames": 16,
        "tubelet_size": 2,
        "layer_norm_eps": 1e-6,
    }
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    network = VideoMAE(VideoMAEConfig(32, 16, 16, 1, 2, 2.0, 16, 2, fc_norm=False))
    weights = {
        f"videomae.{name.removeprefix('backbone.')}": value.contiguous()
        for name, value in network.state_dict().items()
        if name.startswith("backbone.")
    }
    save_file(weights, tmp_path / "model.safetensors")
    config = replace(
        DEBUG.unet("stage2"), losses=LossWeights(trepa=10.0), trepa_weights=str(tmp_path)
    )
    losses = PixelLosses.load(config, None, CPU)
    mel, repaint = torch.rand(1, 1, 80, 52), torch.ones(1, 1, 64, 64)
    assert losses(pictures(0), pictures(0), mel, repaint)["trepa"] == 0
    assert losses(pictures(0), pictures(1), mel, repaint)["trepa"] > 0


def test_trepa_without_weights_ends_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="set trepa_weights to videomae-v2, or losses"):
        load_trepa("", CPU)
    monkeypatch.setenv("WEIGHTS_DIR", "/nowhere")
    with pytest.raises(UserError, match="`make weights`"):
        load_trepa("videomae-v2", CPU)


def test_the_lower_half_is_the_lower_half() -> None:
    rows = torch.arange(6.0).view(1, 6, 1).expand(1, 6, 2)
    assert lower_half(rows)[0, :, 0].tolist() == [3, 4, 5]
