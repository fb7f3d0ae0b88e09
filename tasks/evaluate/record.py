"""An evaluation in MLflow, and whose sync network judges.

Two models' Sync-C can be compared only if the same network judged both. Without syncnet_v2 that
is the one that judged the champion; a first model is judged by its own.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tasks.evaluate.clips import CLIP_LIST
from tasks.evaluate.run import CONTACT_SHEET, DETAILS, EVALUATION, PLOTS
from tasks.evaluate.strata import strata_rows
from tasks.evaluate.table import MEASUREMENTS
from tasks.recipes.evaluation import EvaluationConfig
from tasks.registry.metric import Evaluation, Metric
from tasks.registry.tracking import RunTracker
from tasks.registry.versions import CHAMPION, ModelVersion, Registry, resolve
from tasks.weights.bundle import is_outdated


def find_judge(registry: Registry, model_name: str) -> str:
    """The model whose sync network judged the champion; empty when there is no champion, or one
    with a different mask or crop from this release's."""
    number = registry.alias(model_name, CHAMPION)
    if number is None:
        return ""
    champion = registry.version(model_name, number)
    if is_outdated(champion.tags):
        return ""
    recorded = champion.evaluation
    judge = recorded.get("judge") if recorded else None
    return judge or f"models:/{model_name}/{number}"


def with_judge(config: EvaluationConfig, model_name: str, uri: str) -> tuple[EvaluationConfig, str]:
    """The configuration with the judge that makes the numbers comparable.

    Returns:
        The configuration, and the judge's address; empty when the model judges itself or
        syncnet_v2 or another judge was asked for.
    """
    if config.syncnet_weights or config.judge_bundle:
        return config, ""
    reference = find_judge(Registry(uri), model_name)
    if not reference:
        return config, ""
    return replace(config, judge_bundle=str(resolve(reference, uri))), reference


def make_table(metrics: Mapping[str, Metric]) -> list[dict[str, object]]:
    """The metrics as rows: metric, value, the ends of its 95 % interval, n, measured by, and why a
    value is missing if one is."""
    rows: list[dict[str, object]] = [
        {
            "metric": name,
            "value": None if entry["value"] is None else round(entry["value"], 4),
            "low": _rounded(entry.get("low")),
            "high": _rounded(entry.get("high")),
            "n": entry["n"],
            "measured by": entry["label"],
        }
        for name, entry in metrics.items()
    ]
    if all(entry["value"] is not None for entry in metrics.values()):
        return rows
    reasons = [entry.get("reason", "") for entry in metrics.values()]
    return [{**row, "no value because": why} for row, why in zip(rows, reasons, strict=True)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def log_evaluation(
    evaluation: Evaluation,
    output: Path,
    uri: str,
    experiment: str,
    version: ModelVersion | None = None,
) -> str:
    """Record a run of its own with numbers, labels and pictures.

    Args:
        evaluation: content of `evaluation.json`.
        output: its folder.
        uri: MLflow's store.
        experiment: the model's name.
        version: the registered version that was evaluated; its training run is the parent.

    Returns:
        The run's id.
    """
    tracker = RunTracker(uri, experiment)
    name = f"evaluate version {version.version}" if version else "evaluate"
    run_id = tracker.start_run(
        name,
        parent=version.run_id or None if version else None,
        tags={"kind": "evaluation", "protocol_digest": evaluation["protocol_digest"]},
    )
    tracker.log_params({**evaluation["config"], "clips_used": len(evaluation["clips"])})
    metrics = evaluation["metrics"]
    numbers = {key: each["value"] for key, each in metrics.items() if each["value"] is not None}
    numbers |= {f"{key}_low": each["low"] for key, each in metrics.items() if "low" in each}
    numbers |= {f"{key}_high": each["high"] for key, each in metrics.items() if "high" in each}
    tracker.log(numbers)
    tracker.log_table(make_table(metrics), "metrics.json")
    if strata := strata_rows(evaluation.get("strata", {})):
        tracker.log_table(strata, "strata.json")
    for file in (EVALUATION, DETAILS, CLIP_LIST, CONTACT_SHEET, PLOTS, MEASUREMENTS):
        tracker.log_artifact(output / file)
    tracker.end_run()
    return run_id
