"""The sync stage: it learns, its numbers are of held-out speakers, its files come back."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.files import ModelFileError
from tasks.recipes import recipe
from tasks.stage_run import StageRun, Stores
from tasks.train_loop import Worker
from tasks.train_syncnet import build_syncnet, load_syncnet, run, save_syncnet, similarities
from tasks.training import PrintReporter
from tests.talking_boxes import make_dataset

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
    stage = StageRun(
        "syncnet", tmp_path, "d", recipe("debug", steps), stores, Worker(CPU), PrintReporter()
    )
    metrics = run(stage)
    assert metrics["heldout_speakers"] == 1
    assert metrics["loss"] < 0.6 < math.log(2)
    assert metrics["accuracy"] > 0.8


def test_the_curve_has_points_of_held_out_speakers(stores: Stores, tmp_path: Path) -> None:
    stage = StageRun(
        "syncnet", tmp_path, "d", recipe("debug"), stores, Worker(CPU), PrintReporter()
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
    with pytest.raises(ModelFileError, match="describes no sync network"):
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
