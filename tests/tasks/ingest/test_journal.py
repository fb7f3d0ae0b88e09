"""What is finished stays finished exactly as long as nothing it depends on has changed."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import Reason, UserError
from datasets.shards.records import ClipRow
from datasets.shards.writer import Shard
from datasets.sources.items import How, Part, SourceItem, local_item
from datasets.store.local import LocalStore
from tasks.ingest import groups as ingest_groups
from tasks.ingest.config import IngestConfig
from tasks.ingest.journal import MAX_RUNS, Journal
from tasks.runtime.stage import GroupOutcome, Outcome
from tests.support.finished_groups import clip_row, finish_group

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
    def make(config: IngestConfig = CONFIG, deadline_s: float = 10.0, **options: Any) -> Journal:
        return Journal(LocalStore(tmp_path / "out"), config, deadline_s, **options)

    return make


def refuse(journal: Journal, item: SourceItem, reason: Reason, shot: int = -1) -> None:
    """Ingest a file that a worker reads and refuses as a whole, or in one shot."""
    row = ClipRow(item.relative, speaker=item.speaker, reason=reason.value, detail="why", shot=shot)
    for group in journal.plan([item]):
        finish_group(journal, group, {item.key: [row]})


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


@pytest.mark.parametrize(
    "reason", [Reason.UNREADABLE, Reason.EMPTY_FILE, Reason.NOT_MEDIA, Reason.NO_VIDEO]
)
def test_a_refused_state_of_a_file_does_not_void_its_clips(
    journal: MakeJournal, item: SourceItem, reason: Reason
) -> None:
    """As when a file is copied over while the nightly run looks at it."""
    finish(journal(), item)
    item.path.write_bytes(b"half of")
    refuse(journal(), item, reason)
    assert clip_ids(journal()) == ["a-0"]
    (row,) = journal().set_aside()
    assert (row["path"], row["reason"]) == ("a.mp4", reason)
    assert row["detail"] == "why; what the file gave before is kept"
    assert journal().finished(item), "nothing new until the file changes again"
    item.path.write_bytes(b"half of it and the rest")
    assert not journal().finished(item)
    finish(journal(), item)
    assert journal().set_aside() == []
    assert journal().finished(item)


def test_a_file_that_is_as_it_was_has_nothing_set_aside(
    journal: MakeJournal, item: SourceItem
) -> None:
    finish(journal(), item)
    whole = item.path.read_bytes()
    for damaged in (b"half", b"other half"):
        item.path.write_bytes(damaged)
        refuse(journal(), item, Reason.UNREADABLE)
    item.path.write_bytes(whole)
    assert len(journal().set_aside()) == 1
    assert journal().changes([item]).counts()["kept"] == 1
    assert journal().set_aside() == []
    item.path.write_bytes(b"third half")
    refuse(journal(), item, Reason.UNREADABLE)
    assert len(journal().set_aside()) == 1


def test_what_was_read_to_its_end_counts_even_without_clips(
    journal: MakeJournal, item: SourceItem
) -> None:
    finish(journal(), item)
    item.path.write_bytes(b"a landscape")
    refuse(journal(), item, Reason.NO_FACE, shot=0)
    assert [row for row in journal().set_aside() if row] == []
    assert clip_ids(journal()) == [""]


def test_a_source_that_its_list_excludes_has_no_clips(
    journal: MakeJournal, item: SourceItem
) -> None:
    finish(journal(), item)
    refuse(journal(), replace(item, reason=Reason.NOT_ANNOTATED), Reason.NOT_ANNOTATED)
    assert clip_ids(journal()) == [""]


def test_a_file_that_is_written_to_meanwhile_is_tried_again(
    journal: MakeJournal, item: SourceItem
) -> None:
    mine = journal()
    (group,) = mine.plan([item])
    begun = mine.begin([group])
    item.path.write_bytes(b"longer by what came while it was read")
    value = {"digest": "0", "video_seconds": 2.0, "rows": [clip_row(item).as_row()]}
    outcome = Outcome(item.key, value, Reason.NONE, "", 1, 0.5)
    entry = mine.finish(group, GroupOutcome(group.name, (outcome,), None), [], begun)
    assert [row["reason"] for row in entry.sources[0].rows] == ["not_read"]
    assert not journal().finished(item)


@pytest.mark.parametrize("reason", [Reason.UNAVAILABLE, Reason.DOWNLOAD_FAILED, Reason.INTERNAL])
def test_what_the_user_has_mended_is_tried_again_when_asked(
    journal: MakeJournal, item: SourceItem, reason: Reason
) -> None:
    remote = replace(item, how=How.PAGE, location="https://example.invalid/watch")
    for _ in range(MAX_RUNS):
        finish(journal(), remote, reason=reason)
    assert journal().finished(remote)
    again = journal(retry_failed=True)
    assert not again.finished(remote)
    assert again.changes([remote]).counts()["again"] == 1
    finish(again, remote)
    assert journal(retry_failed=True).finished(remote)


def test_more_time_for_downloads_is_a_new_chance_for_downloads_alone(
    journal: MakeJournal, item: SourceItem
) -> None:
    remote = replace(item, how=How.FILE, location="https://example.invalid/a.mp4")
    for _ in range(MAX_RUNS):
        finish(journal(download_deadline_s=60.0), remote, reason=Reason.TIMED_OUT)
    (row,) = [row for entry in journal().entries() for each in entry.sources for row in each.rows]
    assert (row["reason"], row["stage"]) == ("timed_out", "download")
    assert journal(deadline_s=99.0, download_deadline_s=60.0).finished(remote)
    assert not journal(download_deadline_s=61.0).finished(remote)
    local = make_item(item.path.parent, "b.mp4")
    for _ in range(MAX_RUNS):
        finish(journal(), local, reason=Reason.TIMED_OUT)
    assert journal(download_deadline_s=99.0).finished(local)


def test_being_killed_while_planning_changes_no_group(
    journal: MakeJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_groups, "FEWEST_GROUPS", 2)
    items = [make_item(tmp_path, f"{name}.mp4") for name in "abcdefgh"]
    expected = Journal(LocalStore(tmp_path / "undisturbed"), CONFIG, 10.0).plan(items)
    assert [len(group.items) for group in expected] == [4, 4]
    original = LocalStore.write

    class Killed(BaseException):
        pass

    for left in range(3):
        writes = iter(range(left))

        def write(self: LocalStore, name: str, data: bytes | str, writes: Any = writes) -> None:
            if next(writes, None) is None:
                raise Killed
            original(self, name, data)

        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(LocalStore, "write", write)
            journal().plan(items)
        assert journal().plan(items) == expected
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_shards_that_the_driver_does_not_see_end_the_run(
    journal: MakeJournal, item: SourceItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a cluster whose output folder is a disk of each node."""
    mine = journal()
    (group,) = mine.plan([item])
    original = Journal.shard_name

    def elsewhere(self: Journal, shard: Shard) -> str:
        return original(self, shard).replace("shards/", "shards/not/")

    monkeypatch.setattr(Journal, "shard_name", elsewhere)
    with pytest.raises(UserError, match="is not there: use an output on storage that all nodes"):
        finish_group(mine, group, {item.key: [clip_row(item)]})
    monkeypatch.undo()
    assert not journal().finished(item)


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


def test_a_shard_that_is_there_in_part_is_none(
    tmp_path: Path, journal: MakeJournal, item: SourceItem
) -> None:
    finish(journal(), item)
    (entry,) = journal().entries()
    (shard,) = entry.shards
    journal()._must_see(entry.shards)
    path = tmp_path / "out" / journal().shard_name(shard)
    path.write_bytes(b"half")
    with pytest.raises(
        UserError, match=r"with \d+ bytes, but in .* on this machine it has 4 bytes"
    ):
        journal()._must_see(entry.shards)
    path.unlink()
    with pytest.raises(UserError, match="is not there: use an output on storage that all"):
        journal()._must_see(entry.shards)
