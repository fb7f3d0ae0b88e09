"""What a version's receipt tells the next one."""

import json
from pathlib import Path
from typing import Any

from datasets.store.local import LocalStore
from tasks.publish.receipt import (
    RECEIPT,
    read_previous_splits,
    read_receipt,
    replaced_versions,
)
from tasks.publish.retention import files_of

SPLITS = {"ann": "test", "bob": "train"}


def store(folder: Path, receipt: Any) -> LocalStore:
    (folder / RECEIPT).write_text(json.dumps(receipt))
    return LocalStore(folder)


def test_speakers_keep_their_splits_while_the_share_for_testing_is_the_same(
    tmp_path: Path,
) -> None:
    kept = store(tmp_path, {"splits": SPLITS, "packing": {"test_fraction": 0.2}})
    assert read_previous_splits(kept, 0.2) == SPLITS
    assert read_previous_splits(kept, 0.3) == {}


def test_without_a_receipt_there_are_no_splits_and_no_shards(tmp_path: Path) -> None:
    nothing = LocalStore(tmp_path)
    assert read_receipt(nothing) is None
    assert read_previous_splits(nothing, 0.2) == {}
    assert replaced_versions(nothing) == []
    for damaged in ("[1, 2]", "{"):
        (tmp_path / RECEIPT).write_text(damaged)
        assert read_receipt(nothing) is None


def test_receipts_of_earlier_releases_lack_some_keys(tmp_path: Path) -> None:
    old = store(tmp_path, {"digest": "d", "previous_shards": ["a.tar"]})
    assert read_previous_splits(old, 0.2) == {}
    assert files_of(replaced_versions(old)) == ["a.tar"]
