"""Rows of a ledger as they come from many videos, drawn from a seed, for tests of the card."""

from dataclasses import asdict
from typing import Any

import numpy as np

from datasets.errors import Reason
from datasets.shards.records import ClipRow
from datasets.shards.splits import assign_splits
from tasks.ingest.verdicts import Thresholds, apply_thresholds


def make_rows(count: int, seed: int = 0, speakers: int = 40) -> list[dict[str, Any]]:
    """Judged rows with `split`; about a tenth are files or stretches without a clip."""
    rng = np.random.default_rng(seed)
    splits = assign_splits((f"id{number:05d}" for number in range(speakers)), 0.2)
    draw = {
        "speaker": (rng.random(count) ** 2 * speakers).astype(int),
        "num_frames": rng.integers(50, 251, count),
        "face_px": rng.gamma(6, 30, count) + 20,
        "av_offset_frames": np.round(rng.normal(0.5, 3, count)).clip(-15, 15),
        "sync_confidence": rng.gamma(4, 1.6, count),
        "coverage": 1 - rng.beta(1, 12, count),
        "sharpness": rng.lognormal(3.2, 1.1, count),
        "yaw_deg": np.abs(rng.normal(0, 18, count)),
        "brightness": rng.normal(115, 35, count).clip(0, 255),
    }
    kind = rng.random(count)
    values = {name: column.tolist() for name, column in draw.items()}
    rows = []
    for number in range(count):
        row = ClipRow(path=f"{values['speaker'][number]}/{number // 3}.mp4", scorer="mouth-audio")
        for name, column in values.items():
            setattr(row, name, column[number])
        row.speaker = f"id{values['speaker'][number]:05d}"
        row.clip_id = f"clip-{number}"
        if kind[number] < 0.04:
            row = ClipRow(path=row.path, speaker=row.speaker, reason="unreadable", stage="decode")
        elif kind[number] < 0.1:
            row = ClipRow(
                path=row.path, speaker=row.speaker, num_frames=90, reason="no_face", stage="faces"
            )
        elif kind[number] < 0.15:
            row.reason, row.stage = Reason.SILENT.value, "audio"
            row.av_offset_frames = row.sync_confidence = float("nan")
        rows.append(row.as_row())
    judged = apply_thresholds(rows, Thresholds())
    return [{**row, "split": splits[row["speaker"]]} for row in judged]


def make_index(rows: list[dict[str, Any]], **others: Any) -> dict[str, Any]:
    """An index that goes with the rows."""
    good = [row for row in rows if row["verdict"] == "accepted"]
    counts = {
        split: sum(row["split"] == split for row in good)
        for split in sorted({row["split"] for row in good})
    }
    shards = [
        {"name": f"{split}-000000-abcd0123.tar", "split": split, "samples": n, "bytes": n * 400_000}
        for split, n in counts.items()
    ]
    return {
        "digest": "d" * 64,
        "resolution": 256,
        "fps": 25,
        "sample_rate": 16000,
        "counts": counts,
        "shards": shards,
        "thresholds": asdict(Thresholds()),
        "source": "hdtf",
        **others,
    }
