"""What evaluations say: numbers, each with its label and how many things it is taken over, or why
there is none."""

import math
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np

NO_FACE = "a face was found in only"
"""Begins the reason of numbers that lack one in too many frames."""


class Metric(TypedDict):
    """One number of an evaluation."""

    value: float | None
    """None where it could not be measured."""
    label: str
    """By which network or formula, in words."""
    n: int
    """How many clips, frames or windows it is taken over."""
    reason: NotRequired[str]
    """Why there is no value; only where there is none, and not in older evaluations."""


class Measured(TypedDict):
    """What of an evaluation decides about a model."""

    protocol_digest: str
    """Equal where the numbers of two models compare."""
    metrics: dict[str, Metric]


class RecordedEvaluation(Measured):
    """An evaluation as a version's tag keeps it."""

    judge: NotRequired[str]
    """Address of the model whose sync network judged, where that was not the model's own."""


class Evaluation(Measured):
    """Content of `evaluation.json`."""

    model_digest: str
    split: NotRequired[str]
    """`test`, or `train` where no speaker is held out; older evaluations do not say it."""
    warnings: NotRequired[list[str]]
    """What whoever reads the numbers must know; not in older evaluations."""
    clips: list[str]
    config: dict[str, object]
    """Of `EvaluationConfig`."""
    device: str
    bf16: bool
    mask: str
    crop: str
    reference: str
    seconds: float


def metric(value: float, label: str, n: int, reason: str = "") -> Metric:
    """A number with its label; what is no finite number becomes None, with the reason if given."""
    if math.isfinite(value) and n > 0:
        return {"value": float(value), "label": label, "n": int(n)}
    missing: Metric = {"value": None, "label": label, "n": int(n)}
    return {**missing, "reason": reason} if reason else missing


def mean_metric(values: Sequence[float], label: str, reason: str = "") -> Metric:
    """Mean of the finite values; `reason` says why there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return metric(float(np.mean(finite)) if finite else math.nan, label, len(finite), reason)


def median_metric(values: Sequence[float], label: str, reason: str = "") -> Metric:
    """Median of the finite values; `reason` says why there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return metric(float(np.median(finite)) if finite else math.nan, label, len(finite), reason)
