from pathlib import Path
from typing import Any

import pytest

from flows.support.evaluation_text import MAIN, evaluation_lines, metric_lines, value_text
from tasks.registry.metric import Evaluation, Metric, metric
from tasks.registry.policy import Policy
from tests.support.fake_bundle import whole_evaluation

WHY = "clips of 20 frames are too short"


def content(**more: Any) -> Evaluation:
    metrics: dict[str, Metric] = {
        "sync_c": metric(float("nan"), "a judge", 0, WHY),
        "sync_d": metric(float("nan"), "a judge", 0, WHY),
        "fid": metric(1234.56, "seeded", 80),
        "ssim": {**metric(0.87654, "aligned face", 1), "low": 0.8123, "high": 0.9008},
    }
    return whole_evaluation(metrics, **more)


def test_an_evaluation_ends_with_a_table_and_its_files(tmp_path: Path) -> None:
    lines = evaluation_lines(content(), tmp_path)
    assert lines == [
        "evaluated on 1 test clip:",
        "  metric   value            95 %          n  measured by",
        "  sync_c    none               –    0 clips  a judge",
        "  sync_d    none               –    0 clips  a judge",
        "  fid     1234.6               –  80 frames  seeded",
        "  ssim     0.877  0.812 to 0.901     1 clip  aligned face",
        f"  no value for sync_c, sync_d: {WHY}",
        f"numbers       {tmp_path}/evaluation.json",
        f"plots         {tmp_path}/plots.png",
        f"contact sheet {tmp_path}/contact_sheet.png",
    ]


def test_training_clips_and_warnings_are_said(tmp_path: Path) -> None:
    lines = evaluation_lines(content(split="train", warnings=["seen before"]), tmp_path, ["fid"])
    assert lines[0] == "evaluated on 1 TRAINING clip:"
    assert [line.split()[0] for line in lines[1:3]] == ["metric", "fid"]
    assert lines[3] == "beware: seen before"


def test_older_evaluations_are_read(tmp_path: Path) -> None:
    old = whole_evaluation({"lmd": {"value": None, "label": "x", "n": 0}}, clips=["a", "b"])
    del old["split"], old["warnings"]
    lines = evaluation_lines(old, tmp_path)
    assert lines[0] == "evaluated on 2 test clips:"
    assert "  no value for lmd: the evaluation gives no reason" in lines


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("sync_c", 1.2345, "1.23"),
        ("mouth_offset", -1.0, "-1.00 frames"),
        ("psnr_db", 23.456, "23.46 dB"),
        ("fid", 0.00412, "0.0041"),
        ("fvd", 123.45, "123.5"),
        ("ssim", 0.0, "0.000"),
        ("sync_accuracy_real", 0.987, "99%"),
        ("lmd_cross", 4.567, "4.57%"),
    ],
)
def test_values_are_rounded_and_have_units(name: str, value: float, text: str) -> None:
    assert value_text(name, value) == text


def test_the_main_numbers_are_those_that_promotion_judges() -> None:
    assert {rule.metric for rule in Policy().rules} == set(MAIN)
    assert len(metric_lines(content()["metrics"], MAIN)) == 1 + 3 + 1
