"""The U-Net's objective: what counts how much, what learns, what the pixels add."""

import json
import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.latentsync.diffusion import signal_and_noise
from models.latentsync.model import LatentSync
from tasks.recipes.config import LossWeights, UNetConfig
from tasks.recipes.recipe import recipe
from tasks.sync.network_files import LoadedSyncNet
from tasks.train import autoencoder
from tasks.train import unet as train_unet
from tasks.train.batches import UNetBatch, unet_batch
from tasks.train.context import StageContext, Stores
from tasks.train.objective import Rank, StageRun, parts_of
from tasks.train.pixel_losses import PixelLosses
from tasks.train.stages import PrintReporter
from tasks.train.tokens import TokenCache
from tasks.train.unet import (
    NoisyBatch,
    UNetObjective,
    choose_trained,
    draw_noise,
    latent_weights,
    mouth_cells,
)
from tests.support.talking_boxes import make_dataset

CPU = torch.device("cpu")
DEBUG = recipe("debug")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(make_dataset(tmp_path_factory.mktemp("data") / "d"))


def objective(
    stores: Stores, config: UNetConfig, folder: Path, kind: Any = "sample", rank: int = 0
) -> UNetObjective:
    torch.manual_seed(0)
    unet = {**DEBUG.model.unet, **config.motion, "residual": kind == "sample"}
    model = LatentSync(replace(DEBUG.model, unet=unet, prediction_type=kind)).eval()
    model.requires_grad_(False)
    choose_trained(model.unet, config.trains)
    stage = StageContext("stage1", folder, "d", DEBUG, stores, Rank(CPU, rank), PrintReporter())
    return UNetObjective(model, config, stage, PixelLosses.load(config, None, CPU))


@dataclass
class Oracle:
    """Replaces the U-Net's forward pass: records its inputs and returns given answers."""

    goal: UNetObjective
    noisy: NoisyBatch
    answer: str
    """noise or clean: what was put into the noisy latents."""
    off: Tensor | float = 0.0
    """Added to the answer."""
    asked: dict[str, Tensor] = field(default_factory=dict)

    @property
    def batch(self) -> UNetBatch:
        return self.noisy.windows.to(CPU, self.goal.tokens)

    def __call__(
        self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, masked: Tensor, reference: Tensor
    ) -> Tensor:
        model = self.goal.model
        signal, sigma = signal_and_noise(timesteps, model.scheduler, noisy)
        clean = model.encode_window(self.batch.target)
        noise = (noisy - signal * clean) / sigma
        self.asked = {"masked": masked, "reference": reference, "tokens": tokens}
        self.asked |= {"clean": clean, "noise": noise, "timesteps": timesteps}
        return self.asked[self.answer] + self.off


def oracle(
    goal: UNetObjective, monkeypatch: pytest.MonkeyPatch, answer: str, off: Tensor | float = 0.0
) -> Oracle:
    found = Oracle(goal, goal.batch(0), answer, off)
    monkeypatch.setattr(goal.model, "predict", found)
    return found


@pytest.mark.parametrize(
    ("kind", "right", "wrong"), [("epsilon", "noise", "clean"), ("sample", "clean", "noise")]
)
def test_who_answers_as_the_model_is_meant_to_has_no_loss(
    kind: str,
    right: str,
    wrong: str,
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    goal = objective(stores, DEBUG.stage1, tmp_path, kind)
    perfect = oracle(goal, monkeypatch, right)
    assert float(goal.loss(perfect.noisy)[0].detach()) < 1e-5
    other = oracle(goal, monkeypatch, wrong)
    assert float(goal.loss(other.noisy)[0].detach()) > 0.3


def test_the_network_is_given_what_its_arguments_say(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(DEBUG.stage1, swap_surroundings=1.0, audio_dropout=0.0)
    goal = objective(stores, config, tmp_path)
    asked = oracle(goal, monkeypatch, "clean")
    goal.loss(asked.noisy)
    batch, model = asked.batch, goal.model
    shown = model.encode_window(batch.surroundings * model.mask)
    torch.testing.assert_close(asked.asked["masked"], shown)
    reference = model.encode_window(batch.reference)
    torch.testing.assert_close(asked.asked["reference"], reference)
    assert not torch.allclose(reference, asked.asked["clean"])
    assert torch.equal(asked.asked["tokens"], batch.tokens)
    assert batch.tokens.abs().max() > 0


@pytest.mark.parametrize(("alpha", "shared"), [(0.0, 0.0), (1.0, 0.5), (3.0, 0.9)])
def test_frames_share_as_much_noise_as_the_recipe_says(
    alpha: float,
    shared: float,
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(DEBUG.stage1, batch_size=8, noise_alpha=alpha, timestep_power=1 / 8)
    goal = objective(stores, config, tmp_path, "epsilon")
    asked = oracle(goal, monkeypatch, "noise")
    torch.manual_seed(0)
    goal.loss(asked.noisy)
    frames = asked.asked["noise"].detach().transpose(0, 2).flatten(1)
    assert frames.std(1).tolist() == pytest.approx([1.0] * 4, abs=0.05)
    assert float(torch.corrcoef(frames)[0, 3]) == pytest.approx(shared, abs=0.06)


def test_the_loss_is_the_squared_error_times_its_weights(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = LossWeights(noise=3.0, inside=4.0, mouth=20.0)
    config = replace(DEBUG.stage1, losses=losses, swap_surroundings=0.0, batch_size=1)
    goal = objective(stores, config, tmp_path)
    even = oracle(goal, monkeypatch, "clean", 0.5)
    assert float(goal.loss(even.noisy)[0].detach()) == pytest.approx(3 * 0.25, rel=1e-4)
    # An error as large as the share that is kept counts by those cells' share of all weights.
    keep = goal.model.latent_mask[0, 0]
    mouth = mouth_cells(even.batch.mouth, *keep.shape)[0]
    kept = total = 0.0
    for frame in range(len(mouth)):
        for row in range(keep.shape[0]):
            for column in range(keep.shape[1]):
                repainted = 20.0 if mouth[frame, row, column] else 4.0
                share = float(keep[row, column])
                weight = share + (1 - share) * repainted
                total += weight
                kept += weight * share**2
    uneven = oracle(goal, monkeypatch, "clean", keep)
    assert float(goal.loss(uneven.noisy)[0].detach()) == pytest.approx(3 * kept / total, rel=1e-3)


@pytest.mark.parametrize(("kind", "answer"), [("epsilon", "noise"), ("sample", "clean")])
def test_losses_on_the_picture_get_the_decoded_estimate_and_the_repainted_part(
    kind: str, answer: str, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rarely so noisy that the estimate from the noise loses its digits.
    config = replace(DEBUG.stage1, losses=LossWeights(pixel=1.0), timestep_power=1.0)
    goal = objective(stores, config, tmp_path, kind)
    asked = oracle(goal, monkeypatch, answer)
    given: list[Tensor] = []

    def losses(*arguments: Tensor) -> dict[str, Tensor]:
        given.extend(arguments)
        return {"pixel": torch.tensor(3.0), "sync": torch.tensor(0.5)}

    losses.weights = config.losses  # type: ignore[attr-defined]
    goal.losses = losses  # type: ignore[assignment]
    total, parts = goal.loss(asked.noisy)
    generated, target, mel, repaint = given
    expected = goal.model.decode_window(asked.asked["clean"]).detach()
    torch.testing.assert_close(generated, expected, rtol=0, atol=0.02)
    assert torch.equal(target, asked.batch.target)
    assert torch.equal(mel, asked.batch.mel)
    assert torch.equal(repaint, 1 - goal.model.mask)
    assert float(total.detach()) == pytest.approx(3.5 + float(parts["noise"]))


def test_a_sync_network_on_latents_gets_the_estimate_and_no_picture_is_made(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = LossWeights(sync=0.5, sync_on="latents")
    config = replace(DEBUG.stage1, losses=weights, timestep_power=1.0)
    goal = objective(stores, config, tmp_path, "sample")
    asked = oracle(goal, monkeypatch, "clean")

    class Bright(nn.Module):
        """A cosine of 0.6 whatever it is shown."""

        def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
            self.shown, self.mel = frames, mel
            ones = torch.ones(len(frames), 1)
            return torch.cat([ones, 0 * ones], 1), torch.cat([0.6 * ones, 0.8 * ones], 1)

    judge = Bright()
    trained = recipe("debug", {"stage2.losses.sync_on": "latents"}).syncnet_latents
    assert trained is not None
    trained = replace(trained, num_frames=asked.batch.target.shape[1])
    goal.losses = PixelLosses.load(config, LoadedSyncNet(judge, trained, 0.5), CPU)
    monkeypatch.setattr(goal.model, "decode_window", None)
    total, parts = goal.loss(asked.noisy)
    assert torch.equal(judge.mel, asked.batch.mel)
    expected = asked.asked["clean"].transpose(1, 2)
    torch.testing.assert_close(judge.shown.detach(), expected, rtol=0, atol=1e-4)
    assert float(parts["sync"]) == pytest.approx(0.5 * -math.log(0.6), rel=1e-4)
    assert float(total.detach()) == pytest.approx(float(parts["sync"] + parts["noise"]))


def test_batches_are_those_of_seed_step_and_rank(stores: Stores, tmp_path: Path) -> None:
    goal = objective(stores, DEBUG.stage1, tmp_path, rank=1)
    cache = TokenCache(goal.model.audio_encoder)
    expected = unet_batch(goal.store, DEBUG.stage1, 16, goal.seed, 3, 1).to(CPU, cache)
    found = goal.batch(3, 1).windows.to(CPU, goal.tokens)
    assert torch.equal(found.target, expected.target)
    assert torch.equal(found.tokens, expected.tokens)


def test_parts_of_a_batch_have_its_loss(stores: Stores, tmp_path: Path) -> None:
    """One window is swapped and one is not, and their sound is encoded on the way."""
    config = replace(DEBUG.stage1, batch_size=3, swap_surroundings=0.5)
    goal = objective(stores, config, tmp_path)
    whole = goal.batch(0)
    assert 0 < int(whole.windows.swapped.sum()) < 3
    for size in (1, 2):
        parts = [
            float(goal.loss(part)[0].detach()) * share for part, share in parts_of(whole, size)
        ]
        assert len(parts) == -(-3 // size)
        assert sum(parts) == pytest.approx(float(goal.loss(whole)[0].detach()), rel=1e-5)


def test_two_workers_draw_what_one_with_both_batches_draws(stores: Stores, tmp_path: Path) -> None:
    both = objective(stores, replace(DEBUG.stage1, batch_size=4), tmp_path).batch(3)
    config = replace(DEBUG.stage1, batch_size=2)
    halves = [objective(stores, config, tmp_path, rank=rank).batch(3, rank) for rank in (0, 1)]
    assert torch.equal(torch.cat([each.noise for each in halves]), both.noise)
    assert torch.equal(torch.cat([each.timesteps for each in halves]), both.timesteps)
    targets = torch.cat([each.windows.target.to(CPU) for each in halves])
    assert torch.equal(targets, both.windows.target.to(CPU))
    assert len({float(each.std()) for each in both.noise}) == 4
    assert not torch.equal(halves[0].noise, objective(stores, config, tmp_path).batch(4).noise)


def test_a_batch_in_parts_is_the_batch(stores: Stores, tmp_path: Path) -> None:
    config = replace(DEBUG.stage1, batch_size=6, swap_surroundings=0.5, audio_dropout=0.3)
    goal = objective(stores, config, tmp_path)
    noisy = goal.batch(2)
    assert 0 < float(noisy.windows.swapped.sum()) < 6
    whole = noisy.windows.to(CPU, goal.tokens)
    parts = [part for part, _ in parts_of(noisy, 2)]
    on_device = [part.windows.to(CPU, goal.tokens) for part in parts]
    for each in fields(whole)[:-2]:
        together = torch.cat([getattr(part, each.name) for part in on_device])
        assert torch.equal(together, getattr(whole, each.name)), each.name
    assert torch.equal(torch.cat([part.noise for part in parts]), noisy.noise)
    assert [len(part.windows) for part in parts] == [2, 2, 2]


def test_a_cell_belongs_to_the_mouth_where_they_overlap_at_all() -> None:
    boxes = torch.tensor([[[0.3, 0.51, 0.3001, 0.74], [0.0, 0.9, 1.0, 1.0]]])
    cells = mouth_cells(boxes, 4, 8)[0]
    assert cells.shape == (2, 4, 8)
    assert cells[0].nonzero().tolist() == [[2, 2]]
    assert cells[1].sum(1).tolist() == [0, 0, 0, 8]
    # A border that is only touched is not an overlap.
    edge = mouth_cells(torch.tensor([[[0.25, 0.25, 0.5, 0.5]]]), 4, 4)[0, 0]
    assert edge.nonzero().tolist() == [[1, 1]]


def test_mouth_cells_are_those_that_the_box_touches() -> None:
    boxes = torch.tensor([[[0.25, 0.5, 0.5, 0.75]]])
    cells = mouth_cells(boxes, 8, 8)[0, 0]
    rows, columns = cells.nonzero(as_tuple=True)
    assert (rows.min(), rows.max()) == (4, 5)
    assert (columns.min(), columns.max()) == (2, 3)


def test_cells_count_by_where_they_are(stores: Stores, tmp_path: Path) -> None:
    config = replace(DEBUG.stage1, batch_size=3, losses=LossWeights(inside=4.0, mouth=20.0))
    goal = objective(stores, config, tmp_path)
    windows = goal.batch(0).windows.to(CPU, goal.tokens)
    batch = replace(windows, swapped=torch.tensor([0.0, 1.0, 0.0]))
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
    noisy = goal.batch(0)
    batch = noisy.windows.to(CPU, goal.tokens)
    hidden = (goal.model.mask == 0).float()
    spoilt = batch.surroundings * (1 - hidden) + hidden * torch.rand_like(batch.surroundings)

    def loss(surroundings: Tensor) -> float:
        changed = replace(batch, surroundings=surroundings)
        return float(goal.loss_on(changed, noisy.noise, noisy.timesteps)[0].detach())

    assert loss(batch.surroundings) == pytest.approx(loss(spoilt), rel=1e-5)


@pytest.mark.parametrize(
    ("trains", "learns", "rests"),
    [
        ("motion+attention", ["motion_modules.", "attn2", "attentions."], ["resnets", "conv_in"]),
        ("motion+attn2", ["motion_modules.", ".attn2."], ["attn1", "resnets", ".ff.", "proj_in"]),
    ],
)
def test_stage_2_trains_the_papers_parts(trains: str, learns: list[str], rests: list[str]) -> None:
    model = LatentSync(
        replace(DEBUG.model, unet={**DEBUG.model.unet, **DEBUG.unet("stage2").motion})
    )
    count = choose_trained(model.unet, trains)
    own = {name: weight.requires_grad for name, weight in model.unet.named_parameters()}
    assert count == sum(w.numel() for w in model.unet.parameters() if w.requires_grad)
    for mark in learns:
        assert any(mark in name and learnt for name, learnt in own.items()), mark
    for mark in rests:
        assert not any(
            mark in name and learnt and "motion" not in name for name, learnt in own.items()
        ), mark


def timesteps(power: float, count: int = 4000) -> Tensor:
    config = replace(DEBUG.stage1, timestep_power=power)
    return torch.stack([draw_noise(config, (1, 1, 1, 1), seed)[1] for seed in range(count)])


def test_timesteps_prefer_noise_as_asked() -> None:
    even, high = timesteps(1.0), timesteps(1 / 8)
    assert 450 < even.float().mean() < 550
    assert 850 < high.float().mean() < 930
    assert high.max() <= 999
    assert even.min() >= 0


def test_partly_frozen_networks_train_on_a_cpu(stores: Stores, tmp_path: Path) -> None:
    """torch 2.13 crashes in this backward when no input of the first GroupNorm needs one."""
    config = replace(DEBUG.unet("stage2"), losses=LossWeights(pixel=1.0))
    goal = objective(stores, config, tmp_path)
    with torch.no_grad():
        goal.model.unet.conv_out.weight.normal_(std=0.1)
    loss, parts = goal.loss(goal.batch(0))
    loss.backward()
    assert set(parts) == {"noise", "pixel"}
    learned = [w for w in goal.network.parameters() if w.requires_grad]
    assert any(w.grad is not None and w.grad.abs().max() > 0 for w in learned)


def test_timesteps_are_the_power_of_uniform_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([0.0, 0.25, 0.9999999])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(next(drawn)))
    assert timesteps(0.5, 3).tolist() == [0, 500, 999]


def test_only_the_unet_learns_and_all_is_reported(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe("debug", {"autoencoder.steps": "0"})

    def stage(name: str) -> StageContext:
        return StageContext(name, tmp_path, "d", chosen, stores, Rank(CPU), PrintReporter())

    autoencoder.run(stage("autoencoder"))
    trained: list[UNetObjective] = []

    def train(goal: UNetObjective, config: UNetConfig, run: StageRun) -> None:
        trained.append(goal)
        assert config == chosen.stage1
        run.folder.mkdir()
        points = [
            json.dumps({"step": step, "lr": 0.1, "loss": float(step), "noise": 2.0 * step})
            for step in range(1, 31)
        ]
        (run.folder / "metrics.jsonl").write_text("\n".join(points) + "\n")

    monkeypatch.setattr(train_unet, "train", train)
    result = train_unet.run(stage("stage1"))
    model = trained[0].model
    assert all(weight.requires_grad for weight in model.unet.parameters())
    assert not any(weight.requires_grad for weight in model.autoencoder.parameters())
    assert trained[0].network is model.unet
    count = sum(weight.numel() for weight in model.unet.parameters())
    # The end of a curve is the mean of its last tenth: steps 28 to 30.
    assert result == {"trained_millions": count / 1e6, "loss": 29.0, "noise": 58.0}


def test_the_held_out_loss_is_of_unseen_speakers_at_evenly_spread_timesteps(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goal = objective(stores, replace(DEBUG.stage1, test_every=5, test_windows=8), tmp_path)
    assert goal.measure_every == 5
    asked: list[tuple[int, int]] = []
    seen: list[Tensor] = []

    def loss_on(
        windows: UNetBatch, noise: Tensor, timesteps: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        asked.append((len(windows.target), int(timesteps)))
        seen.append(noise)
        assert float(windows.swapped.sum()) == 0
        return torch.zeros(()), {"noise": timesteps.float().mean() / 1000}

    with monkeypatch.context() as patch:
        patch.setattr(goal, "loss_on", loss_on)
        found = goal.measure()
    assert asked == [(1, round(62.5 + 125 * index - 0.5)) for index in range(8)]
    assert found["heldout_loss"] == pytest.approx(0.5, abs=0.001)
    assert [found[f"heldout_loss_{index}"] for index in range(4)] == pytest.approx(
        [0.125, 0.375, 0.625, 0.875], abs=0.001
    )
    assert len({float(each.std()) for each in seen}) == 8
    # The same each time, and with real losses finite and different.
    again = goal.measure()
    assert again == goal.measure()
    assert all(np.isfinite(list(again.values())))
    training = {clip.speaker for clip in stores.train(64).clips}
    assert not training & {clip.speaker for clip in goal.held_out.clips}


def test_without_held_out_speakers_there_is_no_held_out_loss(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stores, "held_out", lambda self, side: (self.train(side), 0))
    goal = objective(stores, replace(DEBUG.stage1, test_every=5), tmp_path)
    assert goal.measure_every == 0
