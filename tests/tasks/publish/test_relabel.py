from typing import cast

import pytest

from datasets.shards.records import LedgerRow
from tasks.ingest.verdicts import Thresholds, apply_thresholds
from tasks.publish.relabel import compare_verdicts
from tests.support.card_rows import make_rows


def row(clip: str, reason: str = "") -> dict[str, str]:
    return {
        "clip_id": clip,
        "reason": reason,
        "verdict": "rejected" if reason else "accepted",
    }


def test_clips_that_came_and_went_are_counted_by_reason() -> None:
    before = [row("a"), row("b"), row("c", "dark"), row("d", "dark"), row("e", "blurry"), row("")]
    after = [row("e", "dark"), row("d"), row("c"), row("b", "blurry"), row("a"), row("", "silent")]
    report = compare_verdicts(before, after)
    assert report.newly_accepted == {"dark": 2}
    assert report.newly_refused == {"blurry": 1}
    assert (report.other_reason, report.accepted, report.refused) == (1, 3, 2)
    assert report.changed
    assert report.table() == [
        {"what": "newly accepted, was dark", "clips": 2},
        {"what": "newly refused: blurry", "clips": 1},
        {"what": "still refused, for another reason", "clips": 1},
        {"what": "accepted now", "clips": 3},
        {"what": "refused now", "clips": 2},
    ]
    assert list(report.changes().values()) == [2, 1]


def test_the_same_rows_are_no_change() -> None:
    rows = make_rows(100)
    report = compare_verdicts(rows, rows[::-1])
    assert not report.changed
    assert report.other_reason == 0
    assert report.accepted == sum(each["verdict"] == "accepted" for each in rows)


def test_a_stricter_threshold_takes_what_a_laxer_one_gives_back() -> None:
    rows = make_rows(1000)
    measured = [
        cast(LedgerRow, each | {"reason": "", "stage": ""} if each["stage"] == "verdict" else each)
        for each in rows
    ]
    strict = apply_thresholds(measured, Thresholds(min_confidence=6.0))
    there, back = compare_verdicts(rows, strict), compare_verdicts(strict, rows)
    assert there.newly_refused == {"low_confidence": there.newly_refused["low_confidence"]}
    assert there.newly_refused["low_confidence"] > 100
    assert back.newly_accepted == there.newly_refused
    assert not there.newly_accepted
    assert not back.newly_refused


def test_rows_of_other_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="one side only, for example 'b'"):
        compare_verdicts([row("a")], [row("a"), row("b")])
    with pytest.raises(ValueError, match="'a' appears more than once"):
        compare_verdicts([row("a"), row("a")], [row("a"), row("a")])
