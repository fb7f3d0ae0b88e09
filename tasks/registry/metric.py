"""The content of evaluations: numbers, each with its label and its number of samples, or why
it is missing."""

import math
from typing import NotRequired, TypedDict

NO_FACE = "a face was found in only"
"""Beginning of the reason for numbers that are missing because too few frames show a face."""
MOTIONLESS = "the mouth does not move"
"""The same where the lips stand still."""
NO_SILENCE = "no video was generated from silence"
"""The same where silence was left out."""


class Metric(TypedDict):
    """One number of an evaluation."""

    value: float | None
    """None if it could not be measured."""
    label: str
    """The network or formula that it was measured by."""
    n: int
    """How many clips, frames or windows it is computed over."""
    low: NotRequired[float]
    """Lower end of the 95 % interval, see `tasks.registry.intervals`; set if there is one."""
    high: NotRequired[float]
    """Its upper end."""
    reason: NotRequired[str]
    """Why there is no value; set only if it is missing, and not in older evaluations."""


Strata = dict[str, dict[str, dict[str, Metric]]]
"""Stratum, such as `yaw_deg` -> part, such as `30° and more` -> the numbers of its clips."""


class ClipValues(TypedDict):
    """Numbers of single clips, by which two models can be compared clip by clip."""

    clips: list[str]
    speakers: list[str]
    """Of each clip."""
    values: dict[str, list[float | None]]
    """Metric -> its number for each clip; None where there is none."""
    how: dict[str, str]
    """Metric -> what makes one number of them, one of `tasks.registry.paired.STATISTICS`."""


class Measured(TypedDict):
    """The parts of an evaluation that decide about a model."""

    protocol_digest: str
    """Equal if the numbers of two models can be compared."""
    metrics: dict[str, Metric]
    clip_values: NotRequired[ClipValues]
    """Of what is computed clip by clip; missing in older evaluations."""


class RecordedEvaluation(Measured):
    """An evaluation as stored in a version's tag."""

    judge: NotRequired[str]
    """Address of the model whose sync network judged, if that was not the model's own."""


class Evaluation(Measured):
    """Content of `evaluation.json`."""

    baselines: NotRequired[dict[str, dict[str, Metric]]]
    """Name of a trivial model -> its metrics; missing in older evaluations."""
    strata: NotRequired[Strata]
    """The judged model's numbers by parts of the clips; missing in older evaluations."""
    model_digest: str
    split: NotRequired[str]
    """`test`, or `train` if no speaker is held out; missing in older evaluations."""
    warnings: NotRequired[list[str]]
    """What every reader of the numbers must know; missing in older evaluations."""
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
    """A number with its label; anything but a finite number becomes None, with the reason if
    given."""
    if math.isfinite(value) and n > 0:
        return {"value": float(value), "label": label, "n": int(n)}
    missing: Metric = {"value": None, "label": label, "n": int(n)}
    return {**missing, "reason": reason} if reason else missing
