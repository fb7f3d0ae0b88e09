"""The ledger: one row per clip, and at least one per file, as a Parquet file."""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from datasets.errors import UserError
from datasets.shards import clip_facts
from datasets.shards.records import COLUMNS, ClipRow, LedgerRow, Verdict
from datasets.store.protocol import Store

LEDGER = clip_facts.LEDGER
Row = Mapping[str, Any]


def select_accepted(rows: Sequence[Row]) -> list[Row]:
    """Mask of the rows whose clips belong in shards."""
    return [row for row in rows if row["verdict"] == Verdict.ACCEPTED.value]


def count_reasons(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows were refused for each reason, the most frequent first."""
    counts = Counter(row["reason"] for row in rows if row["verdict"] != Verdict.ACCEPTED.value)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def ledger_order(row: Row) -> tuple[Any, ...]:
    """Sort the ledger's rows by file, and within a file by time."""
    return row["path"], row["start_s"], row["track"], row["clip_id"]


def read_ledger(store: Store, columns: Sequence[str] | None = None) -> list[LedgerRow]:
    """Read the published ledger, with some columns or all.

    Raises:
        UserError: there is no ledger, or it is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        content = pyarrow.BufferReader(store.read(LEDGER))
        table = pyarrow.parquet.read_table(content, columns=columns and list(columns))
    except (FileNotFoundError, pyarrow.ArrowInvalid) as error:
        raise UserError(
            f"{store.url} does not have a readable {LEDGER} ({error}): refresh the dataset again"
        ) from error
    return list(table.to_pylist())


def previous_ledger(store: Store, columns: Sequence[str]) -> list[LedgerRow]:
    """Columns of an earlier version's ledger; empty if it cannot be read."""
    try:
        return read_ledger(store, columns)
    except UserError:
        return []


def ledger_bytes(rows: Sequence[Row]) -> bytes:
    """The ledger as a Parquet file, with the columns `datasets.shards.records.COLUMNS`."""
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(each.name, kinds[each.type]) for each in fields(ClipRow)])  # type: ignore[index]
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), buffer)
    return buffer.getvalue()
