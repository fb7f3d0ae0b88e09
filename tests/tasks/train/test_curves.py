"""Curve files and lines of progress."""

import json
from pathlib import Path

import pytest
import torch

from tasks.train.curves import Clock, Curve, Meter


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_curve_is_cut_to_the_checkpoint_and_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    curve = Curve(path)
    for step in (2, 4, 6):
        curve.write(step, {"loss": 1.0})
    curve.cut(4)
    assert steps(path) == [2, 4]
    with path.open("a") as file:
        file.write('{"step": 6, "lo')
    curve.cut(9)
    assert steps(path) == [2, 4]


def test_points_are_means_since_the_last_one(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "m")
    for value in (1.0, 2.0):
        curve.add({"loss": torch.tensor(value)})
    assert curve.point() == {"loss": 1.5}
    curve.add({"loss": torch.tensor(7.0)})
    assert curve.point() == {"loss": 7.0}
    assert curve.recent == {"loss": 7.0}


def test_the_last_step_always_has_a_line(tmp_path: Path) -> None:
    clock = Clock("stage1", 10, 4)
    meter = Meter(8, torch.device("cpu"))
    curve = Curve(tmp_path / "m", recent={"loss": 0.25})
    assert clock.line(5, curve, meter) == ""
    line = clock.line(10, curve, meter)
    assert line.startswith("stage1  10/10 steps  loss 0.25  ")
    assert line.endswith("0 min 00 s left")
    assert "waiting" not in line
    meter.waiting = 0.31
    assert "  waiting for data 31%  " in clock.line(10, curve, meter)


def test_speed_and_waiting_are_shares_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("tasks.train.curves.time.monotonic", lambda: now[0])
    meter = Meter(8, torch.device("cpu"))
    for _ in range(5):
        meter.add(0.4)
    now[0] = 110.0
    point = meter.point()
    assert point["samples_per_s"] == pytest.approx(8 * 5 / 10)
    assert point["waiting"] == pytest.approx(0.2)
    assert 0.05 < point["memory_gb"] < 30
    meter.add(0.1)
    now[0] = 111.0
    assert meter.point()["waiting"] == pytest.approx(0.1)


def test_steps_that_changed_nothing_are_left_out_of_the_means(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "m")
    curve.add({"loss": torch.tensor(2.0)})
    curve.add({})
    assert curve.point() == {"loss": 2.0}
    curve.add({})
    assert curve.point() == {}
