"""The two forms of a ledger's row."""

from dataclasses import fields
from typing import get_type_hints

from datasets.shards.records import COLUMNS, ClipRow, LedgerRow


def test_a_row_as_a_mapping_has_the_columns_and_types_of_the_ledger() -> None:
    row = ClipRow(path="a.mp4", clip_id="a", num_frames=50)
    assert tuple(row.as_row()) == COLUMNS
    assert {**row.as_row()} == vars(row)
    assert get_type_hints(LedgerRow) == {each.name: each.type for each in fields(ClipRow)}
