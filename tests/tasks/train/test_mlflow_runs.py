"""The MLflow runs of a training run, and its result, across interruptions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.shards.index import read_index
from tasks.recipes.recipe import recipe
from tasks.registry.tracking import client
from tasks.train.mlflow_runs import (
    TrainingResult,
    closing_runs,
    earlier_result,
    keep_result,
    log_results,
    start_runs,
)
from tasks.train.stages import TrainingJob
from tests.support.talking_boxes import make_dataset


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    folder = tmp_path_factory.mktemp("run")
    uri = f"sqlite:///{folder}/mlflow.db"
    return TrainingJob(
        make_dataset(folder / "d"), folder / "out", recipe("debug"), tracking_uri=uri
    )


def test_one_parent_with_a_child_per_stage(job: TrainingJob) -> None:
    tracked = start_runs(job, "m")
    store = client(job.tracking_uri)
    assert [stage for stage, _ in tracked.job.runs] == [
        "autoencoder",
        "syncnet",
        "stage1",
        "stage2",
    ]
    for stage, run in tracked.job.runs:
        found = store.get_run(run)
        assert found.data.tags["mlflow.parentRunId"] == tracked.run_id
        assert found.data.tags["mlflow.runName"] == stage
        assert "lr" in found.data.params
    parent = store.get_run(tracked.run_id)
    assert parent.data.tags["recipe"] == "debug"
    (used,) = parent.inputs.dataset_inputs
    index = read_index(job.dataset)
    assert used.dataset.digest == index["digest"][:36]
    assert json.loads(used.dataset.profile) == {"clips": index["counts"]}
    assert used.tags[0].value == "training"


def test_an_interrupted_run_goes_on_in_its_runs(job: TrainingJob) -> None:
    first = start_runs(job, "m")
    with pytest.raises(KeyboardInterrupt), closing_runs(first, print):
        raise KeyboardInterrupt
    store = client(job.tracking_uri)
    assert store.get_run(first.run_id).info.status == "KILLED"
    second = start_runs(job, "m")
    assert second == first
    with closing_runs(second, print):
        pass
    assert store.get_run(second.run_id).info.status == "FINISHED"
    with pytest.raises(RuntimeError), closing_runs(second, print):
        raise RuntimeError
    assert store.get_run(second.run_id).info.status == "FAILED"
    third = start_runs(job, "m")
    assert store.get_run(third.run_id).info.status == "RUNNING"
    # A stage that begins again gets a run of its own; the others go on in theirs.
    other = start_runs(job, "m", again=["stage1"])
    assert other.run_id == first.run_id
    before, after = dict(first.job.runs), dict(other.job.runs)
    assert [name for name in after if after[name] != before[name]] == ["stage1"]
    store.delete_run(after["stage2"])
    assert dict(start_runs(job, "m").job.runs)["stage2"] != after["stage2"]


def test_runs_that_nobody_goes_on_with_are_closed(job: TrainingJob, tmp_path: Path) -> None:
    mine = replace(job, output=tmp_path)
    killed = start_runs(mine, "before")
    following = start_runs(mine, "after")
    store = client(job.tracking_uri)
    assert following.run_id != killed.run_id
    for run in (killed.run_id, *dict(killed.job.runs).values()):
        assert store.get_run(run).info.status == "KILLED"
    assert store.get_run(following.run_id).info.status == "RUNNING"


def test_numbers_of_all_stages_are_on_the_parent(job: TrainingJob) -> None:
    (job.output / "evaluation").mkdir(parents=True, exist_ok=True)
    (job.output / "evaluation" / "evaluation.json").write_text("{}", encoding="utf-8")
    tracked = start_runs(job, "m")
    metrics: dict[str, dict[str, Any]] = {
        "syncnet": {"accuracy": 0.9, "heldout_speakers": 2},
        "evaluation": {"ssim": {"value": 0.8, "label": "x", "n": 3}, "fid": {"value": None}},
    }
    log_results(tracked, metrics)
    data = client(job.tracking_uri).get_run(tracked.run_id).data
    assert data.metrics["syncnet.accuracy"] == 0.9
    assert data.metrics["evaluation.ssim"] == 0.8
    assert "evaluation.fid" not in data.metrics


def test_a_result_is_found_again_only_for_the_same_run(job: TrainingJob, tmp_path: Path) -> None:
    bundle = job.output / "bundle"
    bundle.mkdir(parents=True, exist_ok=True)
    result: TrainingResult = {
        "run_id": "r",
        "model_version": None,
        "bundle": str(bundle),
        "metrics": {},
        "seconds": {},
    }
    assert earlier_result(job, "m", False) is None
    keep_result(job, "m", result)
    assert earlier_result(job, "m", False) == result
    assert earlier_result(job, "m", True) is None
    keep_result(job, "m", {**result, "model_version": 3})
    assert earlier_result(job, "m", True) == {**result, "model_version": 3}
    assert earlier_result(job, "other", True) is None
    changed = replace(job, recipe=recipe("debug", {"evaluation.steps": "3"}))
    assert earlier_result(changed, "m", True) is None
    # Nothing is trained again for another reference, but the bundle says it.
    frame = replace(job, recipe=recipe("debug", {"model.reference": "frame"}))
    assert earlier_result(frame, "m", True) is None
    assert earlier_result(replace(job, output=tmp_path), "m", True) is None
    bundle.rmdir()
    assert earlier_result(job, "m", True) is None
