"""All measurements of an evaluation as a table: one row per clip, model and metric."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from datasets.errors import UserError
from datasets.store.atomic import write_atomic
from tasks.evaluate.measurement import MODEL, ClipRecord

MEASUREMENTS = "measurements.parquet"
SCHEMA = pyarrow.schema(
    [
        ("clip_id", pyarrow.string()),
        ("speaker", pyarrow.string()),
        ("model", pyarrow.string()),
        ("metric", pyarrow.string()),
        ("value", pyarrow.float64()),
        ("reason", pyarrow.string()),
        ("face_px", pyarrow.float64()),
        ("yaw_deg", pyarrow.float64()),
        ("speech_share", pyarrow.float64()),
        ("language", pyarrow.string()),
    ]
)
"""`model` is `model` or a trivial model; what is known of a clip stands in each of its rows."""

Facts = Mapping[str, Mapping[str, Any]]
"""Clip -> column -> what the dataset knows of it."""


def write_measurements(path: Path, records: Sequence[ClipRecord], facts: Facts) -> None:
    """Write the table; its bytes depend only on what is in it.

    Args:
        path: the Parquet file.
        records: of all clips, in their order.
        facts: what the dataset knows of them.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for record in records:
        known = facts.get(record.clip_id, {})
        for model, found in record.models.items():
            for name, value in found.values.items():
                row = {
                    "clip_id": record.clip_id,
                    "speaker": record.speaker,
                    "model": model,
                    "metric": name,
                    "value": value if math.isfinite(value) else None,
                    "reason": found.reasons.get(name, ""),
                }
                for column, values in columns.items():
                    values.append(row[column] if column in row else known.get(column))
    buffer = io.BytesIO()
    table = pyarrow.table(columns, schema=SCHEMA)
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())


def read_measurements(path: Path, model: str = MODEL) -> dict[str, dict[str, float]]:
    """Clip -> number -> value of one model, NaN where there is none; clips in their order.

    Raises:
        UserError: there is no such table.
    """
    found: dict[str, dict[str, float]] = {}
    for row in _read(path):
        if row["model"] == model:
            value = row["value"]
            clip = found.setdefault(row["clip_id"], {})
            clip[row["metric"]] = math.nan if value is None else value
    return found


def read_speakers(path: Path) -> dict[str, str]:
    """Clip -> speaker.

    Raises:
        UserError: there is no such table.
    """
    return {row["clip_id"]: row["speaker"] for row in _read(path)}


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        table = pyarrow.parquet.read_table(path).cast(SCHEMA)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path} is not the table of an evaluation ({error}): run evaluate_latentsync again"
        ) from error
    return list(table.to_pylist())
