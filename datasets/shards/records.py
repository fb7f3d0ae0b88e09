"""The rows of the ledger, one per clip.

The columns are an interface: notebooks and dashboards of users read them. Scores are
stored as measured; `verdict` and `reason` are the result of the current thresholds.
"""

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TypedDict, cast

from datasets.errors import Reason


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    """The clip is in a shard."""
    REJECTED = "rejected"
    """The clip is not in a shard, and `reason` says why."""
    DUPLICATE = "duplicate"
    """The clip is not in a shard, since the content of its file is published from another one."""


class LedgerRow(TypedDict, total=False):
    """A `ClipRow` as a mapping, as stored in the journal and the ledger: all columns, or those
    that were requested. Ledgers of earlier releases do not have the newer columns."""

    path: str
    clip_id: str
    shot: int
    track: int
    speaker: str
    start_s: float
    end_s: float
    num_frames: int
    face_px: float
    av_offset_frames: float
    sync_confidence: float
    scorer: str
    verdict: str
    reason: str
    stage: str
    detail: str
    coverage: float
    sharpness: float
    yaw_deg: float
    brightness: float
    sync_distance: float
    quality: float
    duplicate_of: str
    offset_uncertainty: float
    bad_share: float
    worst_second: float
    speech_share: float
    language: str


@dataclass
class ClipRow:
    """A row of `ledger.parquet`. Every input file has at least one."""

    path: str
    """Source file, relative to the input folder, with forward slashes."""
    clip_id: str = ""
    """Unique key of the clip; empty if the file gave no clip at all."""
    shot: int = -1
    """Index of the shot in the file, from 0; -1 if not known."""
    track: int = -1
    """Index of the face track in the file, from 0; -1 if there is none."""
    speaker: str = ""
    """The speaker; train and test never share one."""
    start_s: float = 0.0
    """Start of the clip, seconds after the first video frame."""
    end_s: float = 0.0
    """End of the clip, seconds after the first video frame."""
    num_frames: int = 0
    """Length in frames at 25 fps."""
    face_px: float = 0.0
    """Median side of the face's bounding box, in pixels of the source video."""
    av_offset_frames: float = float("nan")
    """Audio delay in frames at 25 fps before correction; positive: audio late."""
    sync_confidence: float = float("nan")
    """The scorer's confidence in the offset."""
    scorer: str = ""
    """Name of the scorer that measured offset and confidence."""
    verdict: str = Verdict.REJECTED.value
    """A `Verdict`."""
    reason: str = Reason.NONE.value
    """A `Reason`; empty if accepted."""
    stage: str = ""
    """The step that decided: probe, decode, faces, audio, sync, verdict, executor."""
    detail: str = ""
    """What exactly was found, in one line."""
    coverage: float = float("nan")
    """Share of the clip's frames in which the face was detected."""
    sharpness: float = float("nan")
    """Variance of the Laplacian of the aligned face in grey levels, median over frames."""
    yaw_deg: float = float("nan")
    """Median absolute yaw of the head, degrees."""
    brightness: float = float("nan")
    """Mean grey level of the aligned face, 0 to 255."""
    sync_distance: float = float("nan")
    """Distance of lips and sound at the offset (Sync-D); NaN where the scorer has none."""
    quality: float = float("nan")
    """Image quality by HyperIQA, 0 to 100, mean over some frames of the aligned face; NaN where
    its weights were not there."""
    duplicate_of: str = ""
    """Path of the source whose clips are published in place of this one's; otherwise empty."""
    offset_uncertainty: float = float("nan")
    """The true offset is this close to `av_offset_frames`, frames, in 19 of 20 clips; NaN if it is
    not known. Smaller offsets are not corrected."""
    bad_share: float = float("nan")
    """Share of the frames that were judged not to belong to the sound, 0 to 1; NaN if they were not
    judged."""
    worst_second: float = float("nan")
    """Least evidence in any second that lips and sound belong together, log-likelihood ratio in
    nats per second."""
    speech_share: float = float("nan")
    """Share of frames in which somebody speaks (silero-vad), 0 to 1."""
    language: str = ""
    """Language of the sound as the container says it, such as `eng`; empty if it says none."""

    def as_row(self) -> LedgerRow:
        """All columns as a mapping."""
        return cast(LedgerRow, asdict(self))


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(ClipRow))
"""Column names of the ledger, in order."""
_EMPTY = ClipRow(path="").as_row()


def complete(row: LedgerRow) -> LedgerRow:
    """A row with all columns: those that an earlier release did not have are empty."""
    return cast(LedgerRow, {**_EMPTY, **row})
