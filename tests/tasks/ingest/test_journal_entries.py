"""Which of several attempts at a source counts."""

from pathlib import Path

import pytest

from datasets.errors import Reason
from datasets.store.local import LocalStore
from tasks.ingest.config import IngestConfig
from tasks.ingest.journal import Journal
from tasks.ingest.journal_entries import Changes, GroupEntry, SourceEntry, Worth
from tests.support.finished_groups import clip_row, finish_group
from tests.tasks.ingest.test_journal import clip_ids, finish, make_item, refuse


def journal_of(folder: Path) -> Journal:
    return Journal(LocalStore(folder / "out"), IngestConfig(), 10.0)


def test_what_was_there_to_its_end_is_not_given_up_for_a_part(tmp_path: Path) -> None:
    item = make_item(tmp_path, "a.mp4")

    def half() -> None:
        for group in journal_of(tmp_path).plan([item]):
            finish_group(
                journal_of(tmp_path), group, {item.key: [clip_row(item)]}, notes={item.key: "half"}
            )

    assert not journal_of(tmp_path).had_whole(item)
    half()
    assert journal_of(tmp_path).finished(item)
    assert not journal_of(tmp_path).had_whole(item), "more of it is better"
    item.path.write_bytes(b"whole")
    finish(journal_of(tmp_path), item)
    assert journal_of(tmp_path).had_whole(item)
    item.path.write_bytes(b"half")
    refuse(journal_of(tmp_path), item, Reason.UNREADABLE)
    assert journal_of(tmp_path).had_whole(item)
    assert clip_ids(journal_of(tmp_path)) == ["a-0"]
    (row,) = journal_of(tmp_path).set_aside()
    assert row["reason"] == "unreadable"


def test_an_attempt_that_came_to_less_outlives_its_shards(tmp_path: Path) -> None:
    item = make_item(tmp_path, "a.mp4")
    finish(journal_of(tmp_path), item)
    item.path.write_bytes(b"")
    refuse(journal_of(tmp_path), item, Reason.EMPTY_FILE)
    entry = list(journal_of(tmp_path).entries())[-1]
    assert not entry.sources
    journal_of(tmp_path).repack(entry.number, entry.shards)
    assert journal_of(tmp_path).finished(item), "the same state is not looked at again"
    assert len(journal_of(tmp_path).set_aside()) == 1


AGAIN = {
    Reason.TIMED_OUT,
    Reason.WORKER_DIED,
    Reason.INTERNAL,
    Reason.DOWNLOAD_FAILED,
    Reason.NOT_READ,
}
"""What the machine or the network did, not the file."""


@pytest.mark.parametrize("reason", [each for each in Reason if each.value])
def test_only_what_the_file_is_not_to_blame_for_is_worth_another_run(reason: Reason) -> None:
    entry = SourceEntry("a.mp4", [], [], reason=reason.value)
    assert entry.failed is (reason in AGAIN)
    not_had = entry.failed or reason in (Reason.UNAVAILABLE, Reason.NOT_ALLOWED)
    assert entry.worth is (Worth.NOT_HAD if not_had else Worth.REFUSED)


def test_what_was_read_is_worth_most() -> None:
    read = SourceEntry("a.mp4", [], [])
    assert not read.failed
    assert read.worth is Worth.READ
    assert Worth.NOT_HAD < Worth.REFUSED < Worth.READ


def test_an_entry_comes_back_from_its_json_as_it_was(tmp_path: Path) -> None:
    finish(journal_of(tmp_path), make_item(tmp_path, "a.mp4"))
    (entry,) = journal_of(tmp_path).entries()
    assert entry.shards
    assert GroupEntry.from_record(entry.as_record()) == entry


def test_changes_are_counted_and_named_by_kind(tmp_path: Path) -> None:
    names = ["new-b", "new-a", "changed", "again", "kept"]
    new_b, new_a, changed, again, kept = (make_item(tmp_path, f"{name}.mp4") for name in names)
    found = Changes([new_b, new_a], [changed], [again], [kept], ["gone.mp4"])
    assert found.todo == [new_b, new_a, changed, again]
    assert found.counts() == {"new": 2, "changed": 1, "again": 1, "kept": 1, "gone": 1}
    assert found.first_names(1) == {
        "new": ["new-a.mp4"],
        "changed": ["changed.mp4"],
        "gone": ["gone.mp4"],
    }
