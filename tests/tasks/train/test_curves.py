"""Curve files and lines of progress."""

import json
from pathlib import Path

import torch

from tasks.train.curves import Clock, Curve


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
    curve = Curve(tmp_path / "m", recent={"loss": 0.25})
    assert clock.line(5, curve) == ""
    line = clock.line(10, curve)
    assert line.startswith("stage1  10/10 steps  loss 0.25  ")
    assert line.endswith("0 min 00 s left")
