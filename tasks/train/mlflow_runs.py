"""A training run as the flow sees it: one MLflow run with a child per stage, and a result.

`output/run.json` remembers which MLflow runs belong to this output, so that a run that was
interrupted, or is trained further, goes on in the same ones; with `output/result.json` a
repetition of a finished run ends at once.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, cast

from datasets.shards.index import read_index
from datasets.store.atomic import write_atomic
from datasets.store.manifest import config_digest
from tasks.recipes.files import RECIPE_FILE
from tasks.registry.metric import Metric
from tasks.registry.patience import patiently
from tasks.registry.tracking import RunTracker, has_run
from tasks.train.facts import flat, stage_digests
from tasks.train.stages import TrainingJob, dataset_digest, read_result

RUN = "run.json"
RESULT = "result.json"
EVALUATION_FOLDER = "evaluation"
"""The folder of the run's evaluation."""
RunMetrics = Mapping[str, Mapping[str, float | Metric]]
"""Stage, or `evaluation` -> what was measured."""


class TrainingResult(TypedDict):
    """The result of a training run."""

    run_id: str
    model_version: int | None
    """None if it was not registered."""
    bundle: str
    """Its folder."""
    metrics: RunMetrics
    seconds: dict[str, float]
    """Seconds by stage, and for `evaluation` and `total`."""


class RunRecord(TypedDict):
    """Content of `run.json`."""

    key: str
    """Digest of where the runs are and what they are called."""
    tracking: str
    """MLflow's store."""
    run_id: str
    stages: dict[str, str]
    """Stage -> id of its run."""


@dataclass(frozen=True)
class TrackedRun:
    """The MLflow runs of a training run."""

    run_id: str
    """The parent's."""
    job: TrainingJob
    """With the ids of the stages' runs."""


def run_key(job: TrainingJob, model_name: str) -> str:
    """A digest that is equal for two training runs that are the same."""
    return config_digest(
        {
            "stages": stage_digests(job.recipe, dataset_digest(job.dataset)),
            "wanted": job.wanted,
            "evaluation": asdict(job.recipe.evaluation),
            # It affects only the bundle: no stage depends on it.
            "reference": job.recipe.model.reference,
            "recipe": job.recipe.name,
            "tracking": job.tracking_uri,
            "model": model_name,
        }
    )


def earlier_result(job: TrainingJob, model_name: str, registered: bool) -> TrainingResult | None:
    """The result of the same run if it was finished earlier.

    Args:
        registered: whether the result must name a registered version.
    """
    content = _read(job.output / RESULT)
    if content.get("key") != run_key(job, model_name):
        return None
    found: TrainingResult = content["result"]
    if registered and job.whole and found.get("model_version") is None:
        return None
    return found if not job.whole or Path(found["bundle"]).is_dir() else None


def keep_result(job: TrainingJob, model_name: str, result: TrainingResult) -> None:
    """Remember the result of a finished run."""
    content = {"key": run_key(job, model_name), "result": result}
    write_atomic(job.output / RESULT, json.dumps(content, indent=1))


def start_runs(job: TrainingJob, model_name: str, again: Collection[str] = ()) -> TrackedRun:
    """Start the MLflow runs of a job, or go on in those of before.

    Args:
        again: stages that begin again; their curves get new runs.
    """
    key = config_digest([job.tracking_uri, model_name, job.recipe.name])
    known = cast(RunRecord, _read(job.output / RUN))
    if known.get("key") != key or not has_run(job.tracking_uri, known["run_id"]):
        _close_left_open(known)
        known = {"key": key, "tracking": job.tracking_uri, "run_id": "", "stages": {}}
    tracker = _resume(job, model_name, known)
    stages = {name: run for name, run in known["stages"].items() if name not in again}
    for name in job.wanted:
        if name in stages and has_run(job.tracking_uri, stages[name]):
            RunTracker.attach(job.tracking_uri, stages[name]).resume()
        else:
            stages[name] = tracker.start_run(name, parent=known["run_id"])
            tracker.log_params(flat(asdict(job.recipe.stage(name))))  # type: ignore[arg-type]
    if (job.output / RECIPE_FILE).is_file():
        RunTracker.attach(job.tracking_uri, known["run_id"]).log_artifact(job.output / RECIPE_FILE)
    record: RunRecord = {**known, "stages": stages}
    job.output.mkdir(parents=True, exist_ok=True)
    write_atomic(job.output / RUN, json.dumps(record, indent=1))
    runs = tuple((name, stages[name]) for name in job.wanted)
    return TrackedRun(known["run_id"], replace(job, runs=runs))


def _resume(job: TrainingJob, model_name: str, known: RunRecord) -> RunTracker:
    """A tracker in the right experiment; `known` has the parent's id afterwards."""
    tracker = RunTracker(job.tracking_uri, model_name)
    if known["run_id"]:
        RunTracker.attach(job.tracking_uri, known["run_id"]).resume()
        return tracker
    tags = {"recipe": job.recipe.name, "dataset_digest": dataset_digest(job.dataset)}
    known["run_id"] = tracker.start_run(f"train {job.recipe.name}", tags=tags)
    tracker.log_params({"device": job.device, "seed": job.recipe.seed, "dataset": job.dataset})
    index = read_index(job.dataset)
    tracker.log_dataset(
        "training clips", index["digest"], str(job.dataset), {"clips": index["counts"]}
    )
    return tracker


def _close_left_open(known: RunRecord) -> None:
    """Close runs that a killed process left running and that nobody goes on with."""
    for run in (known.get("run_id"), *known.get("stages", {}).values()):
        # Their store may be gone; this run does not depend on it.
        with suppress(Exception):
            tracker = RunTracker.attach(known["tracking"], str(run))
            if tracker.status() == "RUNNING":
                tracker.end_run("KILLED")


@contextmanager
def closing_runs(tracked: TrackedRun, say: Callable[[str], None]) -> Iterator[None]:
    """Close the runs with their final status.

    If MLflow does not answer, the end of a successful block waits for it. After a failure the runs
    stay open until the next start, so that the failure itself is what is reported.
    """
    try:
        yield
    except BaseException as error:
        # Ctrl-C, SIGTERM and a cancelled flow are not failures.
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with suppress(Exception):
            _close(tracked, status)
        raise
    patiently(lambda: _close(tracked, "FINISHED"), "closing the runs", say)


def _close(tracked: TrackedRun, status: str) -> None:
    for name, run in tracked.job.runs:
        done = read_result(tracked.job, name) is not None
        RunTracker.attach(tracked.job.tracking_uri, run).end_run("FINISHED" if done else status)
    RunTracker.attach(tracked.job.tracking_uri, tracked.run_id).end_run(status)


def log_results(tracked: TrackedRun, metrics: RunMetrics) -> None:
    """Put the numbers of all stages and of the evaluation on the parent run."""
    tracker = RunTracker.attach(tracked.job.tracking_uri, tracked.run_id)
    numbers = {
        f"{group}.{name}": float(value)
        for group, values in metrics.items()
        for name, value in _values(values).items()
    }
    tracker.log(numbers)
    tracker.log_json(metrics, "metrics.json")
    if tracked.job.whole:
        evaluation = tracked.job.output / EVALUATION_FOLDER / "evaluation.json"
        tracker.log_artifact(evaluation, EVALUATION_FOLDER)


def _values(values: Mapping[str, float | Metric]) -> dict[str, float]:
    """The numbers of a group: plain ones, and `value` of labelled ones."""
    plain = {
        name: value["value"] if isinstance(value, dict) else value for name, value in values.items()
    }
    return {
        name: value
        for name, value in plain.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
