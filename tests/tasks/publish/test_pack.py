"""Packing gives the same bytes for the same clips, and takes nothing that is not its own."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from datasets.errors import UserError
from datasets.shards.index import file_sizes, read_index, read_samples, verify
from datasets.shards.records import COLUMNS, ClipRow
from datasets.sources.items import SourceItem, local_item
from datasets.store.local import LocalStore
from tasks.ingest import groups
from tasks.ingest.config import IngestConfig
from tasks.ingest.journal import Journal
from tasks.ingest.journal_entries import GroupEntry, SourceEntry
from tasks.ingest.verdicts import Thresholds
from tasks.publish import group_shards, ledger
from tasks.publish.ledger import ledger_bytes, ledger_order
from tasks.publish.pack import PackConfig, check_output, speaker_splits
from tasks.publish.retention import Retention
from tasks.publish.settings import settings_of
from tasks.publish.version import Published, publish, refuse_losses
from tests.support.finished_groups import clip_row, finish_group

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
    """Three clips of each new source, of confidence 2, 4 and 6 or 5, 7 and 3."""
    journal = Journal(LocalStore(out), IngestConfig(), 0.0)
    for group in journal.plan(journal.changes(sources).todo):
        rows = {
            item.key: [
                clip_row(item, number, 2 + (sources.index(item) * 3 + 2 * number) % 6)
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
    shards = [out / "shards" / each["name"] for each in read_index(out)["shards"]]
    files = [out / name for name in names] + shards
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
    good = [row["clip_id"] for row in ledger.select_accepted(made.rows)]
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


def test_the_data_set_speaks_first_then_earlier_versions_and_then_chance() -> None:
    rows = [{"speaker": name, "verdict": "accepted"} for name in "abcd"]
    group = GroupEntry(0, [SourceEntry("x", [{"speaker": "a"}], [], split="train")])
    splits = speaker_splits([group], rows, 0.0, {"a": "test", "b": "test", "c": "train"})
    assert splits == {"a": "train", "b": "test", "c": "train", "d": "train"}


def test_speakers_stay_where_earlier_versions_put_them(out: Path) -> None:
    issue(out)
    receipt = json.loads((out / "refresh.json").read_text())
    turned = {
        name: {"test": "train", "train": "test"}[at] for name, at in receipt["splits"].items()
    }
    (out / "refresh.json").write_text(json.dumps(receipt | {"splits": turned}))
    issue(out, Thresholds(min_confidence=1.0))
    assert json.loads((out / "refresh.json").read_text())["splits"] == turned


@pytest.mark.parametrize("confidence", [1.0, 4.5, 6.5])
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
    table = pyarrow.parquet.read_table(out / ledger.LEDGER)
    assert table.column_names == list(COLUMNS)
    assert table.num_rows == len(made.rows) == 36
    assert table["path"].to_pylist() == sorted(table["path"].to_pylist())
    order = [("a", 2.0, 0, "x"), ("a", 1.0, 1, "x"), ("a", 1.0, 0, "y"), ("b", 0.0, 0, "x")]
    rows = [dict(zip(("path", "start_s", "track", "clip_id"), each, strict=True)) for each in order]
    assert [order[rows.index(row)] for row in sorted(rows, key=ledger_order)] == sorted(order)
    empty = pyarrow.BufferReader(ledger_bytes([]))
    assert pyarrow.parquet.read_table(empty).num_rows == 0


def test_nothing_is_written_where_nothing_has_changed(out: Path) -> None:
    first = issue(out)
    assert (first.changed, first.previous) == (True, "")
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = issue(out)
    assert (again.changed, again.digest) == (False, first.digest)
    assert files == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for left in (b"", b"half of it"):
        shard = next((out / "shards").glob("*.tar"))
        # Not written into: a finished shard has a second name in staging.
        shard.unlink()
        if left:
            shard.write_bytes(left)
        assert issue(out).digest == first.digest
        assert verify(out) == []


def test_a_shard_that_was_cut_in_place_is_made_anew(out: Path, sources: list[SourceItem]) -> None:
    """It is cut in staging, too: both names are of one file."""
    first = issue(out)
    before = content(out)
    os.truncate(out / "shards" / read_index(out)["shards"][0]["name"], 512)
    assert Journal(LocalStore(out), IngestConfig(), 0.0).changes(sources).todo
    ingest(out, sources)
    again = issue(out)
    assert verify(out) == []
    assert (len(again.rows), again.inputs) == (len(first.rows), first.inputs)
    assert content(out)["ledger.parquet"] == before["ledger.parquet"]


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
    assert ledger.select_accepted(made.rows) == []
    assert json.loads((out / "index.json").read_text())["shards"] == []
    assert made.summary()["reasons"] == {"low_confidence": 36}
    refused = [{"verdict": "rejected", "reason": each} for each in "accbb"]
    assert [*ledger.count_reasons(refused).items()] == [("b", 2), ("c", 2), ("a", 1)]


def test_a_version_with_clips_is_not_replaced_by_one_without(out: Path) -> None:
    issue(out)
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    text = r"no clip would be left \(36 low_confidence\), so .* keeps the version with 30 clips"
    with pytest.raises(UserError, match=text):
        issue(out, Thresholds(min_confidence=99))
    assert files == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


def test_nothing_is_forgotten_if_nothing_would_be_left(
    out: Path, sources: list[SourceItem]
) -> None:
    first = issue(out)
    keys = [item.key for item in sources]
    store, journal = LocalStore(out), Journal(LocalStore(out), IngestConfig(), 0.0)
    with pytest.raises(UserError, match=r"no clip would be left \(no file left\)"):
        publish(store, journal, Thresholds(), PACKING, {}, forget=keys)
    assert issue(out).digest == first.digest
    made = publish(store, journal, Thresholds(), PACKING, {}, forget=keys[1:])
    assert (made.inputs, len(made.rows)) == (1, 3)
    assert issue(out).inputs == 1


def test_shards_stay_for_those_who_read_the_version_before(out: Path) -> None:
    def on_disk() -> set[str]:
        return {path.name for path in (out / "shards").iterdir()}

    def named() -> set[str]:
        return {*file_sizes(read_index(out))}

    issue(out)
    first = named()
    issue(out, Thresholds(min_confidence=4.5))
    second = named()
    assert first - second
    assert on_disk() == first | second
    issue(out, Thresholds(min_confidence=4.5, max_yaw_deg=54.0))
    assert on_disk() == first | second, "the same shards are the same version"
    issue(out, Thresholds(min_confidence=6.5))
    assert on_disk() == first | second | named()


def test_two_sources_with_clips_of_one_name_are_refused(
    tmp_path: Path, sources: list[SourceItem]
) -> None:
    store = LocalStore(tmp_path / "out")
    journal = Journal(store, IngestConfig(), 0.0)
    for group in journal.plan(sources[:2]):
        finish_group(journal, group, {item.key: [clip_row(sources[0])] for item in group.items})
    with pytest.raises(UserError, match=r"s0-0-0 comes from both s0/0.mp4 and s0/1.mp4: give one"):
        publish(store, journal, Thresholds(), PACKING, {})


def test_only_shards_whose_clips_change_are_written_anew(
    tmp_path: Path, sources: list[SourceItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group with clips of both splits: one of them loses a clip."""
    monkeypatch.setattr(groups, "FEWEST_GROUPS", 1)
    out = tmp_path / "out"
    official = [
        replace(item, split="test" if item.speaker == "s1" else "train") for item in sources
    ]
    journal = Journal(LocalStore(out), IngestConfig(), 0.0)
    (group,) = journal.plan(official)
    low = {"s1/2.mp4": 3.5}
    rows = {item.key: [clip_row(item, 0, low.get(item.key, 6.0))] for item in group.items}
    finish_group(journal, group, rows)
    issue(out)
    read: list[str] = []
    original = group_shards.read_samples

    def watched(store: Any, name: str) -> Any:
        read.append(name.rpartition("/")[2].partition("-")[0])
        return original(store, name)

    monkeypatch.setattr(group_shards, "read_samples", watched)
    done: list[tuple[object, ...]] = []
    made = publish(
        LocalStore(out),
        Journal(LocalStore(out), IngestConfig(), 0.0),
        Thresholds(min_confidence=4.0),
        PACKING,
        {},
        on_progress=lambda *counts: done.append(counts),
    )
    assert len(ledger.select_accepted(made.rows)) == 11
    assert read == ["test"]
    assert done == [(0, 1), (1, 1)]
    assert verify(out) == []
    assert issue(out).previous == made.digest
    assert sorted(read) == ["spare", "test", "test"]


def test_a_file_that_cannot_be_used_now_has_a_row_beside_its_clips(
    out: Path, sources: list[SourceItem]
) -> None:
    first = issue(out)
    sources[0].path.write_bytes(b"half")
    journal = Journal(LocalStore(out), IngestConfig(), 0.0)
    for group in journal.plan([sources[0]]):
        row = ClipRow(sources[0].relative, reason="unreadable", stage="decode", detail="cut off")
        finish_group(journal, group, {sources[0].key: [row]})
    second = issue(out)
    assert (second.digest, second.inputs, len(second.rows)) == (first.digest, 12, 37)
    (row_now,) = [row for row in second.rows if row["reason"] == "unreadable"]
    assert row_now["detail"] == "cut off; what the file gave before is kept"
    assert issue(out).digest == first.digest


def test_published_clips_are_not_lost_to_another_configuration(
    out: Path, sources: list[SourceItem]
) -> None:
    store = LocalStore(out)
    issue(out)
    other = Journal(store, IngestConfig(resolution=512), 0.0)
    refuse_losses(store, other, sources)
    text = r"2 files with clips in .*, such as s0/0.mp4, are no longer in the source"
    with pytest.raises(UserError, match=text):
        refuse_losses(store, other, sources[2:])
    refuse_losses(store, Journal(store, IngestConfig(), 0.0), sources[2:])


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    mine = tmp_path / "shards" / "mine.tar"
    mine.parent.mkdir()
    mine.write_bytes(b"precious")
    with pytest.raises(UserError, match="do not belong to a dataset made here"):
        check_output(LocalStore(tmp_path), None)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(UserError, match="not a dataset index"):
        check_output(LocalStore(tmp_path), None)


def test_the_output_may_not_lie_in_the_input(tmp_path: Path) -> None:
    for output in (tmp_path, tmp_path / "a" / "b", tmp_path / "x" / ".." / "c"):
        with pytest.raises(UserError, match="inside the input"):
            check_output(LocalStore(output), tmp_path)
    check_output(LocalStore(tmp_path / "out"), tmp_path / "in")


def test_a_reader_of_an_old_version_meets_no_missing_file(
    tmp_path: Path, sources: list[SourceItem]
) -> None:
    """Three refreshes, each of which makes the test shards anew; whoever began with the first
    version reads on, and what nobody keeps any more is removed."""
    out = tmp_path / "out"
    store = LocalStore(out)
    ingest(out, sources)
    journal = Journal(store, IngestConfig(), 0.0)

    def version(confidence: float, retention: Retention | None = None) -> list[str]:
        thresholds = Thresholds(min_confidence=confidence)
        publish(store, journal, thresholds, PACKING, {}, retention=retention)
        return sorted(file_sizes(read_index(out)))

    first = version(1.0)
    versions = [first, version(2.5), version(3.5), version(4.5)]
    assert len({*map(tuple, versions)}) == 4
    there = {path.name for path in (out / "shards").iterdir()}
    for kept in versions[1:]:
        assert there >= {*kept}
    assert not there >= {*first}
    # The first is gone for good; of those that are there, one more stays if more are kept.
    versions.append(version(5.5, Retention(keep_versions=3)))
    there = {path.name for path in (out / "shards").iterdir()}
    assert all(there >= {*kept} for kept in versions[1:])
    version(6.5, Retention(keep_versions=0))
    there = {path.name for path in (out / "shards").iterdir() if path.suffix == ".tar"}
    assert there == {name for name in file_sizes(read_index(out)) if name.endswith(".tar")}


def test_a_shard_that_is_being_read_outlives_two_refreshes(
    tmp_path: Path, sources: list[SourceItem]
) -> None:
    """Of three refreshes two are within what is kept; the third takes the files away."""
    out = tmp_path / "out"
    store = LocalStore(out)
    ingest(out, sources)
    journal = Journal(store, IngestConfig(), 0.0)

    def version(confidence: float) -> list[str]:
        thresholds = Thresholds(min_confidence=confidence)
        retention = Retention(keep_versions=2)
        publish(store, journal, thresholds, PACKING, {}, retention=retention)
        return [f"shards/{shard['name']}" for shard in read_index(out)["shards"]]

    names = version(1.0)
    expected = {name: [key for key, _ in read_samples(store, name)] for name in names}
    assert sum(map(len, expected.values())) > 1
    seen: dict[str, list[str]] = {name: [] for name in names}
    for name, confidence in ((names[0], 2.5), (names[-1], 3.5)):
        # Begun before the version is replaced, and every shard again after it.
        reader = read_samples(store, name)
        begun = [next(reader)[0]]
        assert set(version(confidence)) != set(names)
        assert begun + [key for key, _ in reader] == expected[name]
        for each in names:
            seen[each] = [key for key, _ in read_samples(store, each)]
        assert seen == expected
    version(4.5)
    gone = [name for name in names if not (out / name).exists()]
    assert gone
    with pytest.raises(UserError, match="cannot be read"):
        list(read_samples(store, gone[0]))
