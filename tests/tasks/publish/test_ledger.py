"""The ledger is read back as it was written, and a missing one is reported."""

from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.shards.records import COLUMNS
from datasets.store.local import LocalStore
from tasks.publish.ledger import LEDGER, count_reasons, ledger_bytes, previous_ledger, read_ledger
from tests.support.card_rows import make_rows


def test_rows_come_back(tmp_path: Path) -> None:
    rows = [row for row in make_rows(30) if row["verdict"] == "accepted"]
    store = LocalStore(tmp_path)
    store.write(LEDGER, ledger_bytes(rows))
    whole = [{name: row[name] for name in COLUMNS} for row in rows]
    assert str(read_ledger(store)) == str(whole)
    part = [{"clip_id": row["clip_id"], "num_frames": row["num_frames"]} for row in rows]
    assert read_ledger(store, ("clip_id", "num_frames")) == part
    assert previous_ledger(store, ("clip_id", "num_frames")) == part


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_one_that_cannot_be_read_is_said(tmp_path: Path, content: bytes | None) -> None:
    store = LocalStore(tmp_path)
    if content is not None:
        store.write(LEDGER, content)
    with pytest.raises(UserError, match=r"does not have a readable ledger.parquet .*refresh"):
        read_ledger(store)
    assert previous_ledger(store, ("clip_id",)) == []


def test_reasons_are_counted_without_what_is_accepted_the_most_frequent_first() -> None:
    given = ["silent", "no_face", "silent", "cut_off", "no_face", "silent"]
    rows = [{"verdict": "rejected", "reason": reason} for reason in given]
    rows += [{"verdict": "accepted", "reason": ""}] * 9
    found = count_reasons(rows)
    assert list(found.items()) == [("silent", 3), ("no_face", 2), ("cut_off", 1)]
    # Equally frequent ones are in alphabetical order.
    equal = [{"verdict": "rejected", "reason": reason} for reason in ("b", "a")]
    assert list(count_reasons(equal)) == ["a", "b"]
