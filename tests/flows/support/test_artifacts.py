"""Progress is reported now and then, with what is done, how fast, and what is left."""

import logging
import os
from pathlib import Path
from uuid import UUID

import pytest

from flows.support import artifacts
from flows.support.artifacts import ProgressReport, StageBoard, funnel_rows, show_table, span
from flows.support.prefect_local import prefect_server


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


def test_what_has_no_known_end_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = ProgressReport("files", clock=clock)
    for second in range(10):
        clock.now = float(second)
        report(second, None)
    assert capsys.readouterr().out == ("files 4, 60.0 per minute\nfiles 8, 60.0 per minute\n")


def test_what_took_a_moment_has_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = ProgressReport("groups", clock=clock)
    report(0, 12)
    clock.now = 0.03
    report(12, 12)
    assert capsys.readouterr().out == "groups 12/12\n"


def test_what_was_there_before_is_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressReport("files", clock=Clock())(5, 5)
    assert capsys.readouterr().out == ""


def test_prefects_bar_is_made_once_and_moved(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert funnel_rows(5, 3, {"silent": 2}) == [
        {"step": "input files", "count": 5},
        {"step": "clips accepted", "count": 3},
        {"step": "refused: silent", "count": 2},
    ]


class FakeArtifacts:
    """Keeps what Prefect would be sent, and may be out of reach or slow."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls: list[tuple[float, str, str]] = []
        self.broken = False
        self.takes_s = 0.0

    def create(self, key: str, markdown: str) -> UUID:
        self._call(f"create {key}", markdown)
        return UUID(int=7)

    def update(self, artifact: UUID, markdown: str) -> None:
        assert artifact == UUID(int=7)
        self._call("update", markdown)

    def _call(self, what: str, markdown: str) -> None:
        self.calls.append((self.clock.now, what, markdown))
        self.clock.now += self.takes_s
        if self.broken:
            raise ConnectionError("nobody\nanswers")

    def times(self) -> list[float]:
        return [now for now, _, _ in self.calls]


def test_a_board_shows_stages_and_the_funnel() -> None:
    clock = Clock()
    board = StageBoard("key", clock, FakeArtifacts(clock))
    board.stage("download").update(4, 10)
    board.stage("ingest").update(0, 10)
    clock.now = 30.0
    board.stage("download").update(7, 10, running=2, refused=1, note="a|b\nc")
    board.stage("ingest").update(0, 10, running=1)
    board.stage("publish").update(0, 1)
    board.funnel({"silent": 2, "dark": 2, "no_face": 5}, accepted=3)
    assert board.markdown() == (
        "| stage | done | total | running | refused | per minute | left | note |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"
        "| download | 7 | 10 | 2 | 1 | 6.0 | 30 s | a\\|b c |\n"
        "| ingest | 0 | 10 | 1 | 0 | – | – |  |\n"
        "| publish | 0 | 1 | 0 | 0 | – | – |  |\n"
        "\n"
        "| clips so far | count |\n"
        "| --- | ---: |\n"
        "| accepted | 3 |\n"
        "| refused: no\\_face | 5 |\n"
        "| refused: dark | 2 |\n"
        "| refused: silent | 2 |\n"
    )


def test_the_rate_of_a_stage_that_is_done_stays() -> None:
    clock = Clock()
    line = StageBoard("key", clock, FakeArtifacts(clock)).stage("ingest")
    line.update(0, 2)
    clock.now = 60.0
    line.update(2, 2)
    clock.now = 600.0
    line.update(2, 2)
    assert line.cells() == ("ingest", "2", "2", "0", "0", "2.0", "–", "")


def test_the_board_is_shown_at_once_then_every_few_seconds() -> None:
    clock = Clock()
    fake = FakeArtifacts(clock)
    board = StageBoard("key", clock, fake)
    for tenth in range(101):
        clock.now = tenth / 10
        board.stage("ingest").update(tenth, 200)
        board.funnel({"silent": tenth})
    assert fake.times() == [0.0, 4.0, 8.0]
    assert [what for _, what, _ in fake.calls] == ["create key", "update", "update"]
    board.flush()
    assert "| ingest | 100 | 200 |" in fake.calls[-1][2]
    assert "| refused: silent | 100 |" in fake.calls[-1][2]
    board.flush()
    assert len(fake.calls) == 4


def test_a_prefect_that_does_not_answer_costs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    fake = FakeArtifacts(clock)
    fake.broken, fake.takes_s = True, 1.0
    board = StageBoard("key", clock, fake)
    with caplog.at_level(logging.WARNING):
        for second in (0, 5, 10, 12, 23):
            clock.now = float(second)
            board.stage("ingest").update(second, 30)
    # A second of waiting is followed by ten without a call.
    assert fake.times() == [0.0, 12.0, 23.0]
    assert caplog.messages == ["Prefect cannot show progress, but the run goes on: nobody"]
    fake.broken = False
    board.flush()
    assert fake.calls[-1][1] == "create key"


def test_bars_and_tables_do_not_end_a_run_either(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(artifacts, "create_progress_artifact", fail)
    monkeypatch.setattr(artifacts, "create_table_artifact", fail)
    clock = Clock()
    report = ProgressReport("files", "key", clock)
    for second in (0, 5, 10):
        clock.now = float(second)
        report(second, 10)
    assert len(caplog.messages) == 1
    show_table("key", [{"a": 1}], "table")
    assert len(caplog.messages) == 2


@pytest.mark.e2e
def test_a_real_server_keeps_one_artifact_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_HOME, temporary_settings

    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))

    @flow(name="boards")
    def boards() -> None:
        clock = Clock()
        board = StageBoard("board", clock)
        for second in (0, 4, 8):
            clock.now = float(second)
            board.stage("ingest").update(second, 10)
        board.funnel({"silent": 2}, accepted=6)
        board.flush()

    with temporary_settings({PREFECT_HOME: tmp_path}), prefect_server():
        boards()
        boards()
        with get_client(sync_client=True) as client:
            found = client.read_artifacts()
            latest = client.read_latest_artifacts()
    # One for each run, and the page of the key is that of the last.
    assert [each.key for each in found] == ["board", "board"]
    assert len({each.flow_run_id for each in found}) == 2
    assert len(latest) == 1
    assert latest[0].flow_run_id == max(found, key=lambda each: str(each.created)).flow_run_id
    for shown in (*found, *latest):
        text = shown.model_dump()["data"]
        assert "| ingest | 8 | 10 | 0 | 0 | 60.0 | 2 s |" in text
        assert "| refused: silent | 2 |" in text
