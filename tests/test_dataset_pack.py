"""Packing gives the same bytes for the same clips, and takes nothing that is not its own."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from datasets.errors import UserError
from datasets.records import COLUMNS
from datasets.shards import read_index, read_samples, verify
from datasets.sources import SourceItem, local_item
from datasets.store import LocalStore
from tasks import dataset_pack
from tasks.dataset_pack import PackConfig, check_output, ledger_bytes
from tasks.ingest_file import IngestConfig
from tasks.ingest_journal import Journal
from tasks.publish import Published, publish, settings_of
from tasks.verdicts import Thresholds
from tests.finished_groups import clip_row, finish_group

PACKING = PackConfig(resolution=64, test_fraction=0.3)
SPEAKERS = 6


def items(folder: Path) -> list[SourceItem]:
    """Two videos of each speaker."""
    made = []
    for number in range(2 * SPEAKERS):
        path = folder / f"s{number // 2}" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"video" * (number + 1))
        made.append(local_item(path, f"s{number // 2}/{number}.mp4", f"s{number // 2}"))
    return made


def ingest(out: Path, sources: list[SourceItem], thresholds: Thresholds | None = None) -> None:
    """Three clips of each source, of confidence 2 to 7."""
    journal = Journal(LocalStore(out), IngestConfig(), 0.0)
    for group in journal.plan(sources):
        rows = {
            item.key: [
                clip_row(item, number, 2 + (sources.index(item) * 3 + number) % 6)
                for number in range(3)
            ]
            for item in group.items
        }
        finish_group(journal, group, rows, thresholds=thresholds)


def issue(out: Path, thresholds: Thresholds | None = None, **packing: Any) -> Published:
    store = LocalStore(out)
    config = replace(PACKING, **packing)
    journal = Journal(store, IngestConfig(), 0.0)
    return publish(store, journal, thresholds or Thresholds(), config, {})


def content(out: Path) -> dict[str, bytes]:
    """What readers see."""
    names = ["index.json", "ledger.parquet"]
    files = [out / name for name in names] + sorted(out.glob("shards/*.tar"))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture
def sources(tmp_path: Path) -> list[SourceItem]:
    return items(tmp_path / "in")


@pytest.fixture
def out(tmp_path: Path, sources: list[SourceItem]) -> Path:
    ingest(tmp_path / "out", sources)
    return tmp_path / "out"


def test_the_same_clips_give_the_same_bytes(
    tmp_path: Path, out: Path, sources: list[SourceItem]
) -> None:
    ingest(tmp_path / "again", sources)
    assert issue(out).digest == issue(tmp_path / "again").digest
    assert content(out) == content(tmp_path / "again")


def test_shards_hold_the_accepted_clips_split_by_speaker(out: Path) -> None:
    made = issue(out)
    speakers: dict[str, set[str]] = {"train": set(), "test": set()}
    owner = {row["clip_id"]: row["speaker"] for row in made.rows}
    found: list[str] = []
    for entry in read_index(out)["shards"]:
        for key, members in read_samples(LocalStore(out), f"shards/{entry['name']}"):
            assert members["mp4"].startswith(f"mp4 of {key} ".encode())
            speakers[entry["split"]].add(owner[key])
            found.append(key)
    good = [row["clip_id"] for row in dataset_pack.accepted(made.rows)]
    assert sorted(found) == sorted(good)
    assert len(good) == 30
    assert speakers["train"]
    assert speakers["test"]
    assert not speakers["train"] & speakers["test"]
    assert verify(out) == []


def test_official_splits_come_first(tmp_path: Path, sources: list[SourceItem]) -> None:
    official = [
        replace(item, split="test" if item.speaker in ("s1", "s4") else "train") for item in sources
    ]
    ingest(tmp_path / "out", official)
    made = issue(tmp_path / "out")
    owner = {row["clip_id"]: row["speaker"] for row in made.rows}
    for entry in read_index(tmp_path / "out")["shards"]:
        for key, _ in read_samples(LocalStore(tmp_path / "out"), f"shards/{entry['name']}"):
            assert (entry["split"] == "test") == (owner[key] in ("s1", "s4"))


@pytest.mark.parametrize("confidence", [1.0, 4.5, 6.5, 99.0])
def test_other_thresholds_later_are_as_if_they_had_been_there_from_the_start(
    tmp_path: Path, out: Path, sources: list[SourceItem], confidence: float
) -> None:
    issue(out)
    before = content(out)
    other = Thresholds(min_confidence=confidence)
    made = issue(out, other)
    ingest(tmp_path / "fresh", sources, other)
    assert issue(tmp_path / "fresh", other).digest == made.digest
    assert content(out) == content(tmp_path / "fresh")
    assert issue(out).previous == made.digest
    assert content(out) == before


def test_another_share_for_testing_moves_speakers(
    tmp_path: Path, out: Path, sources: list[SourceItem]
) -> None:
    first = issue(out)
    assert issue(out, test_fraction=0.8).digest != first.digest
    ingest(tmp_path / "fresh", sources)
    issue(tmp_path / "fresh", test_fraction=0.8)
    assert content(out) == content(tmp_path / "fresh")


def test_being_killed_while_publishing_is_made_good(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any write: what readers see stays whole, and the next run ends where it should."""
    issue(out)
    stricter = Thresholds(min_confidence=6.5)
    shutil.copytree(out, out.parent / "undisturbed")
    issue(out.parent / "undisturbed", stricter)

    class Killed(BaseException):
        pass

    rounds = 0
    while True:
        left = rounds

        def limited(name: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        for method in ("write", "link", "put", "delete"):
            original = getattr(LocalStore, method)

            def wrapped(self: LocalStore, *arguments: Any, original: Any = original) -> Any:
                limited(str(arguments[0]))
                return original(self, *arguments)

            monkeypatch.setattr(LocalStore, method, wrapped)
        try:
            issue(out, stricter)
            done = True
        except Killed:
            done = False
        monkeypatch.undo()
        assert verify(out) == []
        if done:
            break
        rounds += 1
    assert rounds > 10
    assert content(out) == content(out.parent / "undisturbed")


def test_the_ledger_has_the_agreed_columns_in_order(out: Path) -> None:
    made = issue(out)
    table = pyarrow.parquet.read_table(out / dataset_pack.LEDGER)
    assert table.column_names == list(COLUMNS)
    assert table.num_rows == len(made.rows) == 36
    assert table["path"].to_pylist() == sorted(table["path"].to_pylist())
    empty = pyarrow.BufferReader(ledger_bytes([]))
    assert pyarrow.parquet.read_table(empty).num_rows == 0


def test_nothing_is_written_where_nothing_has_changed(out: Path) -> None:
    first = issue(out)
    assert (first.changed, first.previous) == (True, "")
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = issue(out)
    assert (again.changed, again.digest) == (False, first.digest)
    assert files == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    next((out / "shards").glob("*.tar")).unlink()
    assert issue(out).digest == first.digest
    assert verify(out) == []


def test_the_receipt_says_how_it_was_made(tmp_path: Path, out: Path) -> None:
    thresholds = Thresholds(min_confidence=4.0)
    issue(out, thresholds)
    settings = settings_of(LocalStore(out))
    assert settings.ingest == IngestConfig()
    assert settings.thresholds == thresholds
    assert settings.packing == PACKING
    (out / "refresh.json").write_text("{}")
    with pytest.raises(UserError, match="does not say how"):
        settings_of(LocalStore(out))
    with pytest.raises(UserError, match="no dataset"):
        settings_of(LocalStore(tmp_path / "none"))


def test_nothing_accepted_is_still_a_dataset_with_a_ledger(out: Path) -> None:
    made = issue(out, Thresholds(min_confidence=99))
    assert dataset_pack.accepted(made.rows) == []
    assert json.loads((out / "index.json").read_text())["shards"] == []
    assert made.summary()["reasons"] == {"low_confidence": 36}


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    mine = tmp_path / "shards" / "mine.tar"
    mine.parent.mkdir()
    mine.write_bytes(b"precious")
    with pytest.raises(UserError, match="not of a dataset made here"):
        check_output(LocalStore(tmp_path), None)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(UserError, match="no dataset index"):
        check_output(LocalStore(tmp_path), None)


def test_the_output_may_not_lie_in_the_input(tmp_path: Path) -> None:
    for output in (tmp_path, tmp_path / "a" / "b", tmp_path / "x" / ".." / "c"):
        with pytest.raises(UserError, match="inside the input"):
            check_output(LocalStore(output), tmp_path)
    check_output(LocalStore(tmp_path / "out"), tmp_path / "in")
