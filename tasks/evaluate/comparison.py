"""Several models on the same clips: differences that are sure, and clips where one fails.

A difference is computed over the clips that both models have a number for, drawn together (a paired
bootstrap over speakers and clips within them): what is hard about a clip is hard for both, so far
smaller differences can be told than from the two intervals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from datasets.errors import UserError
from tasks.evaluate.run import read_evaluation
from tasks.evaluate.summary import STATISTICS
from tasks.evaluate.table import MEASUREMENTS, read_measurements, read_speakers
from tasks.registry.metric import Evaluation, Metric, metric
from tasks.registry.paired import paired_interval

BETTER: Mapping[str, Literal["higher", "lower"]] = {
    "sync_c": "higher",
    "sync_d": "lower",
    "sync_offset": "lower",
    "sync_accuracy": "higher",
    "in_sync_share": "higher",
    "mouth_offset": "lower",
    "mouth_z": "higher",
    "follows": "higher",
    "ssim": "higher",
    "ssim_mouth": "higher",
    "psnr_db": "higher",
    "lpips": "lower",
    "identity": "lower",
    "lmd": "lower",
    "lmd_cross": "lower",
    "faces_found": "higher",
    "leak_opening": "lower",
    "leak_moving": "lower",
    "leak_correlation": "lower",
    "closed": "higher",
}
"""Which way is better, of the metrics that are compared clip by clip and have such a way."""
RANKED_BY = ("sync_c", "mouth_z", "ssim_mouth")
"""Metrics by which clips are ranked: the first that all models have."""
Verdict = Literal["better", "worse", "undecided", ""]


@dataclass(frozen=True, eq=False)
class ComparedModel:
    """One model's evaluation."""

    name: str
    folder: Path
    evaluation: Evaluation
    rows: Mapping[str, Mapping[str, float]]
    """Clip -> number -> value."""


@dataclass(frozen=True)
class Difference:
    """How far a model is from the first one in a metric."""

    metric: str
    entry: Metric
    """Its value less the first model's."""

    @property
    def verdict(self) -> Verdict:
        """Whether the interval leaves out 0; empty for a metric without a better way."""
        way, low, high = BETTER.get(self.metric), self.entry.get("low"), self.entry.get("high")
        if way is None or self.entry["value"] is None:
            return ""
        if low is None or high is None or low <= 0 <= high:
            return "undecided"
        return "better" if (low > 0) == (way == "higher") else "worse"


def read_models(folders: Mapping[str, Path]) -> list[ComparedModel]:
    """The evaluations of several models.

    Args:
        folders: name of a model -> folder that its evaluation wrote.

    Raises:
        UserError: a folder holds no evaluation, or they were not made alike.
    """
    models = [
        ComparedModel(
            name, folder, read_evaluation(folder), read_measurements(folder / MEASUREMENTS)
        )
        for name, folder in folders.items()
    ]
    first = models[0]
    for other in models[1:]:
        theirs, ours = (each.evaluation["protocol_digest"] for each in (other, first))
        if theirs != ours:
            raise UserError(
                f"{first.name} and {other.name} were not evaluated on the same clips with the same "
                f"settings and judges (protocol {ours[:8]} against {theirs[:8]}): evaluate both "
                "alike; models made for different references need --reference"
            )
    return models


def paired_differences(first: ComparedModel, other: ComparedModel) -> list[Difference]:
    """Every metric of `other` less that of `first`, over the clips that both have it for.

    Distances of sets have none: they are not made of numbers of clips.
    """
    speakers = read_speakers(first.folder / MEASUREMENTS)
    found = []
    for name, (number, statistic) in STATISTICS.items():
        if name.endswith("_real"):
            continue
        pairs = [
            (clip, values[number], other.rows[clip][number])
            for clip, values in first.rows.items()
            if math.isfinite(values[number]) and math.isfinite(other.rows[clip][number])
        ]
        label = first.evaluation["metrics"][name]["label"]
        if not pairs:
            entry = metric(math.nan, label, 0, "no clip has a number of both")
            found.append(Difference(name, entry))
            continue
        before, after = (np.array([each[side] for each in pairs]) for side in (1, 2))
        own = [speakers[clip] for clip, _, _ in pairs]
        entry = paired_interval(before, after, own, statistic, number, label)
        found.append(Difference(name, entry))
    return found


def rank_clips(models: Sequence[ComparedModel]) -> tuple[str, list[tuple[str, list[float]]]]:
    """The clips, worst first: those where any model is worst.

    Returns:
        The metric that they are ranked by (empty where none is there for all), and each clip with
        its value for each model; NaN where there is none, which is worst.
    """
    clips = list(models[0].rows)
    for name in RANKED_BY:
        number, _ = STATISTICS[name]
        table = {clip: [model.rows[clip][number] for model in models] for clip in clips}
        if not any(any(math.isfinite(each) for each in values) for values in table.values()):
            continue

        def worst(clip: str, table: Mapping[str, list[float]] = table) -> float:
            values = table[clip]
            return min(-math.inf if math.isnan(each) else each for each in values)

        return name, [(clip, table[clip]) for clip in sorted(clips, key=worst)]
    return "", [(clip, [math.nan] * len(models)) for clip in clips]
