"""Which of several attempts at a source counts."""

from pathlib import Path

from datasets.errors import Reason
from datasets.store import LocalStore
from tasks.ingest_config import IngestConfig
from tasks.ingest_journal import Journal
from tests.finished_groups import clip_row, finish_group
from tests.test_ingest_journal import clip_ids, finish, make_item, refuse


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
