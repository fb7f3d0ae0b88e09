"""Thresholds decide where nothing was decided before, in a fixed order."""

import math
from typing import cast

import pytest

from datasets.errors import Reason, UserError
from datasets.shards.records import ClipRow, LedgerRow
from tasks.ingest.verdicts import NO_QUALITY, Thresholds, apply_thresholds
from tasks.sync.signals import MIN_CONFIDENCE, NO_SCORER

GOOD = {
    "face_px": 120.0,
    "av_offset_frames": -2.0,
    "sync_confidence": 5.0,
    "coverage": 1.0,
    "sharpness": 100.0,
    "yaw_deg": -10.0,
    "brightness": 120.0,
    "scorer": "mouth-audio",
    "quality": 60.0,
}


def row(**changes: float | str) -> LedgerRow:
    known = {**ClipRow(path="a.mp4", clip_id="a").as_row(), **GOOD, **changes}
    return cast(LedgerRow, known)


def test_a_clip_that_meets_all_is_accepted() -> None:
    judged = apply_thresholds([row()], Thresholds())[0]
    assert (judged["verdict"], judged["reason"], judged["detail"]) == ("accepted", "", "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"face_px": 47.9}, Reason.FACE_TOO_SMALL),
        ({"coverage": 0.5}, Reason.LOW_COVERAGE),
        ({"brightness": 5.0}, Reason.DARK),
        ({"brightness": 250.0}, Reason.DARK),
        ({"sharpness": 1.0}, Reason.BLURRY),
        ({"yaw_deg": -70.0}, Reason.TURNED_AWAY),
        ({"sync_confidence": 2.9}, Reason.LOW_CONFIDENCE),
        ({"sync_confidence": math.nan}, Reason.LOW_CONFIDENCE),
        ({"av_offset_frames": -13.0}, Reason.OFFSET_TOO_LARGE),
        ({"av_offset_frames": math.nan}, Reason.OFFSET_TOO_LARGE),
        ({"sync_confidence": 0.0, "face_px": 1.0}, Reason.FACE_TOO_SMALL),
        ({"bad_share": 0.51}, Reason.OTHER_VOICE),
        ({"bad_share": 1.0, "quality": 1.0}, Reason.OTHER_VOICE),
        ({"bad_share": 1.0, "sync_confidence": 2.9}, Reason.LOW_CONFIDENCE),
        ({"quality": 39.9}, Reason.LOW_QUALITY),
    ],
)
def test_the_first_unmet_threshold_is_the_reason(changes: dict[str, float], reason: Reason) -> None:
    judged = apply_thresholds([row(**changes)], Thresholds())[0]
    assert (judged["verdict"], judged["reason"], judged["stage"]) == ("rejected", reason, "verdict")
    assert "wanted" in judged["detail"]


def test_limits_themselves_are_met() -> None:
    limit = Thresholds()
    edge = row(
        sync_confidence=MIN_CONFIDENCE["mouth-audio"],
        av_offset_frames=limit.max_offset_frames,
        quality=limit.min_quality or 0.0,
        bad_share=limit.max_bad_share or 0.0,
    )
    assert apply_thresholds([edge], limit)[0]["verdict"] == "accepted"


def test_an_earlier_reason_stays_and_rows_are_not_changed() -> None:
    before = row(reason="silent", stage="audio", detail="nothing")
    judged = apply_thresholds([before], Thresholds())[0]
    assert judged == before | {"verdict": "rejected"}
    good = row()
    apply_thresholds([good], Thresholds())
    assert good == row()


def test_other_thresholds_give_other_verdicts() -> None:
    rows = [row(sync_confidence=value) for value in (1.0, 4.0, 7.0)]
    counts = [
        sum(
            each["verdict"] == "accepted"
            for each in apply_thresholds(rows, Thresholds(min_confidence=limit))
        )
        for limit in (0.0, 3.0, 6.0, 9.0)
    ]
    assert counts == [3, 2, 1, 0]


def test_clips_that_are_known_to_be_in_sync_are_not_judged_by_it() -> None:
    unknown = row(scorer="none", sync_confidence=math.nan, av_offset_frames=0.0)
    (judged,) = apply_thresholds([unknown], Thresholds(min_confidence=9.0))
    assert judged["verdict"] == "accepted"
    (other,) = apply_thresholds([row(sync_confidence=math.nan)], Thresholds())
    assert other["reason"] == Reason.LOW_CONFIDENCE
    (small,) = apply_thresholds([{**unknown, "face_px": 1.0}], Thresholds())
    assert small["reason"] == Reason.FACE_TOO_SMALL


@pytest.mark.parametrize("scorer", sorted({*MIN_CONFIDENCE} - {NO_SCORER}))
def test_without_a_limit_each_scorer_has_its_own(scorer: str) -> None:
    least = MIN_CONFIDENCE[scorer]
    rows = [row(scorer=scorer, sync_confidence=value) for value in (0.99 * least, least)]
    judged = apply_thresholds(rows, Thresholds())
    assert [each["reason"] for each in judged] == [Reason.LOW_CONFIDENCE, ""]
    assert f"at least {least:g} wanted" in judged[0]["detail"]


def test_an_unknown_scorer_needs_a_limit() -> None:
    foreign = row(scorer="someone-elses")
    with pytest.raises(UserError, match="no offset scorer 'someone-elses'"):
        apply_thresholds([foreign], Thresholds())
    assert apply_thresholds([foreign], Thresholds(min_confidence=1.0))[0]["verdict"] == "accepted"


def test_quality_that_was_not_measured_is_said_and_refuses_nothing() -> None:
    judged = apply_thresholds([row(quality=math.nan)], Thresholds())[0]
    assert (judged["verdict"], judged["detail"]) == ("accepted", NO_QUALITY)
    older = row()
    del older["quality"]
    assert apply_thresholds([older], Thresholds())[0]["detail"] == NO_QUALITY
    free = Thresholds(min_quality=None)
    both = apply_thresholds([row(quality=1.0), row(quality=math.nan)], free)
    assert [(each["verdict"], each["detail"]) for each in both] == [("accepted", "")] * 2


def test_lips_that_were_not_compared_refuse_nothing() -> None:
    older = row()
    del older["bad_share"]
    judged = apply_thresholds([row(bad_share=math.nan), older], Thresholds())
    assert [each["verdict"] for each in judged] == ["accepted", "accepted"]
    (free,) = apply_thresholds([row(bad_share=1.0)], Thresholds(max_bad_share=None))
    assert free["verdict"] == "accepted"


def test_what_was_noticed_about_an_accepted_clip_stays() -> None:
    noticed = row(detail="an offset of its own", quality=math.nan)
    (judged,) = apply_thresholds([noticed], Thresholds())
    assert judged["detail"] == f"an offset of its own; {NO_QUALITY}"
    (again,) = apply_thresholds([row(stage="verdict", detail="old")], Thresholds())
    assert again["detail"] == ""
