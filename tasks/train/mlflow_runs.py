"""A training run as the flow sees it: one MLflow run with a child per stage, and a result.

`output/run.json` remembers which MLflow runs belong to this output, so that a run that
was interrupted goes on in the same ones; with `output/result.json` a repetition of a finished
run ends at once.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, cast

from datasets.store.atomic import write_atomic
from datasets.store.manifest import config_digest
from tasks.registry.metric import Metric
from tasks.registry.tracking import RunTracker
from tasks.train.stages import TrainingJob, dataset_digest, read_result, stage_digests, stage_names

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
    """Digest of what identifies the run."""
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
    if registered and found.get("model_version") is None:
        return None
    return found if Path(found["bundle"]).is_dir() else None


def keep_result(job: TrainingJob, model_name: str, result: TrainingResult) -> None:
    """Remember the result of a finished run."""
    content = {"key": run_key(job, model_name), "result": result}
    write_atomic(job.output / RESULT, json.dumps(content, indent=1))


def start_runs(job: TrainingJob, model_name: str) -> TrackedRun:
    """Start the MLflow runs of a job, or find those from before an interruption."""
    key = run_key(job, model_name)
    known = cast(RunRecord, _read(job.output / RUN))
    if known.get("key") != key:
        known = _new_runs(job, model_name, key)
        job.output.mkdir(parents=True, exist_ok=True)
        write_atomic(job.output / RUN, json.dumps(known, indent=1))
    runs = tuple((str(name), str(run)) for name, run in known["stages"].items())
    return TrackedRun(str(known["run_id"]), replace(job, runs=runs))


def _new_runs(job: TrainingJob, model_name: str, key: str) -> RunRecord:
    tracker = RunTracker(job.tracking_uri, model_name)
    tags = {"recipe": job.recipe.name, "dataset_digest": dataset_digest(job.dataset)}
    parent = tracker.start_run(f"train {job.recipe.name}", tags=tags)
    tracker.log_params({"device": job.device, "seed": job.recipe.seed, "dataset": job.dataset})
    stages = {}
    for name in stage_names(job.recipe):
        stages[name] = tracker.start_run(name, parent=parent)
        tracker.log_params(_flat(asdict(job.recipe.stage(name))))  # type: ignore[arg-type]
    return {"key": key, "run_id": parent, "stages": stages}


@contextmanager
def closing_runs(tracked: TrackedRun) -> Iterator[None]:
    """Close the runs with their final status."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)
        _close(tracked, "KILLED" if stopped else "FAILED")
        raise
    _close(tracked, "FINISHED")


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
    tracker.log_artifact(
        tracked.job.output / EVALUATION_FOLDER / "evaluation.json", EVALUATION_FOLDER
    )
    tracker.flush()


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


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested dictionaries with dotted names."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
