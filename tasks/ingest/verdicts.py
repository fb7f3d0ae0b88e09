"""Which clips are good enough: thresholds over the scores in the ledger's rows.

Scores are measured once and kept; only this step decides, so other thresholds do not need a
video to be read again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, isnan, nan
from typing import Any, cast

from datasets.errors import Reason
from datasets.shards.records import LedgerRow, Verdict
from tasks.sync.signals import NO_SCORER, default_min_confidence

STAGE = "verdict"


@dataclass(frozen=True)
class Thresholds:
    """The limits that a clip must all meet. A score that could not be measured meets no limit."""

    min_confidence: float | None = None
    """Smallest confidence in the offset, in the scorer's units; None: the scorer's own
    threshold, `tasks.sync.signals.MIN_CONFIDENCE`."""
    max_offset_frames: float = 12.0
    """Largest correctable delay or lead of the audio, frames at 25 fps."""
    min_face_px: float = 48.0
    """Smallest face in the source, pixels."""
    min_coverage: float = 0.8
    """Smallest share of frames in which the face was found."""
    min_sharpness: float = 4.0
    """Smallest variance of the Laplacian, grey levels squared."""
    max_yaw_deg: float = 55.0
    """Furthest turn of the head to a side, degrees; beyond it half the mouth is hidden."""
    min_brightness: float = 25.0
    """Darkest face, mean grey level."""
    max_brightness: float = 235.0
    """Brightest face, mean grey level."""
    max_bad_share: float | None = 0.5
    """Largest share of frames in which lips and sound do not belong together, where they were
    compared. Clips are cut at such frames, so it is 0 or, where nothing could be kept, 1. None
    means no limit."""
    min_quality: float | None = 40.0
    """Smallest image quality by HyperIQA, 0 to 100 (LatentSync, section 4.1). Only where it was
    measured: without its weights a clip is accepted and its `detail` says so. None means no
    limit."""


Span = tuple[float, float]
Check = tuple[Reason, str, Callable[[Thresholds, Mapping[str, Any]], Span]]


def _confidence(limit: Thresholds, row: Mapping[str, Any]) -> Span:
    if limit.min_confidence is None:
        return default_min_confidence(row["scorer"]), inf
    return limit.min_confidence, inf


CHECKS: tuple[Check, ...] = (
    (Reason.FACE_TOO_SMALL, "face_px", lambda limit, _: (limit.min_face_px, inf)),
    (Reason.LOW_COVERAGE, "coverage", lambda limit, _: (limit.min_coverage, inf)),
    (
        Reason.DARK,
        "brightness",
        lambda limit, _: (limit.min_brightness, limit.max_brightness),
    ),
    (Reason.BLURRY, "sharpness", lambda limit, _: (limit.min_sharpness, inf)),
    (Reason.TURNED_AWAY, "yaw_deg", lambda limit, _: (-limit.max_yaw_deg, limit.max_yaw_deg)),
    (Reason.LOW_CONFIDENCE, "sync_confidence", _confidence),
    (
        Reason.OFFSET_TOO_LARGE,
        "av_offset_frames",
        lambda limit, _: (-limit.max_offset_frames, limit.max_offset_frames),
    ),
)
"""Columns and the ranges of their values, in the order in which they are tried; the first that
fails gives the reason."""
NO_QUALITY = "image quality was not measured"
"""Detail of an accepted clip if the weights of HyperIQA were missing."""


def in_force(thresholds: Thresholds, scorer: str) -> dict[str, float | None]:
    """The thresholds by name, with the scorer's own confidence if none is given.

    Raises:
        UserError: no `min_confidence` is given and there is no such scorer.
    """
    values = asdict(thresholds)
    if thresholds.min_confidence is None:
        values["min_confidence"] = default_min_confidence(scorer)
    return values


def apply_thresholds(rows: Sequence[LedgerRow], thresholds: Thresholds) -> list[LedgerRow]:
    """Rows with `verdict` set, and `reason`, `stage` and `detail` if a threshold decides.

    Rows that already have a reason keep it.

    Raises:
        UserError: no `min_confidence` is given and a row is by a scorer without one of its own.
    """
    return [_apply(row, thresholds) for row in rows]


def _apply(row: LedgerRow, thresholds: Thresholds) -> LedgerRow:
    judged, columns = row.copy(), cast(Mapping[str, Any], row)
    judged["verdict"] = Verdict.REJECTED.value
    if row["reason"]:
        return judged
    for reason, column, span in CHECKS:
        if column == "sync_confidence" and row["scorer"] == NO_SCORER:
            continue
        low, high = span(thresholds, columns)
        # NaN fails every comparison, as it should.
        value = float(columns[column])
        if not low <= value <= high:
            return judged | _refuse(reason, column, value, (low, high))
    if thresholds.max_bad_share is not None:
        # Not compared where the scorer is `none`, nor by earlier releases.
        bad = float(row.get("bad_share", nan))
        if bad > thresholds.max_bad_share:
            limits = (0.0, thresholds.max_bad_share)
            return judged | _refuse(Reason.OTHER_VOICE, "bad_share", bad, limits)
    # What was noticed about the clip; of a row that was judged before it is the earlier verdict's.
    details = [row["detail"]] if row["detail"] and row["stage"] != STAGE else []
    if thresholds.min_quality is not None:
        # Ledgers older than this score have no such column.
        quality = float(row.get("quality", nan))
        if quality < thresholds.min_quality:
            return judged | _refuse(
                Reason.LOW_QUALITY, "quality", quality, (thresholds.min_quality, inf)
            )
        if isnan(quality):
            details.append(NO_QUALITY)
    judged |= {"verdict": Verdict.ACCEPTED.value, "stage": STAGE, "detail": "; ".join(details)}
    return judged


def _refuse(reason: Reason, column: str, value: float, span: Span) -> LedgerRow:
    low, high = span
    if high == inf:
        wanted = f"at least {low:g}"
    elif low == -high:
        wanted = f"at most {high:g} to either side"
    else:
        wanted = f"{low:g} to {high:g}"
    detail = f"{column} is {value:.3g}, {wanted} wanted"
    return {"reason": reason.value, "stage": STAGE, "detail": detail}
