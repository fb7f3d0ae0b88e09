"""Which clips are good enough: thresholds over the scores in the ledger's rows.

Scores are measured once and kept; only this step decides, so that other thresholds need no
video to be looked at again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets.errors import Reason
from datasets.records import Verdict

Row = dict[str, Any]
STAGE = "verdict"


@dataclass(frozen=True)
class Thresholds:
    """A clip must meet all of these. A score that could not be measured meets none."""

    min_confidence: float = 3.0
    """Smallest confidence in the offset, in the scorer's units; 3 as published."""
    max_offset_frames: float = 12.0
    """Largest delay or lead of the audio that is corrected, frames at 25 fps."""
    min_face_px: float = 48.0
    """Smallest face in the source, pixels."""
    min_coverage: float = 0.8
    """Smallest share of frames on which the face was found."""
    min_sharpness: float = 4.0
    """Smallest variance of the Laplacian, grey levels squared."""
    max_yaw_deg: float = 55.0
    """Furthest turn of the head to a side; beyond it half the mouth is hidden."""
    min_brightness: float = 25.0
    """Darkest face, mean grey level."""
    max_brightness: float = 235.0
    """Brightest face, mean grey level."""


Check = tuple[Reason, str, Callable[[float, Thresholds], bool], Callable[[Thresholds], str]]

CHECKS: tuple[Check, ...] = (
    (
        Reason.FACE_TOO_SMALL,
        "face_px",
        lambda value, limit: value >= limit.min_face_px,
        lambda limit: f"at least {limit.min_face_px:g}",
    ),
    (
        Reason.LOW_COVERAGE,
        "coverage",
        lambda value, limit: value >= limit.min_coverage,
        lambda limit: f"at least {limit.min_coverage:g}",
    ),
    (
        Reason.DARK,
        "brightness",
        lambda value, limit: limit.min_brightness <= value <= limit.max_brightness,
        lambda limit: f"{limit.min_brightness:g} to {limit.max_brightness:g}",
    ),
    (
        Reason.BLURRY,
        "sharpness",
        lambda value, limit: value >= limit.min_sharpness,
        lambda limit: f"at least {limit.min_sharpness:g}",
    ),
    (
        Reason.TURNED_AWAY,
        "yaw_deg",
        lambda value, limit: abs(value) <= limit.max_yaw_deg,
        lambda limit: f"at most {limit.max_yaw_deg:g}",
    ),
    (
        Reason.LOW_CONFIDENCE,
        "sync_confidence",
        lambda value, limit: value >= limit.min_confidence,
        lambda limit: f"at least {limit.min_confidence:g}",
    ),
    (
        Reason.OFFSET_TOO_LARGE,
        "av_offset_frames",
        lambda value, limit: abs(value) <= limit.max_offset_frames,
        lambda limit: f"at most {limit.max_offset_frames:g} to either side",
    ),
)
"""In the order in which they are tried; the first that fails gives the reason."""


def judge(rows: Sequence[Mapping[str, Any]], thresholds: Thresholds) -> list[Row]:
    """Rows with `verdict` set, and `reason`, `stage` and `detail` where a threshold decides.

    Rows that already have a reason keep it.
    """
    return [_judged(row, thresholds) for row in rows]


def _judged(row: Mapping[str, Any], thresholds: Thresholds) -> Row:
    judged = dict(row)
    judged["verdict"] = Verdict.REJECTED.value
    if row["reason"]:
        return judged
    for reason, column, meets, wanted in CHECKS:
        value = float(row[column])
        # NaN fails every comparison, as it should.
        if not meets(value, thresholds):
            detail = f"{column} is {value:.3g}, {wanted(thresholds)} wanted"
            return judged | {"reason": reason.value, "stage": STAGE, "detail": detail}
    return judged | {"verdict": Verdict.ACCEPTED.value, "stage": STAGE, "detail": ""}
