import io
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from datasets.errors import UserError
from datasets.shards.clip_facts import LEDGER, read_facts
from datasets.store.local import LocalStore

WANTED = ("yaw_deg", "language", "speech_share")


def parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def test_facts_come_from_the_table_of_clips_and_then_from_the_ledger(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write(
        "shards/clips-1.parquet",
        parquet(clip_id=["a", "b", "other"], yaw_deg=[1.0, float("nan"), 9.0]),
    )
    store.write(
        LEDGER,
        parquet(clip_id=["a", "b", ""], yaw_deg=[5.0, 6.0, 7.0], language=["en", "", "de"]),
    )
    index: Any = {"clips": {"name": "clips-1.parquet"}}
    found = read_facts(store, index, ["a", "b", "unknown"], WANTED)
    assert found == {"a": {"yaw_deg": 1.0, "language": "en"}, "b": {"yaw_deg": 6.0}, "unknown": {}}
    (tmp_path / LEDGER).unlink()
    assert read_facts(store, index, ["b"], WANTED) == {"b": {}}
    assert read_facts(store, {}, ["a"], WANTED) == {"a": {}}  # type: ignore[typeddict-item]


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    LocalStore(tmp_path).write(LEDGER, b"no table")
    with pytest.raises(UserError, match=r"ledger\.parquet cannot be read"):
        read_facts(LocalStore(tmp_path), {}, ["a"], WANTED)  # type: ignore[typeddict-item]
