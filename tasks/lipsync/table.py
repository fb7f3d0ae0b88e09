"""A table of jobs: CSV, Parquet or JSON lines, one job per row, with a job's options as columns."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.errors import UserError
from datasets.store.atomic import write_atomic
from tasks.lipsync.job import OPTIONS, LipSyncJob, check_outputs, job_of

KINDS = (".csv", ".parquet", ".jsonl")
FOLDER = "videos"
"""Where outputs go for which the table has no place."""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    number: int
    """Counted from 1."""
    values: dict[str, Any]
    """What it says, with what holds for all rows."""
    job: LipSyncJob | None
    """None: it is none,"""
    mistake: str = ""
    """for this reason."""

    @property
    def name(self) -> str:
        """What it is called in a message."""
        return f"row {self.number}"


def read_rows(table: Path, folder: Path, shared: Mapping[str, Any]) -> list[Row]:
    """The jobs of a table.

    A row that asks for something impossible is kept, with the reason.

    Args:
        table: .csv, .parquet or .jsonl; empty cells mean that an option is not given.
        folder: where outputs are put that the table does not name.
        shared: options of all rows, which a row may overrule.

    Raises:
        UserError: the table cannot be read, has columns that no job has, or two rows would write
            the same file.
    """
    lines = _read(table)
    if not lines:
        raise UserError(f"the table {table} has no rows: it needs one for each job")
    columns = dict.fromkeys(name for line in lines for name in line)
    for name in columns:
        if name not in OPTIONS:
            near = get_close_matches(str(name), OPTIONS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(
                f"the table {table} has a column {name!r}, which no job has: {hint}"
                f"columns are {', '.join(OPTIONS)}"
            )
    width = len(str(len(lines)))
    rows = []
    for number, line in enumerate(lines, 1):
        given = {name: value for name, value in line.items() if not _is_empty(value)}
        values = {**shared, **given}
        if not values.get("output") and values.get("video"):
            stem = Path(str(values["video"])).stem[:80]
            values["output"] = str(folder / FOLDER / f"{number:0{width}d}-{stem}.mp4")
        try:
            rows.append(Row(number, values, job_of(values)))
        except UserError as error:
            rows.append(Row(number, values, None, str(error)))
    check_outputs([(row.name, row.job) for row in rows if row.job])
    return rows


def _is_empty(value: Any) -> bool:
    return value in (None, "") or (isinstance(value, float) and math.isnan(value))


def _read(table: Path) -> list[dict[str, Any]]:
    kind = table.suffix.lower()
    if kind not in KINDS:
        raise UserError(f"the table {table} must be {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    try:
        if kind == ".parquet":
            return list(pq.read_table(table).to_pylist())
        if kind == ".csv":
            with table.open(encoding="utf-8-sig", newline="") as file:
                return _of_csv(csv.DictReader(file))
        lines = table.read_text(encoding="utf-8-sig").splitlines()
        return [_of_json(number, text) for number, text in enumerate(lines, 1) if text.strip()]
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"the table {table} cannot be read: {error}") from error


def _of_csv(reader: "csv.DictReader[str]") -> list[dict[str, Any]]:
    found = []
    for line in reader:
        if None in line:
            raise ValueError(
                f"line {reader.line_num} has more cells than the heading: put text with commas "
                "into quotation marks"
            )
        found.append(dict(line))
    return found


def _of_json(number: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"line {number} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"line {number} is no JSON object")
    return found


def write_results(folder: Path, results: Sequence[Mapping[str, Any]]) -> tuple[Path, Path]:
    """Write `results.csv` and `results.jsonl`, one row per job, each whole or not at all."""
    csv_path, lines_path = (folder / f"results.{kind}" for kind in ("csv", "jsonl"))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(results[0]), lineterminator="\n")
    writer.writeheader()
    for each in results:
        writer.writerow({**each, "notes": "; ".join(each["notes"])})
    write_atomic(csv_path, text.getvalue())
    lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in results]
    write_atomic(lines_path, "".join(lines))
    return csv_path, lines_path
