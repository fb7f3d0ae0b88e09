"""The autoencoder stage: what it measures is what it says."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.autoencoder import build_autoencoder
from tasks.recipes.recipe import recipe
from tasks.train.autoencoder import AutoencoderObjective, coding_psnr, run, some_frames
from tasks.train.batches import autoencoder_batch
from tasks.train.checkpoints import load_state
from tasks.train.context import StageContext, Stores
from tasks.train.loop import train
from tasks.train.objective import Rank, StageRun
from tasks.train.stages import PrintReporter
from tests.support.talking_boxes import make_dataset

CPU = torch.device("cpu")


class Shifted(nn.Module):
    """Codes every value with a constant error."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error = error

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels

    def decode(self, latents: Tensor) -> Tensor:
        return latents + self.error


def test_psnr_is_that_of_8_bit_pictures() -> None:
    pixels = torch.zeros(3, 3, 8, 8)
    expected = 20 * math.log10(255 / 5)
    assert coding_psnr(Shifted(5 / 127.5), pixels, CPU) == pytest.approx(expected, abs=0.01)
    # An error hidden by rounding does not count.
    assert coding_psnr(Shifted(0.1 / 127.5), pixels + 0.5 / 127.5, CPU) > 100


def test_the_loss_is_the_mean_squared_error_and_its_psnr(tmp_path: Path) -> None:
    chosen = recipe("debug").autoencoder
    assert chosen is not None
    store = Stores(make_dataset(tmp_path / "d")).train(32)
    objective = AutoencoderObjective(Shifted(0.2), chosen, store, 3, Rank(CPU, 1))
    loss, parts = objective.loss(torch.rand(2, 3, 8, 8))
    assert float(loss) == pytest.approx(0.04, rel=1e-4)
    assert float(parts["psnr_db"]) == pytest.approx(20 * math.log10(2 / 0.2), rel=1e-4)
    # Workers draw other batches, seeds and steps do, too.
    expected = autoencoder_batch(store, chosen, 3, 5, 1)
    assert torch.equal(objective.batch(5, 1), expected)


def test_frames_are_spread_over_the_clips(tmp_path: Path) -> None:
    store = Stores(make_dataset(tmp_path / "d", speakers=3, clips=2)).train(32)
    frames = some_frames(store, 8, 0)
    assert frames.shape == (8, 3, 32, 32)
    assert torch.equal(frames, some_frames(store, 8, 0))
    assert not torch.equal(frames, some_frames(store, 8, 1))
    # Every clip's face has its own grey: two frames of each of the four clips.
    assert len({tuple(frame[:, 0, 0].tolist()) for frame in frames}) == 4


def test_training_lowers_the_error(tmp_path: Path) -> None:
    stores = Stores(make_dataset(tmp_path / "d"))
    psnrs = []
    for steps in (0, 40):
        changes = {"steps": str(steps), "warmup": "5", "augment": "0", "shift": "0"}
        chosen = recipe("debug", {f"autoencoder.{name}": text for name, text in changes.items()})
        output = tmp_path / str(steps)
        stage = StageContext("autoencoder", output, "d", chosen, stores, Rank(CPU), PrintReporter())
        psnrs.append(run(stage)["train_psnr_db"])
    assert psnrs[1] > psnrs[0] + 1


def test_a_picture_that_is_not_finite_leaves_the_statistics_alone(tmp_path: Path) -> None:
    chosen = recipe("debug").autoencoder
    assert chosen is not None
    store = Stores(make_dataset(tmp_path / "d")).train(32)

    class Poisoned(AutoencoderObjective):
        def batch(self, step: int, share: int = 0) -> Tensor:
            return super().batch(step) * (float("nan") if step == 3 else 1.0)

    network = build_autoencoder({"kind": "patch", "patch": 8}, 8, 1.0)
    goal = Poisoned(network, chosen, store, 3, Rank(CPU))
    train(goal, chosen, StageRun("a", tmp_path / "run", "d", 3, Rank(CPU), PrintReporter()))
    state = load_state(tmp_path / "run" / "checkpoint.pt")
    assert (state["step"], state["skipped"]) == (6, 1)
    assert torch.isfinite(state["network"]["std"]).all()
    assert not torch.equal(state["network"]["std"], torch.ones(8))
