"""What is finished stays finished exactly as long as nothing it depends on has changed."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.errors import Reason, UserError
from datasets.sources import How, Part, SourceItem, local_item
from datasets.store import LocalStore
from tasks.ingest_config import IngestConfig
from tasks.ingest_journal import MAX_RUNS, Journal
from tests.finished_groups import clip_row, finish_group

CONFIG = IngestConfig()
MakeJournal = Callable[..., Journal]


@pytest.fixture
def item(tmp_path: Path) -> SourceItem:
    return make_item(tmp_path, "a.mp4")


def make_item(folder: Path, name: str) -> SourceItem:
    path = folder / name
    path.write_bytes(f"video {name}".encode("utf-8", "surrogateescape"))
    return local_item(path, name, "ann")


@pytest.fixture
def journal(tmp_path: Path) -> MakeJournal:
    def make(config: IngestConfig = CONFIG, deadline_s: float = 10.0) -> Journal:
        return Journal(LocalStore(tmp_path / "out"), config, deadline_s)

    return make


def finish(journal: Journal, *items: SourceItem, reason: Reason = Reason.NONE) -> None:
    for group in journal.plan(items):
        rows = {item.key: [clip_row(item)] for item in group.items}
        reasons = {item.key: reason for item in group.items} if reason else {}
        finish_group(journal, group, rows, reasons)


def clip_ids(journal: Journal) -> list[str]:
    return [
        row["clip_id"]
        for entry in journal.entries()
        for source in entry.sources
        for row in source.rows
    ]


def test_a_finished_file_is_remembered(journal: MakeJournal, item: SourceItem) -> None:
    assert not journal().finished(item)
    finish(journal(), item)
    assert journal().finished(item)
    assert clip_ids(journal()) == ["a-0"]


def test_new_bytes_of_the_same_size_count(journal: MakeJournal, item: SourceItem) -> None:
    finish(journal(), item)
    times = item.path.stat()
    item.path.write_bytes(b"VIDEO a.mp4")
    os.utime(item.path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not journal().finished(item)
    finish(journal(), item)
    assert journal().finished(item)
    assert clip_ids(journal()) == ["a-0"], "the older group's clip no longer counts"


def test_a_mere_copy_is_not_worked_on_again(journal: MakeJournal, item: SourceItem) -> None:
    finish(journal(), item)
    os.utime(item.path, (1, 1))
    assert journal().finished(item)
    before = {path: path.stat().st_mtime_ns for path in item.path.parent.rglob("*.json")}
    assert journal().finished(item)
    assert before == {path: path.stat().st_mtime_ns for path in item.path.parent.rglob("*.json")}


def test_other_annotations_count(journal: MakeJournal, item: SourceItem) -> None:
    finish(journal(), item)
    assert not journal().finished(replace(item, parts=(Part("a", 0.0, 1.0),)))


def test_lost_shards_and_other_configurations_count(journal: MakeJournal, item: SourceItem) -> None:
    finish(journal(), item)
    other = replace(CONFIG, resolution=512)
    assert not journal(other).finished(item)
    finish(journal(other), item)
    assert journal().finished(item), "coming back costs nothing"
    (entry,) = journal().entries()
    journal().store.delete(journal().shard_name(entry.shards[0]))
    assert not journal().finished(item)
    with pytest.raises(UserError, match="lacks 1 clips"):
        journal().must_hold({"a-0"})


def test_failures_are_tried_again_but_not_for_ever(journal: MakeJournal, item: SourceItem) -> None:
    for _ in range(MAX_RUNS):
        assert not journal().finished(item)
        finish(journal(), item, reason=Reason.TIMED_OUT)
    assert journal().finished(item)
    (row,) = [row for entry in journal().entries() for each in entry.sources for row in each.rows]
    assert (row["reason"], row["stage"], row["detail"]) == ("timed_out", "executor", "why")
    assert not journal(deadline_s=20.0).finished(item), "more time is a new chance"
    finish(journal(deadline_s=20.0), item)
    assert journal().finished(item)


def test_what_cannot_be_had_is_not_asked_for_again(journal: MakeJournal, item: SourceItem) -> None:
    gone = replace(item, how=How.PAGE, location="https://example.invalid/watch")
    finish(journal(), gone, reason=Reason.UNAVAILABLE)
    assert journal().finished(gone)
    (entry,) = journal().entries()
    assert entry.sources[0].rows[0]["stage"] == "download"
    other = replace(gone, key="b", location="https://example.invalid/other")
    finish(journal(), other, reason=Reason.DOWNLOAD_FAILED)
    assert not journal().finished(other)


def test_remote_files_count_by_their_version(journal: MakeJournal, item: SourceItem) -> None:
    remote = replace(item, how=How.FILE, location="s3://bucket/a.mp4", version="one")
    finish(journal(), remote)
    assert journal().finished(remote)
    assert not journal().finished(replace(remote, version="two"))


def test_a_plan_that_was_interrupted_is_carried_out(journal: MakeJournal, tmp_path: Path) -> None:
    items = [make_item(tmp_path, f"{name}.mp4") for name in "abc"]
    groups = journal().plan(items[1:])
    assert [group.number for group in groups] == [0, 1]
    again = journal().plan([*items, make_item(tmp_path, "d.mp4")])
    assert again[:2] == groups
    assert [[each.key for each in group.items] for group in again[2:]] == [["a.mp4"], ["d.mp4"]]
    assert [group.number for group in again] == [0, 1, 2, 3]


def test_what_changed_is_told(journal: MakeJournal, tmp_path: Path) -> None:
    items = [make_item(tmp_path, f"{name}.mp4") for name in "abcd"]
    finish(journal(), *items[:3])
    finish(journal(), items[3], reason=Reason.TIMED_OUT)
    items[1].path.write_bytes(b"other")
    new = make_item(tmp_path, "e.mp4")
    changes = journal().changes([*items[1:], new])
    assert changes.counts() == {"new": 1, "changed": 1, "again": 1, "kept": 1, "gone": 1}
    assert [item.key for item in changes.todo] == ["e.mp4", "b.mp4", "d.mp4"]
    assert changes.gone == ["a.mp4"]


def test_what_is_forgotten_does_not_come_back(journal: MakeJournal, item: SourceItem) -> None:
    finish(journal(), item)
    item.path.write_bytes(b"other")
    finish(journal(), item)
    journal().forget(["a.mp4"])
    assert clip_ids(journal()) == []
    assert not journal().finished(item)


def test_names_that_are_no_utf8(tmp_path: Path, journal: MakeJournal) -> None:
    odd = make_item(tmp_path, os.fsdecode(b"caf\xe9.mp4"))
    finish(journal(), odd)
    assert journal().finished(odd)
    (entry,) = journal().entries()
    assert entry.sources[0].rows[0]["path"] == "caf\\xe9.mp4"


def test_a_file_that_vanished_is_no_crash(journal: MakeJournal, item: SourceItem) -> None:
    item.path.unlink()
    finish(journal(), item, reason=Reason.INTERNAL)
    assert not journal().finished(item)


def test_a_good_result_outlives_a_failed_attempt_on_a_new_state(
    journal: MakeJournal, item: SourceItem
) -> None:
    finish(journal(), item)
    item.path.write_bytes(b"damaged for now")
    for _ in range(MAX_RUNS):
        assert not journal().finished(item)
        finish(journal(), item, reason=Reason.TIMED_OUT)
        assert clip_ids(journal()) == ["a-0"]
    assert journal().finished(item), "tried often enough"
    item.path.write_bytes(b"mended")
    assert not journal().finished(item)
    finish(journal(), item)
    assert journal().finished(item)
    assert len(list(journal().entries())) == MAX_RUNS + 2


def test_a_server_that_does_not_answer_changes_nothing(
    journal: MakeJournal, item: SourceItem
) -> None:
    remote = replace(item, how=How.FILE, location="https://x.invalid/a.mp4", version="one")
    finish(journal(), remote)
    assert journal().finished(replace(remote, version=""))
    assert not journal().finished(replace(remote, version="", sha256="0" * 64))


def test_what_the_source_says_of_a_file_counts(journal: MakeJournal, item: SourceItem) -> None:
    finish(journal(), item)
    for other in (replace(item, speaker="bob"), replace(item, split="test")):
        assert not journal().finished(other)


def test_shards_without_an_entry_are_swept(journal: MakeJournal, item: SourceItem) -> None:
    finish(journal(), item)
    mine = journal()
    (entry,) = mine.entries()
    stray = f"{mine.prefix}/shards/train-000009-00-0123abcd.tar"
    mine.store.write(stray, "left over")
    mine.sweep()
    assert mine.store.size(stray) is None
    assert mine.store.size(mine.shard_name(entry.shards[0]))
