"""The first and last lines of a training run, for the person who waits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from datasets.errors import UserError
from datasets.shards.clips import Clip, ClipStore
from flows.support.evaluation_text import MAIN, evaluation_lines, metric_lines
from tasks.evaluate.run import read_evaluation
from tasks.registry.metric import Metric
from tasks.train.memory import MemoryEstimate
from tasks.train.mlflow_runs import TrainingResult
from tasks.train.stages import TrainingJob, remaining


def dataset_line(dataset: Path) -> str:
    """What there is to train on: clips and speakers of each split.

    Raises:
        UserError: there is no dataset, or it has no clips.
    """
    return f"dataset {dataset}: {_counts(ClipStore(dataset, memory_bytes=0).clips)}"


def plan_lines(
    job: TrainingJob, workers: int, memory: Mapping[str, MemoryEstimate] | None = None
) -> list[str]:
    """What will be trained, how and where: a line, then one for each stage that remains.

    Args:
        job: the training.
        workers: processes that train together.
        memory: what each of them needs for each stage.
    """
    many = _many(workers, "worker")
    lines = [f"plan: recipe {job.recipe.name}, seed {job.recipe.seed}, {many} on {job.device}"]
    for name in remaining(job):
        stage = job.recipe.stage(name)
        assert stage is not None
        samples = stage.batch_size * workers
        parts = f" in parts of {stage.micro_batch}" if stage.micro_batch else ""
        if stage.parallel == "fsdp" and workers > 1:
            parts += ", weights in shares"
        precision = stage.precision if job.device.startswith("cuda") else "fp32"
        lines.append(
            f"  {name:11s} {stage.steps} steps of {_many(samples, 'sample')}{parts}, {precision}, "
            f"learning rate {stage.lr:g} ({stage.schedule})"
        )
        if memory and name in memory:
            lines.append(f"  {'':11s} memory of each worker about {memory[name]}")
    return lines


def _counts(clips: Sequence[Clip]) -> str:
    parts = []
    for split, use in (("train", "for training"), ("test", "for testing")):
        chosen = [clip for clip in clips if clip.split == split]
        speakers = len({clip.speaker for clip in chosen})
        if chosen:
            parts.append(f"{_many(len(chosen), 'clip')} of {_many(speakers, 'speaker')} {use}")
        else:
            parts.append(f"none {use}")
    return ", ".join(parts)


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"


def result_lines(output: Path, evaluation: Path, model: str, result: TrainingResult) -> list[str]:
    """The main numbers, what was registered, and where everything is.

    Args:
        output: folder of the run.
        evaluation: folder of its evaluation.
        model: name in the registry.
        result: what the flow returns.
    """
    if not result["bundle"]:
        # Some stages only: there is nothing to evaluate.
        groups = cast(Mapping[str, Mapping[str, float]], result["metrics"])
        lines = []
        for stage, values in groups.items():
            texts = (f"{name} {float(value):.4g}" for name, value in sorted(values.items()))
            lines.append(f"{stage:13s} {'  '.join(texts)}")
        return [*lines, f"{'output':13s} {output}"]
    try:
        lines = evaluation_lines(read_evaluation(evaluation), evaluation, MAIN)
    except UserError:
        # The result is of an earlier run whose evaluation the user has since removed.
        metrics = result["metrics"].get("evaluation", {})
        lines = metric_lines(cast(Mapping[str, Metric], metrics), MAIN)
    if (version := result["model_version"]) is not None:
        lines.append(f"registered {model} version {version} as candidate")
    return [*lines, f"{'bundle':13s} {result['bundle']}", f"{'output':13s} {output}"]
