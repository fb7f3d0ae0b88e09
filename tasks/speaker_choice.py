"""Which of several faces speaks: at most one clip is kept for each moment of a video."""

from collections.abc import Sequence

from datasets.errors import Reason
from datasets.records import ClipRow
from tasks.sync_score import DEFAULT_MIN_CONFIDENCE

SHARED = 0.2
"""Share of the shorter clip that two clips must have in common to exclude each other."""


def refuse_other_faces(
    rows: Sequence[ClipRow],
    before: Sequence[ClipRow] = (),
    min_confidence: float = DEFAULT_MIN_CONFIDENCE,
) -> None:
    """Mark clips at whose time another face was chosen, in place.

    A face whose lips follow the audio for sure comes first, the surest before others; where
    there is none, the largest face does. Rows with a reason are out already; those in `before`
    were chosen for good.
    """
    open_rows = [row for row in rows if not row.reason]
    order = sorted(open_rows, key=lambda row: _preference(row, min_confidence), reverse=True)
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
