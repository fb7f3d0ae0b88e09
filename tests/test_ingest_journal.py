"""What is finished stays finished exactly as long as nothing it depends on has changed."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import Reason
from datasets.records import ClipRow
from datasets.sources import SourceItem, local_item
from tasks.executor import Outcome
from tasks.ingest import IngestConfig
from tasks.ingest_journal import MAX_RUNS, Journal

CONFIG = IngestConfig()


@pytest.fixture
def item(tmp_path: Path) -> SourceItem:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"video")
    return local_item(path, "a.mp4", "ann")


@pytest.fixture
def journal(tmp_path: Path) -> Callable[..., Journal]:
    def make(config: IngestConfig = CONFIG, deadline_s: float = 10.0) -> Journal:
        return Journal(tmp_path / "staging", config, deadline_s)

    return make


def work(journal: Journal, item: SourceItem) -> dict[str, Any]:
    """What the stage does with a file, without looking at it."""
    from datasets.manifest import content_digest

    name = "x/a-00.mp4"
    (journal.clips / "x").mkdir(parents=True, exist_ok=True)
    (journal.clips / name).write_bytes(b"clip")
    return {
        "digest": content_digest(item.path),
        "rows": [ClipRow(path=item.relative, clip_id="a-00", speaker=item.speaker).as_dict()],
        "clips": [{"clip_id": "a-00", "files": {"mp4": name}}],
        "video_seconds": 2.0,
    }


def finish(journal: Journal, item: SourceItem, reason: Reason = Reason.NONE) -> None:
    journal.begin(item)
    value = None if reason else work(journal, item)
    journal.finish(item, Outcome(item.key, value, reason, "why" if reason else "", 1, 0.5))


def test_a_finished_file_is_remembered(journal: Callable[..., Journal], item: SourceItem) -> None:
    assert journal().finished(item) is None
    finish(journal(), item)
    entry = journal().finished(item)
    assert entry is not None
    assert [row["clip_id"] for row in entry["rows"]] == ["a-00"]


def test_new_bytes_of_the_same_size_count(
    journal: Callable[..., Journal], item: SourceItem
) -> None:
    finish(journal(), item)
    times = item.path.stat()
    item.path.write_bytes(b"VIDEO")
    os.utime(item.path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert journal().finished(item) is None


def test_a_mere_copy_is_not_worked_on_again(
    journal: Callable[..., Journal], item: SourceItem
) -> None:
    finish(journal(), item)
    os.utime(item.path, (1, 1))
    assert journal().finished(item) is not None


def test_lost_clips_and_other_configurations_count(
    journal: Callable[..., Journal], item: SourceItem
) -> None:
    finish(journal(), item)
    other = replace(CONFIG, resolution=512)
    assert journal(other).finished(item) is None
    finish(journal(other), item)
    assert journal().finished(item) is not None, "coming back costs nothing"
    (journal().clips / "x/a-00.mp4").unlink()
    assert journal().finished(item) is None


def test_being_killed_while_a_changed_file_is_worked_on(
    journal: Callable[..., Journal], item: SourceItem
) -> None:
    finish(journal(), item)
    item.path.write_bytes(b"other video")
    second = journal()
    second.begin(item)
    work(second, item)
    item.path.write_bytes(b"video")
    assert journal().finished(item) is None, "the old entry must not speak of the new clips"


def test_failures_are_tried_again_but_not_for_ever(
    journal: Callable[..., Journal], item: SourceItem
) -> None:
    for _ in range(MAX_RUNS):
        assert journal().finished(item) is None
        finish(journal(), item, Reason.TIMED_OUT)
    entry = journal().finished(item)
    assert entry is not None
    row = entry["rows"][0]
    assert (row["reason"], row["stage"], row["detail"]) == ("timed_out", "executor", "why")
    assert journal(deadline_s=20.0).finished(item) is None, "more time is a new chance"
    finish(journal(deadline_s=20.0), item)
    assert journal().finished(item) is not None


def test_names_that_are_no_utf8(tmp_path: Path, journal: Callable[..., Journal]) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    path = tmp_path / name
    path.write_bytes(b"video")
    odd = local_item(path, name, name)
    finish(journal(), odd)
    entry = journal().finished(odd)
    assert entry is not None
    assert entry["rows"][0]["path"] == "caf\\xe9.mp4"


def test_a_file_that_vanished_is_no_crash(
    journal: Callable[..., Journal], item: SourceItem
) -> None:
    item.path.unlink()
    finish(journal(), item, Reason.INTERNAL)
    assert journal().finished(item) is None
