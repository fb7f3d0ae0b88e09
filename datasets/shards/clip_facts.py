"""What a published dataset knows of some clips, wherever it says so: in the table of clips that
the index names, or in the ledger."""

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from datasets.errors import UserError
from datasets.shards.index import FOLDER, DatasetIndex
from datasets.store.protocol import Store

LEDGER = "ledger.parquet"
"""Name of the ledger beside the index; copies from object storage come without it."""


def read_facts(
    store: Store, index: DatasetIndex, clip_ids: Collection[str], columns: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Clip -> column -> value; what nobody knows is left out.

    Args:
        store: the dataset's store.
        index: its index.
        clip_ids: the clips.
        columns: names of columns, some of which may exist.

    Raises:
        UserError: a table is damaged.
    """
    names = [LEDGER]
    if "clips" in index:
        names.insert(0, f"{FOLDER}/{index['clips']['name']}")
    found: dict[str, dict[str, Any]] = {clip_id: {} for clip_id in clip_ids}
    for name in names:
        for row in _rows(store, name, clip_ids, columns):
            known = found[row.pop("clip_id")]
            for column, value in row.items():
                # NaN stands for what was not measured.
                if value is not None and value == value and value != "":
                    known.setdefault(column, value)
    return found


def _rows(
    store: Store, name: str, clip_ids: Collection[str], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of these clips in a table; none where there is no table."""
    try:
        with store.open(name) as file:
            source = pyarrow.parquet.ParquetFile(file)
            kept = [each for each in columns if each in source.schema_arrow.names]
            table = source.read(columns=["clip_id", *kept], use_threads=False)
            ids = pyarrow.array(sorted(clip_ids), pyarrow.string())
            wanted = pyarrow.compute.is_in(table["clip_id"].cast(pyarrow.string()), ids)
            return list(table.filter(wanted).to_pylist())
    except FileNotFoundError:
        return []
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f"the table {store.url}/{name} cannot be read ({error}): refresh the dataset again"
        ) from error
