"""The U-Net's objective: what counts how much, what learns, what the pixels add."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.latentsync import LatentSync
from tasks.pixel_losses import PixelLosses
from tasks.recipes import LossWeights, UNetConfig, recipe
from tasks.stage_run import StageRun, Stores
from tasks.train_loop import Worker
from tasks.train_unet import UNetObjective, choose_trained, latent_weights, mouth_cells
from tasks.training import PrintReporter
from tests.talking_boxes import make_dataset

CPU = torch.device("cpu")
DEBUG = recipe("debug")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(make_dataset(tmp_path_factory.mktemp("data") / "d"))


def objective(stores: Stores, config: UNetConfig, folder: Path) -> UNetObjective:
    torch.manual_seed(0)
    unet = {**DEBUG.model.unet, **config.motion}
    model = LatentSync(replace(DEBUG.model, unet=unet)).eval()
    model.requires_grad_(False)
    choose_trained(model.unet, config.trains)
    stage = StageRun("stage1", folder, "d", DEBUG, stores, Worker(CPU), PrintReporter())
    return UNetObjective(model, config, stage, PixelLosses.load(config, None, CPU))


def test_mouth_cells_are_those_that_the_box_touches() -> None:
    boxes = torch.tensor([[[0.25, 0.5, 0.5, 0.75]]])
    cells = mouth_cells(boxes, 8, 8)[0, 0]
    rows, columns = cells.nonzero(as_tuple=True)
    assert (rows.min(), rows.max()) == (4, 5)
    assert (columns.min(), columns.max()) == (2, 3)


def test_cells_count_by_where_they_are(stores: Stores, tmp_path: Path) -> None:
    config = replace(DEBUG.stage1, batch_size=3, losses=LossWeights(inside=4.0, mouth=20.0))
    goal = objective(stores, config, tmp_path)
    batch = replace(goal.batch(0), swapped=torch.tensor([0.0, 1.0, 0.0]))
    keep = goal.model.latent_mask
    weights = latent_weights(config.losses, keep, batch)
    assert weights.shape == (3, 1, 4, 8, 8)
    torch.testing.assert_close(weights.mean(dim=(1, 2, 3, 4)), torch.ones(3))
    kept = (keep == 1)[:, :, None].expand(1, 1, 4, 8, 8)[0]
    clear = kept | (keep == 0)[:, :, None].expand(1, 1, 4, 8, 8)[0]
    assert (weights[1][kept] == 0).all()
    assert (weights[0][kept] > 0).all()
    known = weights[0] / weights[0][kept].max()
    assert {round(value) for value in known[clear].unique().tolist()} == {1, 4, 20}


def test_the_loss_reaches_every_weight_that_learns(stores: Stores, tmp_path: Path) -> None:
    goal = objective(stores, replace(DEBUG.stage1, batch_size=2), tmp_path)
    with torch.no_grad():
        goal.model.unet.conv_out.weight.normal_(std=0.1)
    loss, parts = goal.loss(goal.batch(0))
    loss.backward()
    assert set(parts) == {"noise"}
    for name, weight in goal.network.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
    assert all(weight.grad is None for weight in goal.model.autoencoder.parameters())


def test_the_picture_that_is_seen_is_masked(stores: Stores, tmp_path: Path) -> None:
    """Whatever is under the mask in the surroundings must not reach the network."""
    goal = objective(stores, replace(DEBUG.stage1, batch_size=2, losses=LossWeights()), tmp_path)
    batch = goal.batch(0)
    hidden = (goal.model.mask == 0).float()
    spoilt = batch.surroundings * (1 - hidden) + hidden * torch.rand_like(batch.surroundings)

    def loss(surroundings: Tensor) -> float:
        torch.manual_seed(1)
        return float(goal.loss(replace(batch, surroundings=surroundings))[0].detach())

    assert loss(batch.surroundings) == pytest.approx(loss(spoilt), rel=1e-5)


@pytest.mark.parametrize(
    ("trains", "learns", "rests"),
    [
        ("motion+attention", ["motion_modules.", "attn2", "attentions."], ["resnets", "conv_in"]),
        ("motion+attn2", ["motion_modules.", ".attn2."], ["attn1", "resnets", ".ff.", "proj_in"]),
    ],
)
def test_stage_2_trains_the_papers_parts(trains: str, learns: list[str], rests: list[str]) -> None:
    model = LatentSync(replace(DEBUG.model, unet={**DEBUG.model.unet, **DEBUG.stage2.motion}))
    count = choose_trained(model.unet, trains)
    own = {name: weight.requires_grad for name, weight in model.unet.named_parameters()}
    assert count == sum(w.numel() for w in model.unet.parameters() if w.requires_grad)
    for mark in learns:
        assert any(mark in name and learnt for name, learnt in own.items()), mark
    for mark in rests:
        assert not any(
            mark in name and learnt and "motion" not in name for name, learnt in own.items()
        ), mark


def test_timesteps_prefer_noise_as_asked(stores: Stores, tmp_path: Path) -> None:
    torch.manual_seed(0)
    even = objective(stores, replace(DEBUG.stage1, timestep_power=1.0), tmp_path)._timesteps(4000)
    high = objective(stores, replace(DEBUG.stage1, timestep_power=1 / 8), tmp_path)._timesteps(4000)
    assert 450 < even.float().mean() < 550
    assert 850 < high.float().mean() < 930
    assert high.max() <= 999
    assert even.min() >= 0


def test_partly_frozen_networks_train_on_a_cpu(stores: Stores, tmp_path: Path) -> None:
    """torch 2.13 crashes in this backward when no input of the first GroupNorm needs one."""
    config = replace(DEBUG.stage2, losses=LossWeights(pixel=1.0))
    goal = objective(stores, config, tmp_path)
    with torch.no_grad():
        goal.model.unet.conv_out.weight.normal_(std=0.1)
    loss, parts = goal.loss(goal.batch(0))
    loss.backward()
    assert set(parts) == {"noise", "pixel"}
    learned = [w for w in goal.network.parameters() if w.requires_grad]
    assert any(w.grad is not None and w.grad.abs().max() > 0 for w in learned)
