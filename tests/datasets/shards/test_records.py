"""The two forms of a ledger's row."""

from dataclasses import fields
from typing import get_type_hints

from datasets.shards.records import COLUMNS, ClipRow, LedgerRow, complete


def test_a_row_as_a_mapping_has_the_columns_and_types_of_the_ledger() -> None:
    row = ClipRow(path="a.mp4", clip_id="a", num_frames=50)
    assert tuple(row.as_row()) == COLUMNS
    assert {**row.as_row()} == vars(row)
    assert get_type_hints(LedgerRow) == {each.name: each.type for each in fields(ClipRow)}


def test_a_row_of_an_earlier_release_gets_the_newer_columns() -> None:
    row = ClipRow(path="a.mp4", clip_id="a", num_frames=50).as_row()
    older = row.copy()
    del older["bad_share"], older["speech_share"]
    assert tuple(complete(older)) == COLUMNS
    assert complete(older)["num_frames"] == 50
    assert complete(older)["bad_share"] != complete(older)["bad_share"], "NaN"
    assert complete(row) == row
