"""What a person reads while a refresh ingests: counts that agree with how it ends."""

from pathlib import Path

import pytest

from datasets.errors import Reason
from datasets.shards.records import ClipRow
from datasets.sources.items import local_item
from flows.support import refresh_text
from flows.support.refresh_text import RefreshProgress
from tasks.ingest.journal_entries import GroupEntry, SourceEntry
from tasks.ingest.verdicts import Thresholds
from tasks.runtime.stage import StageProgress
from tests.support.finished_groups import clip_row


class Board:
    """Stands for Prefect's page."""

    def __init__(self, key: str) -> None:
        self.shown: dict[str, int] = {}

    def stage(self, name: str) -> "Board":
        return self

    def update(self, *numbers: int) -> None: ...

    def funnel(self, reasons: dict[str, int], accepted: int) -> None:
        self.shown = {**reasons, "accepted": accepted}

    def flush(self) -> None: ...


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> RefreshProgress:
    monkeypatch.setattr(refresh_text, "StageBoard", Board)
    return RefreshProgress(4, 2, Thresholds(min_confidence=3.0))


def group(number: int, *names: str) -> GroupEntry:
    """Files with one clip each; names with "dim" are refused, with "mute" have no clip."""
    sources = []
    for name in names:
        row = clip_row(
            local_item(Path(name), name, "ann"), confidence=1.0 if "dim" in name else 5.0
        )
        if "mute" in name:
            row = ClipRow(name, reason=Reason.SILENT.value)
        sources.append(SourceEntry(name, [row.as_row()], []))
    return GroupEntry(number, sources)


def test_the_last_line_has_all_clips_those_of_earlier_runs_too(
    progress: RefreshProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier, last = group(0, "a.mp4", "dim.mp4", "changed.mp4"), group(1, "changed.mp4", "mute.mp4")
    progress.start_from([earlier], {"changed.mp4", "mute.mp4"})
    progress.tell([StageProgress(2, 2, 0, 9.0)])
    assert capsys.readouterr().out == "", "the last group is not stored yet"
    progress.count(last)
    progress.end([group(0, "a.mp4", "dim.mp4"), last])
    assert capsys.readouterr().out == "ingest: files 4/4, 2 clips good, 1 refused\n"
    assert progress.board.shown == {"accepted": 2, "low_confidence": 1, "silent": 1}  # type: ignore[attr-defined]


def test_what_is_dropped_does_not_count(
    progress: RefreshProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.end([group(0, "a.mp4", "b.mp4")], ["a.mp4"])
    assert "1 clips good, 0 refused" in capsys.readouterr().out
