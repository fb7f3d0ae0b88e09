"""What a study found: numbers of every training, their spread, and what becomes of the claims."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

import numpy as np
from scipy import stats

from tasks.registry.metric import Metric
from tasks.studies.study import Claim, Study

LEVEL = 0.95
Verdict = Literal["confirmed", "contradicted", "not confirmed", "not testable"]


@dataclass(frozen=True)
class Number:
    """A held-out number of one training."""

    value: float
    low: float | None = None
    """Lower end of the evaluation's 95 % interval over clips; None where there is none."""
    high: float | None = None


@dataclass(frozen=True)
class Outcome:
    """One training of a study."""

    arm: str
    seed: int
    numbers: dict[str, Number] = field(default_factory=dict)
    """By the metric's name; those that were not measured are missing."""
    seconds: float = 0.0
    """What it cost, without stages that another arm had trained already."""
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """`STAGE.NAME` -> (step, value), for held-out curves."""
    run_id: str = ""
    """The MLflow run."""
    reason: str = ""
    """Why there are no numbers."""

    def as_record(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @classmethod
    def from_record(cls, content: Mapping[str, Any]) -> "Outcome":
        numbers = {name: Number(**each) for name, each in content["numbers"].items()}
        curves = {
            name: [(int(step), float(value)) for step, value in points]
            for name, points in content["curves"].items()
        }
        return cls(**{**content, "numbers": numbers, "curves": curves})


@dataclass(frozen=True)
class Cell:
    """One arm and one metric."""

    values: tuple[float, ...]
    """One for each seed that has the number."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; NaN for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class Judged:
    """A claim and what the trainings say about it."""

    claim: Claim
    verdict: Verdict
    difference: float
    """Mean of the differences, in the direction that is claimed to be better; NaN if untestable."""
    low: float
    """95 % interval of that mean (Student's t over seeds); NaN if there are fewer than two."""
    high: float
    seeds: int


def numbers_of(study: Study, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Number]:
    """The study's numbers among those of a training.

    Args:
        metrics: of a `TrainingResult`: stage, or `evaluation` -> what was measured.
    """
    found = {}
    for each in study.metric:
        stage, _, name = each.name.partition(".")
        measured = metrics.get(stage, {}).get(name)
        if isinstance(measured, Mapping):
            entry = cast(Metric, measured)
            if entry["value"] is not None:
                found[each.name] = Number(entry["value"], entry.get("low"), entry.get("high"))
        elif measured is not None and math.isfinite(measured):
            found[each.name] = Number(float(measured))
    return found


def cell(outcomes: Sequence[Outcome], arm: str, metric: str) -> Cell | None:
    """All values of an arm; None if it has none."""
    values = tuple(
        each.numbers[metric].value
        for each in outcomes
        if each.arm == arm and metric in each.numbers
    )
    return Cell(values) if values else None


def judge(study: Study, outcomes: Sequence[Outcome]) -> list[Judged]:
    """What the trainings say about each claim.

    Arms are compared seed by seed, since trainings of one seed begin with the same weights and see
    the same batches where the arms allow it. A claim is confirmed if the 95 % interval of the mean
    difference lies on its side, contradicted if it lies on the other.
    """
    return [_judge(study, claim, outcomes) for claim in study.claim]


def _judge(study: Study, claim: Claim, outcomes: Sequence[Outcome]) -> Judged:
    better = next(each.better for each in study.metric if each.name == claim.metric)
    sign = 1.0 if better == "higher" else -1.0
    by_arm = {
        arm: {
            each.seed: each.numbers[claim.metric].value
            for each in outcomes
            if each.arm == arm and claim.metric in each.numbers
        }
        for arm in (claim.better, claim.than)
    }
    seeds = sorted(by_arm[claim.better].keys() & by_arm[claim.than].keys())
    if not seeds:
        return Judged(claim, "not testable", math.nan, math.nan, math.nan, 0)
    differences = np.array(
        [sign * (by_arm[claim.better][seed] - by_arm[claim.than][seed]) for seed in seeds]
    )
    mean = float(differences.mean())
    low, high = _interval(differences)
    verdict: Verdict = "not confirmed"
    if low > 0:
        verdict = "confirmed"
    elif high < 0:
        verdict = "contradicted"
    return Judged(claim, verdict, mean, low, high, len(seeds))


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean by Student's t; NaN for a single value."""
    if len(values) < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def table_rows(study: Study, outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """A row for each arm: mean and spread of each metric, and what it cost."""
    rows = []
    for arm in study.arm:
        own = [each for each in outcomes if each.arm == arm.name]
        trained = [each for each in own if not each.reason]
        row: dict[str, object] = {"arm": arm.name, "seeds": len(trained)}
        for metric in study.metric:
            found = cell(own, arm.name, metric.name)
            row[metric.name] = "–" if found is None else _text(found)
        row["minutes"] = round(sum(each.seconds for each in own) / 60, 1)
        row["note"] = "; ".join(dict.fromkeys(each.reason for each in own if each.reason))
        rows.append(row)
    return rows


def claim_rows(judged: Sequence[Judged]) -> list[dict[str, object]]:
    """A row for each claim."""
    return [
        {
            "claim": each.claim.text,
            "metric": each.claim.metric,
            "verdict": each.verdict,
            "difference": "–" if math.isnan(each.difference) else f"{each.difference:+.3g}",
            "95 % interval": "–"
            if math.isnan(each.low)
            else f"{each.low:+.3g} to {each.high:+.3g}",
            "seeds": each.seeds,
        }
        for each in judged
    ]


def _text(found: Cell) -> str:
    spread = "" if math.isnan(found.spread) else f" ± {found.spread:.2g}"
    return f"{found.mean:.4g}{spread}"
