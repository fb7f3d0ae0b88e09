"""Curves on their way to MLflow: every point arrives once, whatever goes away meanwhile."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.recipes.recipe import recipe
from tasks.registry.tracking import RunTracker, client
from tasks.train import delivery
from tasks.train.curves import Curve
from tasks.train.delivery import Delivery, delivering, read_points
from tasks.train.stages import TrainingJob


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = RunTracker(uri, "m").start_run("syncnet")
    output = tmp_path / "out"
    (output / "syncnet").mkdir(parents=True)
    return TrainingJob(
        tmp_path, output, recipe("debug"), tracking_uri=uri, runs=(("syncnet", run),)
    )


def curve(job: TrainingJob) -> Curve:
    return Curve(job.output / "syncnet" / "metrics.jsonl")


def arrived(job: TrainingJob, name: str = "loss") -> list[int]:
    history = client(job.tracking_uri).get_metric_history(job.runs[0][1], name)
    return [point.step for point in history]


def test_every_point_arrives_once_after_ten_kills(job: TrainingJob) -> None:
    """A kill leaves points behind the checkpoint, which are then made a second time."""
    rng = random.Random(4)
    done = 0
    for _ in range(10):
        points = curve(job)
        points.cut(done)
        sender = Delivery(job, print)
        stop = done + rng.randrange(5, 40)
        for step in range(done + 1, stop + 1):
            points.write(step, {"loss": 1 / step, "lr": 0.1})
            if rng.random() < 0.3:
                sender.send()
        done = stop - rng.randrange(0, 5)
    points = curve(job)
    points.cut(done)
    points.write(done + 1, {"loss": 0.5, "lr": 0.1})
    Delivery(job, print).send()
    expected = sorted(set(range(1, done + 2)) | set(arrived(job)))
    for name in ("loss", "lr"):
        found = arrived(job, name)
        assert sorted(found) == sorted(set(found)) == expected


def test_an_answer_that_is_lost_does_not_send_points_twice(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve(job).write(1, {"loss": 1.0})
    real = RunTracker.log_points

    def sent_but_unanswered(tracker: RunTracker, points: Any) -> None:
        real(tracker, points)
        raise ConnectionError("the answer was lost")

    sender = Delivery(job, print)
    monkeypatch.setattr(RunTracker, "log_points", sent_but_unanswered)
    with pytest.raises(ConnectionError):
        sender.send()
    monkeypatch.setattr(RunTracker, "log_points", real)
    curve(job).write(2, {"loss": 0.5})
    sender.send()
    assert arrived(job) == [1, 2]


def test_a_server_that_is_away_is_said_once_and_costs_no_point(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    sender = Delivery(job, lines.append)
    attach = RunTracker.attach

    def away(uri: str, run_id: str) -> RunTracker:
        raise ConnectionError("refused")

    for step in range(1, 4):
        curve(job).write(step, {"loss": 1.0})
        monkeypatch.setattr(RunTracker, "attach", away)
        sender.try_to_send()
    assert lines == ["MLflow does not answer: training goes on, and curves are sent later"]
    monkeypatch.setattr(RunTracker, "attach", attach)
    sender.try_to_send()
    assert lines[1:] == ["MLflow answers again: the curves are complete"]
    assert arrived(job) == [1, 2, 3]


def test_points_are_sent_while_the_block_runs_and_the_rest_at_its_end(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "INTERVAL_S", 0.01)

    def waited() -> Iterator[bool]:
        while not arrived(job):
            yield False

    with delivering(job, print):
        curve(job).write(1, {"loss": 1.0})
        assert not any(waited())
    curve(job).write(2, {"loss": 1.0})
    with pytest.raises(KeyboardInterrupt), delivering(job, print):
        raise KeyboardInterrupt
    assert arrived(job) == [1, 2]


def test_half_a_line_is_read_when_it_is_whole(job: TrainingJob) -> None:
    path = job.output / "syncnet" / "metrics.jsonl"
    whole = json.dumps({"step": 1, "loss": 2.0}) + "\n"
    path.write_text(whole + '{"step": 2, "lo')
    assert list(read_points(path)) == [("loss", 2.0, 1)]
    assert list(read_points(path.with_name("none"))) == []


def test_without_a_store_nothing_is_sent(job: TrainingJob) -> None:
    Delivery(replace(job, tracking_uri=""), print).send()
    assert arrived(job) == []


def test_videos_arrive_beside_the_curves(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    log = RunTracker.log_artifact

    def watched(tracker: RunTracker, path: Path, folder: str = "") -> None:
        sent.append(path.name)
        log(tracker, path, folder)

    monkeypatch.setattr(RunTracker, "log_artifact", watched)
    folder = job.output / "syncnet" / "samples"
    folder.mkdir()
    (folder / "step-000010-0.mp4").write_bytes(b"ten")
    sender = Delivery(job, print)
    sender.send()
    # One more while no point is new; one that is still being written has another name.
    (folder / "step-000020-0.mp4").write_bytes(b"twenty")
    (folder / ".step-000030-0.mp4.part").write_bytes(b"t")
    for _ in range(3):
        sender.send()
    assert sent == ["step-000010-0.mp4", "step-000020-0.mp4"]
    found = client(job.tracking_uri).list_artifacts(job.runs[0][1], "samples")
    assert [each.path for each in found] == [f"samples/{name}" for name in sent]
