from dataclasses import replace
from typing import Any

import pytest

from tasks.evaluate.measurement import MODEL, ClipRecord, Labels, Measurement
from tasks.evaluate.strata import group, part_of, strata_rows, stratify
from tasks.evaluate.summary import STATISTICS

LABELS = Labels("judge", "judge", "lpips", "mouth", "")


def record(clip: str, speaker: str, value: float) -> ClipRecord:
    values = {number: value for number, _ in STATISTICS.values()}
    return ClipRecord(clip, speaker, LABELS, {MODEL: Measurement(values, {}, {}, {}, {})})


RECORDS = [record("a", "s", 1.0), record("b", "s", 3.0), record("c", "t", 8.0)]
FACTS: dict[str, dict[str, Any]] = {
    "a": {"face_px": 300.0, "yaw_deg": 3.0, "language": "en"},
    "b": {"face_px": 100.0, "yaw_deg": 30.0},
    "c": {"face_px": 128.0},
}


@pytest.mark.parametrize(
    ("column", "value", "part"),
    [
        ("face_px", 127.9, "below 128 px"),
        ("face_px", 128, "128 to 256 px"),
        ("face_px", 256, "256 px and more"),
        ("yaw_deg", 29.9, "15 to 30°"),
        ("speech_share", 0.8, "0.8 and more"),
    ],
)
def test_a_value_on_an_edge_is_in_the_upper_part(column: str, value: float, part: str) -> None:
    assert part_of(column, value) == part


def test_clips_are_grouped_by_what_is_known_of_them() -> None:
    assert group(RECORDS, FACTS) == {
        "face_px": {"below 128 px": [1], "128 to 256 px": [2], "256 px and more": [0]},
        "yaw_deg": {"below 15°": [0], "30° and more": [1]},
        "language": {"en": [0]},
        "speaker": {"s": [0, 1], "t": [2]},
    }
    parts = list(group(RECORDS, FACTS)["face_px"])
    assert parts == ["below 128 px", "128 to 256 px", "256 px and more"]
    assert list(group(RECORDS, {})) == ["speaker"]


def test_numbers_are_those_of_the_parts_clips() -> None:
    strata = stratify(RECORDS, FACTS, " NOTE", "cross audio")
    entry = strata["speaker"]["s"]["ssim"]
    assert (entry["value"], entry["n"]) == (2.0, 2)
    assert 1 <= entry["low"] <= 2 <= entry["high"] <= 3
    assert entry["label"].endswith(" NOTE")
    assert strata["face_px"]["128 to 256 px"]["sync_c"]["value"] == 8.0
    assert "fid" not in strata["speaker"]["s"]
    rows = strata_rows(strata)
    (row,) = [
        row
        for row in rows
        if (row["stratum"], row["part"], row["metric"]) == ("speaker", "s", "ssim")
    ]
    assert (row["value"], row["n"]) == (2.0, 2)
    assert strata_rows({}) == []


def test_a_part_whose_clips_lack_a_number_says_so() -> None:
    lacking = {**RECORDS[2].models[MODEL].values, "ssim": float("nan")}
    found = Measurement(lacking, {"ssim": "no face"}, {}, {}, {})
    records = [*RECORDS[:2], replace(RECORDS[2], models={MODEL: found})]
    strata = stratify(records, FACTS, "", "cross audio")
    assert strata["speaker"]["t"]["ssim"]["value"] is None
    assert strata["speaker"]["t"]["ssim"]["reason"] == "no face"
