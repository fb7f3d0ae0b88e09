"""The losses on pictures: zero where nothing is wrong, with a gradient where something is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets.errors import UserError
from models.videomae import VideoMAE, VideoMAEConfig
from tasks.pixel_losses import PixelLosses, load_trepa, lower_half, sync_loss
from tasks.recipes import LossWeights, recipe
from tasks.train_syncnet import LoadedSyncNet, build_syncnet

CPU = torch.device("cpu")
DEBUG = recipe("debug")


@pytest.fixture
def syncnet() -> LoadedSyncNet:
    torch.manual_seed(0)
    network = build_syncnet(DEBUG.syncnet.network, DEBUG.syncnet.options)
    return LoadedSyncNet(network.eval().requires_grad_(False), DEBUG.syncnet, 0.5)


def pictures(seed: int, side: int = 64) -> torch.Tensor:
    return torch.rand(1, 16, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_parts_carry_their_weights(syncnet: LoadedSyncNet) -> None:
    mel, repaint = torch.rand(1, 1, 80, 52), torch.ones(1, 1, 64, 64)
    weights = LossWeights(sync=0.05, lpips=0.1, pixel=2.0)
    losses = PixelLosses.load(replace(DEBUG.stage2, losses=weights), syncnet, CPU)
    same = losses(pictures(0), pictures(0), mel, repaint)
    assert set(same) == {"sync", "lpips", "pixel"}
    assert same["lpips"] == 0
    assert same["pixel"] == 0
    assert float(same["sync"]) == pytest.approx(0.05 * float(sync_loss(syncnet, pictures(0), mel)))
    other = losses(pictures(1), pictures(0), mel, repaint)
    assert other["lpips"] > 0
    expected = 2 * (pictures(1) - pictures(0)).abs().mean()
    torch.testing.assert_close(other["pixel"], expected)
    assert losses.notes == [f"losses.lpips is measured by {losses.lpips.label}"]  # type: ignore[union-attr]


def test_gradients_reach_the_picture_and_no_network(syncnet: LoadedSyncNet) -> None:
    weights = LossWeights(sync=1.0, lpips=1.0, pixel=1.0)
    losses = PixelLosses.load(replace(DEBUG.stage2, losses=weights), syncnet, CPU)
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
    with pytest.raises(UserError, match="windows of 16 frames, this stage has 4"):
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
    config = replace(DEBUG.stage2, losses=LossWeights(trepa=10.0), trepa_weights=str(tmp_path))
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
