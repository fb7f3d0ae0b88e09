"""Progress is told now and then, with what is done, how fast, and what is left."""

import pytest

from flows import artifacts
from flows.artifacts import ProgressReport, funnel, span


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_every_few_seconds_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = ProgressReport("files", clock=clock)
    for second in range(13):
        clock.now = float(second)
        report(10 + second, 22, "all good" if second else "")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "files 14/22, all good, 60.0 per minute, about 8 s left",
        "files 18/22, all good, 60.0 per minute, about 4 s left",
        "files 22/22, all good, 60.0 per minute",
    ]


def test_what_was_there_before_is_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressReport("files", clock=Clock())(5, 5)
    assert capsys.readouterr().out == ""


def test_prefects_bar_is_made_once_and_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    from uuid import UUID

    made = UUID(int=7)
    calls: list[tuple[str, float]] = []

    def create(progress: float, **_: str) -> UUID:
        calls.append(("create", progress))
        return made

    def update(artifact: UUID, progress: float, **_: str) -> None:
        assert artifact == made
        calls.append(("update", progress))

    monkeypatch.setattr(artifacts, "create_progress_artifact", create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", update)
    clock = Clock()
    report = ProgressReport("files", "key", clock)
    for second in (0, 5, 6, 10):
        clock.now = float(second)
        report(second, 10)
    assert calls == [("create", 50.0), ("update", 100.0)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.4, "3 s"), (59.6, "1 min 0 s"), (725, "12 min 5 s"), (7260, "2 h 1 min")],
)
def test_spans_of_time(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_the_funnel_goes_from_files_to_clips() -> None:
    assert funnel(5, 3, {"silent": 2}) == [
        {"step": "input files", "count": 5},
        {"step": "refused: silent", "count": 2},
        {"step": "accepted clips", "count": 3},
    ]
