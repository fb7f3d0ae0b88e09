"""Which of several faces speaks: at most one clip is kept for each moment of a video."""

from collections.abc import Sequence

from datasets.errors import Reason
from datasets.shards.records import ClipRow
from tasks.sync.signals import default_min_confidence

IN_SYNC, LARGEST = "in-sync", "largest"
POLICIES = (IN_SYNC, LARGEST)
SHARED = 0.2
"""Share of the shorter clip that two clips must have in common to exclude each other."""


def refuse_other_faces(
    rows: Sequence[ClipRow],
    before: Sequence[ClipRow] = (),
    min_confidence: float | None = None,
    policy: str = IN_SYNC,
) -> None:
    """Mark, in place, the clips at whose time another face was chosen.

    With `in-sync`, faces whose lips clearly follow the audio come first, the most confident before
    others; without any, and always with `largest`, the largest face comes first. Rows with a
    reason are already excluded.

    Args:
        rows: rows of one video, all by the same scorer.
        before: rows of the same video whose choice is final.
        min_confidence: least confidence at which a face counts as in sync; None: the scorer's own.
        policy: one of `POLICIES`.
    """
    open_rows = [row for row in rows if not row.reason]
    if min_confidence is None:
        limits = {row.scorer: default_min_confidence(row.scorer) for row in open_rows}
    else:
        limits = dict.fromkeys((row.scorer for row in open_rows), min_confidence)
    if policy == LARGEST:
        limits = dict.fromkeys(limits, float("inf"))
    order = sorted(open_rows, key=lambda row: _preference(row, limits[row.scorer]), reverse=True)
    chosen = list(before)
    for row in order:
        rival = next((other for other in chosen if _exclude(row, other)), None)
        if rival is None:
            chosen.append(row)
            continue
        row.reason, row.stage = Reason.NOT_THE_SPEAKER.value, "faces"
        row.detail = f"{rival.clip_id} was chosen for this time"


def _preference(row: ClipRow, min_confidence: float) -> tuple[float, float, str]:
    sure = row.sync_confidence if row.sync_confidence >= min_confidence else 0.0
    return sure, row.face_px, row.clip_id


def _exclude(first: ClipRow, second: ClipRow) -> bool:
    if first.track == second.track:
        return False
    shared = min(first.end_s, second.end_s) - max(first.start_s, second.start_s)
    shorter = min(first.end_s - first.start_s, second.end_s - second.start_s)
    return shared > SHARED * shorter
