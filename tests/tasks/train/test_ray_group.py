"""Training in a Ray Train worker group: one, several, killed, and failing."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from datasets.errors import UserError
from tasks.recipes.recipe import recipe
from tasks.registry.tracking import client
from tasks.runtime.ray_session import ray_session
from tasks.train import ray_group
from tasks.train.curves import METRICS
from tasks.train.facts import stage_names
from tasks.train.mlflow_runs import start_runs
from tasks.train.objective import Rank
from tasks.train.ray_group import train_with_ray
from tasks.train.stages import PrintReporter, TrainingJob, remaining, run_stages
from tests.support.talking_boxes import make_dataset

STAGES = stage_names(recipe("debug"))
QUICK = {f"{stage}.steps": "1" for stage in STAGES}

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def ray_is_up() -> Iterator[None]:
    with ray_session(num_cpus=2):
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "d")


def test_two_workers_train_every_stage_and_rank_0_logs(
    ray_is_up: None, dataset: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    job = TrainingJob(dataset, tmp_path / "out", recipe("debug", QUICK), tracking_uri=uri)
    tracked = start_runs(job, "m")
    lines: list[str] = []
    train_with_ray(tracked.job, workers=2, on_line=lines.append)
    assert remaining(job) == []
    for stage, run in tracked.job.runs:
        history = client(uri).get_metric_history(run, "loss")
        assert [point.step for point in history] == [1], stage
        assert len((job.output / stage / METRICS).read_text().splitlines()) == 1
        assert sum(line.startswith(f"{stage}  1/1 steps") for line in lines) == 1
    assert not (job.output / ".ray").exists()


def test_one_of_two_workers_killed_changes_no_loss(
    ray_is_up: None, dataset: Path, tmp_path: Path
) -> None:
    """It is said, and the losses are those of one process that computes the shares of two."""
    steps = {
        "syncnet.steps": "40", "syncnet.lr": "1e-5", "syncnet.test_every": "0",
        "syncnet.checkpoint_every": "10",
    }  # fmt: skip
    job = TrainingJob(dataset, tmp_path / "out", recipe("debug", steps), stages=("syncnet",))
    lines: list[str] = []
    killed: list[int] = []

    def watch(line: str) -> None:
        lines.append(line)
        if not killed and line.startswith("syncnet  "):
            killed.extend(_train_workers()[1:])
            os.kill(killed[0], signal.SIGKILL)

    train_with_ray(job, workers=2, on_line=watch)
    assert killed
    assert remaining(job) == []
    assert [line for line in lines if "of the group was lost: training goes on from" in line]
    alone = replace(job, output=tmp_path / "alone")
    run_stages(alone, Rank(torch.device("cpu"), shares=2), PrintReporter())
    losses = [
        [json.loads(line)["loss"] for line in (each.output / "syncnet" / METRICS).open()]
        for each in (job, alone)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def _train_workers() -> list[int]:
    """The processes that train."""
    return sorted(
        each.pid
        for each in psutil.Process().children(recursive=True)
        if "RayTrainWorker" in _command(each)
    )


def _command(process: psutil.Process) -> str:
    """Its command line; empty when it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_what_a_worker_says_to_the_user_arrives(
    ray_is_up: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[TrainingJob] = []
    real = ray_group._trainer

    def counted(job: TrainingJob, *rest: Any) -> Any:
        made.append(job)
        return real(job, *rest)

    monkeypatch.setattr(ray_group, "_trainer", counted)
    short = make_dataset(tmp_path / "d", frames=20)
    job = TrainingJob(short, tmp_path / "out", recipe("debug", QUICK))
    with pytest.raises(UserError, match="no clip of the dataset is long enough"):
        train_with_ray(job, on_line=lambda line: None)
    assert len(made) == 1


def test_more_workers_than_the_cluster_has_are_refused(
    ray_is_up: None, dataset: Path, tmp_path: Path
) -> None:
    job = TrainingJob(dataset, tmp_path / "out", recipe("debug"))
    with pytest.raises(UserError, match="64 training workers need 64 CPUs, but Ray has 2"):
        train_with_ray(job, workers=64)
    with pytest.raises(UserError, match="1 training workers need 1 GPUs, but Ray has 0"):
        train_with_ray(replace(job, device="cuda"))
