"""The sync stage: it learns, its numbers are of held-out speakers, its files come back."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.files.errors import ModelFileError
from tasks.recipes.recipe import recipe
from tasks.sync.network_files import build_syncnet, load_syncnet, save_syncnet
from tasks.train import syncnet
from tasks.train.batches import SyncWindows, sync_batch
from tasks.train.context import StageContext, Stores
from tasks.train.objective import Rank
from tasks.train.pictures import Pictures
from tasks.train.stages import PrintReporter
from tasks.train.syncnet import LatentSight, SyncObjective, run, similarities
from tests.support.talking_boxes import make_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(make_dataset(tmp_path_factory.mktemp("data") / "d", speakers=4, frames=80))


def test_it_learns_who_is_in_sync(stores: Stores, tmp_path: Path) -> None:
    steps = {
        "syncnet.steps": "40",
        "syncnet.batch_size": "16",
        "syncnet.windows_per_clip": "8",
        "syncnet.augment": "0",
        "syncnet.sound_augment": "0",
        "syncnet.time_warp": "0",
        "syncnet.test_every": "0",
        "syncnet.test_windows": "64",
    }
    stage = StageContext(
        "syncnet", tmp_path, "d", recipe("debug", steps), stores, Rank(CPU), PrintReporter()
    )
    metrics = run(stage)
    assert metrics["heldout_speakers"] == 1
    assert metrics["loss"] < 0.6 < math.log(2)
    assert metrics["accuracy"] > 0.8


def test_the_curve_has_points_of_held_out_speakers(stores: Stores, tmp_path: Path) -> None:
    stage = StageContext(
        "syncnet", tmp_path, "d", recipe("debug"), stores, Rank(CPU), PrintReporter()
    )
    run(stage)
    lines = (tmp_path / "syncnet" / "metrics.jsonl").read_text().splitlines()
    measured = [point for point in map(json.loads, lines) if "heldout_accuracy" in point]
    assert [point["step"] for point in measured] == [3, 6]
    assert all(0 <= point["heldout_accuracy"] <= 1 for point in measured)


def test_similarities_are_half_positive_and_repeatable(stores: Stores) -> None:
    config = replace(recipe("debug").syncnet, options={"width": 8, "size": [16, 32]})
    torch.manual_seed(0)
    network = build_syncnet("frame", config.options)
    cosine, labels = similarities(network, stores.train(64), config, 24, CPU)
    assert cosine.shape == (24,)
    assert labels.sum() == 12
    again, _ = similarities(network, stores.train(64), config, 24, CPU)
    assert torch.equal(cosine, again)


def test_a_saved_network_comes_back(tmp_path: Path) -> None:
    config = recipe("debug").syncnet
    torch.manual_seed(0)
    network = build_syncnet(config.network, config.options).eval()
    save_syncnet(tmp_path, network, config, 0.4)
    loaded = load_syncnet(tmp_path, CPU)
    assert loaded.threshold == 0.4
    assert loaded.config == config
    frames, mel = torch.rand(2, 16, 3, 32, 64), torch.rand(2, 1, 80, 52)
    with torch.no_grad():
        for ours, theirs in zip(loaded.network(frames, mel), network(frames, mel), strict=True):
            assert torch.equal(ours, theirs)
    assert not any(weight.requires_grad for weight in loaded.network.parameters())


def test_damaged_files_end_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not describe a sync network"):
        load_syncnet(tmp_path, CPU)
    config = recipe("debug").syncnet
    save_syncnet(tmp_path, build_syncnet(config.network, config.options), config, 0.4)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelFileError, match="truncated"):
        load_syncnet(tmp_path, CPU)


def test_the_published_network_is_built_by_name() -> None:
    paper = recipe("paper-256").syncnet
    with torch.device("meta"):
        network = build_syncnet(paper.network, paper.options)
    assert sum(weight.numel() for weight in network.parameters()) > 400e6


@pytest.mark.parametrize(("calibrate", "threshold"), [("true", 0.7), ("false", 0.5)])
def test_the_threshold_parts_training_windows_and_is_used_on_others(
    calibrate: str,
    threshold: float,
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen windows are separated at 0.7; two of four unseen ones are between 0.5 and that."""
    chosen = recipe("debug", {"syncnet.calibrate": calibrate})
    seen = torch.tensor([0.6, 0.2, 0.8, 0.9]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    unseen = torch.tensor([0.65, 0.55, 0.8, 0.9]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    asked: list[tuple[bool, int]] = []

    def known(
        network: nn.Module, store: object, config: object, windows: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        held_out = store is not stores.train(64)
        asked.append((held_out, windows))
        return unseen if held_out else seen

    monkeypatch.setattr(syncnet, "similarities", known)
    monkeypatch.setattr(syncnet, "train", lambda *_, **__: None)
    stage = StageContext("syncnet", tmp_path, "d", chosen, stores, Rank(CPU), PrintReporter())
    result = run(stage)
    assert asked == [(False, 16), (True, 16)]
    assert result["threshold"] == pytest.approx(threshold)
    right = 1.0 if calibrate == "true" else 0.5
    assert result["accuracy"] == right
    assert result["train_accuracy"] == (1.0 if calibrate == "true" else 0.75)
    logs = [math.log(1 - 0.65), math.log(1 - 0.55), math.log(0.8), math.log(0.9)]
    assert result["loss"] == pytest.approx(-sum(logs) / 4, rel=1e-5)


def test_the_loss_is_low_where_pairs_are_labelled_rightly(stores: Stores) -> None:
    class Known(nn.Module):
        """Cosine 0.6 of the first pair and 0.8 of the second."""

        def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
            return torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.6, 0.8], [0.8, 0.6]])

    config, store = recipe("debug").syncnet, stores.train(64)
    objective = SyncObjective(Known(), config, store, store, 3, Rank(CPU, 1))
    grey = torch.zeros((2, 1, 2, 2, 3), dtype=torch.uint8)
    pictures = Pictures(grey, torch.zeros((2, 3), dtype=torch.int64), torch.zeros((2, 3, 256)))
    batch = SyncWindows(pictures, torch.zeros(2), torch.tensor([1.0, 0.0]))
    expected = -(math.log(0.6) + math.log(1 - 0.8)) / 2
    assert float(objective.loss(batch)[0]) == pytest.approx(expected, rel=1e-5)
    assert objective.measure_every == config.test_every


def test_a_network_on_latents_sees_those_of_the_whole_face(stores: Stores) -> None:
    class Coder(nn.Module):
        """Half as many pixels each way: every fourth."""

        def encode(self, pixels: Tensor) -> Tensor:
            assert not torch.is_grad_enabled()
            return pixels[..., ::2, ::2]

    class Seen(nn.Module):
        def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
            self.frames = frames
            return frames.flatten(1), frames.flatten(1)

    config = recipe("debug", {"stage2.losses.sync_on": "latents"}).syncnet_latents
    assert config is not None
    pixels = recipe("debug").syncnet
    store, network = stores.train(64), Seen()
    for shift in (0.0, 0.1):
        whole = sync_batch(store, replace(config, shift=shift), 3, 0).to(CPU)
        half = sync_batch(store, replace(pixels, shift=shift), 3, 0).to(CPU)
        assert whole.frames.shape == (4, 16, 3, 64, 64)
        assert torch.equal(whole.frames[..., 32:, :], half.frames)
        LatentSight(Coder(), network)(whole.frames, whole.mel)
        assert torch.equal(network.frames, whole.frames[..., ::2, ::2])


def test_similarities_are_the_cosines_of_the_network(stores: Stores) -> None:
    class Same(nn.Module):
        """A cosine of one over the root of two, whoever speaks."""

        def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
            assert not self.training
            ones = torch.ones(len(frames), 1)
            return torch.cat([ones, 0 * ones], 1), torch.cat([ones, ones], 1)

    cosine, labels = similarities(Same(), stores.train(64), recipe("debug").syncnet, 40, CPU)
    torch.testing.assert_close(cosine, torch.full((40,), 0.5**0.5))
    assert labels.tolist() == [1.0, 0.0] * 20
