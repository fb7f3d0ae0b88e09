"""Journals with groups that were "ingested" without looking at a video."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.errors import Reason
from datasets.shards.records import ClipRow
from datasets.shards.writer import ShardWriter
from datasets.sources.items import How, SourceItem
from datasets.store.local import LocalStore
from tasks.ingest.groups import SourceGroup
from tasks.ingest.journal import Journal
from tasks.ingest.layout import SHARDS, SPARE
from tasks.ingest.verdicts import Thresholds, apply_thresholds
from tasks.runtime.stage import GroupOutcome, Outcome


def clip_row(item: SourceItem, number: int = 0, confidence: float = 5.0) -> ClipRow:
    """A clip with nothing wrong but perhaps its confidence."""
    name = re.sub("[^a-z0-9]", "-", item.key.partition(".")[0])
    row = ClipRow(item.relative, f"{name}-{number}")
    row.speaker, row.num_frames, row.shot, row.track = item.speaker, 50, 0, 0
    row.start_s, row.end_s = 2.0 * number, 2.0 * number + 2
    row.face_px = row.sharpness = row.brightness = 100.0
    row.coverage, row.yaw_deg, row.av_offset_frames = 1.0, 0.0, 2.0
    row.sync_confidence, row.scorer = confidence, "mouth-audio"
    return row


def members(clip_id: str, source: str = "") -> dict[str, bytes]:
    """What a clip's files might be; they depend on the digest of the source's file."""
    kinds = ("mp4", "flac", "npy")
    files = {kind: f"{kind} of {clip_id} {source}".encode() * 20 for kind in kinds}
    return files | {"json": json.dumps({"clip_id": clip_id, "source": source}).encode()}


def finish_group(
    journal: Journal,
    group: SourceGroup,
    rows: Mapping[str, Sequence[ClipRow]],
    reasons: Mapping[str, Reason] | None = None,
    thresholds: Thresholds | None = None,
    split: str = "train",
    notes: Mapping[str, str] | None = None,
    heard: Mapping[str, str] | None = None,
) -> None:
    """Do what a worker does with a group.

    Args:
        journal: keeps it.
        group: as planned.
        rows: of the sources that were read, by key.
        reasons: why others were not, by key; those that are not local files were lost while being
            fetched.
        thresholds: by which clips go to the split or are spare.
        split: of all accepted clips.
        notes: what is wrong with sources that were read all the same, by key.
        heard: which of several streams of sound was taken, by key.
    """
    store = journal.store
    assert isinstance(store, LocalStore)
    begun = journal.begin([group])
    writer = ShardWriter(Path(store.folder) / "scratch", group.number)
    outcomes: list[Outcome] = []
    lost: list[Outcome] = []
    for item in group.items:
        if reason := (reasons or {}).get(item.key):
            where = outcomes if item.how is How.LOCAL else lost
            where.append(Outcome(item.key, None, reason, "why", 1, 0.5))
            continue
        found = [row.as_row() for row in rows[item.key]]
        for row in found:
            if not row["reason"]:
                good = (
                    apply_thresholds([row], thresholds or Thresholds())[0]["verdict"] == "accepted"
                )
                files = members(row["clip_id"], digest(item))
                writer.add(split if good else SPARE, row["clip_id"], files)
        note = (notes or {}).get(item.key, "")
        value = {"digest": digest(item), "rows": found, "video_seconds": 2.0, "note": note}
        value["content"] = digest(item)
        value["heard"] = (heard or {}).get(item.key, "")
        outcomes.append(Outcome(item.key, value, Reason.NONE, "", 1, 0.5))
    made = [shard.as_record() for shard in writer.finish(store, f"{journal.prefix}/{SHARDS}")]
    journal.finish(group, GroupOutcome(group.name, tuple(outcomes), made), lost, begun)


def digest(item: SourceItem) -> str:
    """sha256 of a source's file."""
    from datasets.store.atomic import content_digest

    return content_digest(Path(item.location)) if Path(item.location).is_file() else ""
