"""From checkpoints to a bundle that loads, whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets.errors import UserError
from models.files.errors import ModelFileError
from models.latentsync.model import LatentSync
from tasks.recipes.recipe import recipe
from tasks.sync.network_files import load_syncnet
from tasks.train.export import check_place, run_metrics, save_bundle
from tasks.train.facts import stage_names
from tasks.train.kept import load_trained_weights
from tasks.train.objective import Rank
from tasks.train.stages import PrintReporter, TrainingJob, run_stages
from tasks.weights.bundle import bundle_digest, read_bundle
from tests.support.talking_boxes import make_dataset

CPU = torch.device("cpu")
STAGES = stage_names(recipe("debug"))
QUICK = {f"{stage}.steps": "1" for stage in STAGES}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    folder = tmp_path_factory.mktemp("run")
    job = TrainingJob(make_dataset(folder / "d"), folder / "out", recipe("debug", QUICK))
    run_stages(job, Rank(CPU), PrintReporter())
    return job


def test_the_bundle_is_what_was_trained(job: TrainingJob) -> None:
    folder = save_bundle(job)
    about = read_bundle(folder)
    assert about["recipe"] == "debug"
    assert about["resolution"] == 64
    assert about["audio"] == "mel"
    model = LatentSync.load(folder, CPU)
    trained = load_trained_weights(job.output / "stage2" / "checkpoint.pt")
    assert trained.keys() == model.unet.state_dict().keys()
    for name, value in model.unet.state_dict().items():
        assert torch.equal(value, trained[name]), name
    coder = load_trained_weights(job.output / "autoencoder" / "checkpoint.pt")
    for name, value in model.autoencoder.state_dict().items():
        assert torch.equal(value, coder[name]), name
    judge = load_syncnet(folder / "syncnet", CPU)
    heard = load_trained_weights(job.output / "syncnet" / "checkpoint.pt")
    for name, value in judge.network.state_dict().items():
        assert torch.equal(value, heard[name]), name


def test_the_same_run_writes_its_bundle_once(job: TrainingJob) -> None:
    folder = save_bundle(job)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    digest = bundle_digest(folder)
    save_bundle(job)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    (folder / "bundle.json").write_text("{}", encoding="utf-8")
    save_bundle(job)
    assert bundle_digest(folder) == digest
    assert sorted(path.name for path in job.output.glob("bundle*")) == ["bundle"]


def test_an_unfinished_run_has_no_bundle(job: TrainingJob, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no checkpoint"):
        save_bundle(replace(job, output=tmp_path))
    assert not list(tmp_path.iterdir())


def test_metrics_and_seconds_come_by_stage(job: TrainingJob) -> None:
    metrics, seconds = run_metrics(job)
    assert list(metrics) == list(seconds) == list(STAGES)
    assert {"accuracy", "loss", "heldout_speakers"} <= set(metrics["syncnet"])
    assert "psnr_db" in metrics["autoencoder"]
    assert all(value > 0 for value in seconds.values())
    json.dumps(metrics)


def test_a_folder_of_the_users_is_not_replaced(job: TrainingJob, tmp_path: Path) -> None:
    check_place(job.output)
    check_place(tmp_path)
    (tmp_path / "bundle").mkdir()
    check_place(tmp_path)
    (tmp_path / "bundle" / "thesis.txt").touch()
    with pytest.raises(UserError, match="something other than a bundle"):
        check_place(tmp_path)
    (tmp_path / "bundle" / "thesis.txt").rename(tmp_path / "thesis.txt")
    (tmp_path / "bundle").rmdir()
    (tmp_path / "thesis.txt").rename(tmp_path / "bundle")
    with pytest.raises(UserError, match="something other than a bundle"):
        check_place(tmp_path)
