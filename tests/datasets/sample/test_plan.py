"""Which clips the sample has."""

from fractions import Fraction
from itertools import pairwise

import pytest

from datasets.sample.looks import LOOKS
from datasets.sample.plan import MAX_SHIFT, ClipPlan, plan_clip


@pytest.fixture(scope="module")
def plans() -> list[ClipPlan]:
    return [plan_clip(index, 0, (5.0, 8.0)) for index in range(48)]


def test_a_clip_depends_on_seed_and_number_only() -> None:
    assert plan_clip(5, 1, (5.0, 8.0)) == plan_clip(5, 1, (5.0, 8.0))
    assert plan_clip(5, 1, (5.0, 8.0)) != plan_clip(5, 2, (5.0, 8.0))


def test_most_clips_are_plain_speech_of_every_speaker(plans: list[ClipPlan]) -> None:
    plain = [plan for plan in plans if plan.kind == "plain"]
    assert len(plain) == 36
    assert all(plan.audio == "speech" and len(plan.shots) == 1 for plan in plain)
    for speaker in range(len(LOOKS)):
        assert sum(plan.speaker == speaker for plan in plain) == 3


def test_every_kind_of_trouble_is_there(plans: list[ClipPlan]) -> None:
    assert {plan.kind for plan in plans} == {"plain", "cuts", "faceless", "two_faces", "audio"}
    assert {plan.audio for plan in plans} == {"speech", "silent", "noise", "none"}
    assert {plan.fps for plan in plans} == {Fraction(25), Fraction(30), Fraction(30000, 1001)}
    assert {plan.channels for plan in plans} == {1, 2}
    assert len({plan.size for plan in plans}) >= 4


def test_shifts_cover_both_directions(plans: list[ClipPlan]) -> None:
    shifts = [plan.offset_frames for plan in plans if plan.audio == "speech"]
    assert max(shifts) >= 8
    assert min(shifts) <= -8
    assert all(abs(shift) <= MAX_SHIFT for shift in shifts)
    assert 15 <= sum(shift == 0 for shift in shifts) <= 30
    assert len(set(shifts)) >= 15
    assert all(plan.offset_frames == 0 for plan in plans if plan.audio != "speech")


def test_shots_follow_each_other_without_gaps(plans: list[ClipPlan]) -> None:
    for plan in plans:
        assert plan.seconds + 0.04 >= 5.0
        assert plan.seconds <= 8.04
        assert plan.shots[0].first == 0
        assert plan.shots[-1].last == plan.frames
        for before, after in pairwise(plan.shots):
            assert before.last == after.first
        assert plan.cuts_s == pytest.approx([s.first / plan.fps for s in plan.shots[1:]], abs=1e-6)
        for shot in plan.shots:
            if shot.cutaway < 0:
                assert 90 <= shot.face_px <= 200
                assert (shot.last - shot.first) / plan.fps > 1.9


def test_faceless_spans_are_the_shots_without_people(plans: list[ClipPlan]) -> None:
    starts = set()
    for plan in plans:
        if plan.kind == "faceless":
            ((start, end),) = plan.faceless_s
            assert 0.5 < end - start < 1.3
            starts.add(start > 0)
        else:
            assert plan.faceless_s == []
    assert starts == {True, False}


def test_cuts_change_the_framing_much(plans: list[ClipPlan]) -> None:
    for plan in plans:
        if plan.kind == "cuts":
            for before, after in pairwise(plan.shots):
                assert max(before.face_px, after.face_px) > 1.2 * min(before.face_px, after.face_px)
