"""Distributions of the scores of a dataset's clips, for accepted and refused ones separately."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from datasets.media import FPS
from datasets.shards.records import COLUMNS

BINS = 40
TAILS = 0.002
"""Largest share of clips outside the plot at either end."""


@dataclass(frozen=True)
class Score:
    """How a column is shown."""

    column: str
    title: str
    unit: str
    limits: tuple[str, ...] = ()
    """Names of its thresholds."""
    mirrored: bool = False
    """Whether the threshold applies on both sides of zero."""
    ends: tuple[float, float] | None = None
    """Ends of the plot, if the score itself determines them."""
    bins: int = BINS
    step: float = 0.0
    """Step between possible values; 0 if any value is possible."""
    log: bool = False
    """Whether it is shown on a logarithmic scale."""


SCORES = (
    Score(
        "av_offset_frames",
        "Audio offset before correction",
        "frames (25 fps), right: audio late",
        ("max_offset_frames",),
        mirrored=True,
        ends=(-15.5, 15.5),
        bins=31,
    ),
    Score(
        "sync_confidence", "Confidence in the offset", "units of the scorer", ("min_confidence",)
    ),
    Score("seconds", "Length of clips", "s", step=1 / FPS),
    Score("face_px", "Face size", "pixels in the source", ("min_face_px",)),
    Score("sharpness", "Sharpness", "variance of the Laplacian", ("min_sharpness",), log=True),
    Score("yaw_deg", "Turn of the head", "degrees of yaw", ("max_yaw_deg",), ends=(0.0, 90.0)),
    Score(
        "brightness",
        "Brightness",
        "mean grey level",
        ("min_brightness", "max_brightness"),
        ends=(0.0, 255.0),
    ),
    Score(
        "coverage",
        "Coverage",
        "share of frames with a detected face",
        ("min_coverage",),
        ends=(0.0, 1.0),
    ),
)


@dataclass(frozen=True)
class Distribution:
    """Counts of clips over the values of one score."""

    name: str
    """Title of the column, with the scorer if there are several."""
    title: str
    unit: str
    edges: tuple[float, ...]
    """Edges of the bins, one more than counts."""
    accepted: tuple[int, ...]
    refused: tuple[int, ...]
    limits: tuple[float, ...]
    """Thresholds."""
    outside: int
    """Clips outside the edges; they are counted in the first or last bin."""
    unmeasured: int
    """Clips without a value, which are in no bin."""
    quantiles_accepted: tuple[float, float, float] | None
    """5th percentile, median and 95th percentile; None without a clip."""
    quantiles_refused: tuple[float, float, float] | None
    log: bool = False


def distributions(clips: pd.DataFrame, thresholds: Mapping[str, Any]) -> tuple[Distribution, ...]:
    """Distributions of every score that at least one clip has.

    Args:
        clips: rows that have a clip; `accepted` says whether it is in the dataset.
        thresholds: name -> value, or scorer -> value for `min_confidence`.
    """
    clips = clips.assign(seconds=clips["num_frames"] / FPS)
    found = []
    for score in (*SCORES, *_others(clips)):
        if score.column == "sync_confidence":
            # Confidences of different scorers have different units.
            measured = clips[np.isfinite(clips[score.column].astype(float))]
            for scorer in sorted(measured["scorer"].unique()):
                part = clips[clips["scorer"] == scorer]
                found.append(_distribution(score, part, thresholds, str(scorer)))
        else:
            found.append(_distribution(score, clips, thresholds, ""))
    return tuple(each for each in found if each is not None)


def _others(clips: pd.DataFrame) -> list[Score]:
    """Scores in the ledger other than those known here."""
    known = {score.column for score in SCORES} | set(COLUMNS)
    return [
        Score(str(name), str(name), "")
        for name in clips.columns
        if name not in known and pd.api.types.is_float_dtype(clips[name])
    ]


def _distribution(
    score: Score, clips: pd.DataFrame, thresholds: Mapping[str, Any], scorer: str
) -> Distribution | None:
    values = clips[score.column].to_numpy(dtype=float, na_value=np.nan)
    measured = np.isfinite(values)
    if not measured.any():
        return None
    good = clips["accepted"].to_numpy(dtype=bool)
    limits = _limits(score, thresholds, scorer)
    edges = _edges(score, values[measured], limits)
    low, high = edges[0], edges[-1]
    accepted, refused = values[measured & good], values[measured & ~good]
    outside = int(((values[measured] < low) | (values[measured] > high)).sum())
    return Distribution(
        name=f"{score.column}-{scorer}" if scorer else score.column,
        title=f"{score.title}, {scorer}" if scorer else score.title,
        unit=score.unit,
        edges=tuple(float(edge) for edge in edges),
        accepted=_counts(accepted, edges),
        refused=_counts(refused, edges),
        limits=limits,
        outside=outside,
        unmeasured=int((~measured).sum()),
        quantiles_accepted=_quantiles(accepted),
        quantiles_refused=_quantiles(refused),
        log=score.log,
    )


def _counts(values: np.ndarray, edges: np.ndarray) -> tuple[int, ...]:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    return tuple(int(count) for count in counts)


def _limits(score: Score, thresholds: Mapping[str, Any], scorer: str) -> tuple[float, ...]:
    found = []
    for name in score.limits:
        value = thresholds.get(name)
        if isinstance(value, Mapping):
            value = value.get(scorer)
        if value is not None:
            found += [-float(value), float(value)] if score.mirrored else [float(value)]
    return tuple(found)


def _edges(score: Score, values: np.ndarray, limits: tuple[float, ...]) -> np.ndarray:
    if score.ends is not None:
        return np.linspace(*score.ends, score.bins + 1)
    if score.log:
        positive = values[values > 0]
        values = positive if len(positive) else np.ones(1)
    low, high = np.quantile(values, [TAILS, 1 - TAILS])
    low, high = min(low, *limits, high), max(high, *limits, low)
    if score.log:
        low = max(low, 1e-6)
        return np.geomspace(low / 1.05, max(high, low) * 1.05, score.bins + 1)
    if score.step:
        # Every bin holds equally many of the possible values; its edges lie between them.
        steps = max(1, math.ceil((high - low) / score.step / score.bins))
        first, last = (math.floor(value / score.step / steps + 1e-9) for value in (low, high))
        return (np.arange(first, last + 2) * steps - 0.5) * score.step
    margin = 0.02 * (high - low) or max(0.5, 0.02 * abs(high))
    return np.linspace(low - margin, high + margin, score.bins + 1)


def _quantiles(values: np.ndarray) -> tuple[float, float, float] | None:
    if not len(values):
        return None
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return float(low), float(middle), float(high)
