"""At most one face is kept for each moment."""

import pytest

from datasets.errors import Reason
from datasets.shards.records import ClipRow
from tasks.ingest.config import IngestConfig
from tasks.ingest.speaker_choice import LARGEST, refuse_other_faces


def row(track: int, start: float, end: float, confidence: float, px: float = 100.0) -> ClipRow:
    return ClipRow(
        path="a.mp4",
        clip_id=f"a-t{track:02d}-{start:g}",
        track=track,
        start_s=start,
        end_s=end,
        face_px=px,
        sync_confidence=confidence,
        scorer="mouth-audio",
    )


def test_the_face_in_sync_wins_over_a_larger_one() -> None:
    small, large = row(0, 0, 8, 5.0, px=80), row(1, 0, 8, 1.5, px=200)
    refuse_other_faces([large, small])
    assert small.reason == ""
    assert large.reason == Reason.NOT_THE_SPEAKER
    assert large.stage == "faces"
    assert small.clip_id in large.detail


def test_the_largest_face_wins_where_that_is_asked_for() -> None:
    small, large = row(0, 0, 8, 5.0, px=80), row(1, 0, 8, 1.5, px=200)
    refuse_other_faces([large, small], policy=LARGEST)
    assert [small.reason, large.reason] == [Reason.NOT_THE_SPEAKER, ""]
    with pytest.raises(ValueError, match="no face choice 'both'"):
        IngestConfig(face_choice="both")


def test_without_a_sure_one_the_largest_face_wins() -> None:
    small, large = row(0, 0, 8, 2.5, px=80), row(1, 0, 8, 1.5, px=200)
    refuse_other_faces([small, large])
    assert [small.reason, large.reason] == [Reason.NOT_THE_SPEAKER, ""]


def test_two_sure_faces_the_surer_one_wins() -> None:
    first, second = row(0, 0, 8, 4.0, px=300), row(1, 0, 8, 6.0, px=100)
    refuse_other_faces([first, second])
    assert [first.reason, second.reason] == [Reason.NOT_THE_SPEAKER, ""]


def test_clips_of_different_times_and_of_one_track_stay() -> None:
    rows = [row(0, 0, 5, 4), row(0, 5, 10, 1), row(1, 10, 15, 2), row(1, 14.5, 19, 2)]
    refuse_other_faces(rows)
    assert not any(each.reason for each in rows)


def test_a_slight_overlap_is_allowed() -> None:
    rows = [row(0, 0, 5, 4), row(1, 4.5, 10, 4)]
    refuse_other_faces(rows)
    assert not any(each.reason for each in rows)


def test_what_is_out_already_excludes_nobody() -> None:
    short, kept = row(0, 0, 1, 9), row(1, 0, 8, 1)
    short.reason = Reason.TOO_SHORT.value
    refuse_other_faces([short, kept])
    assert kept.reason == ""
    assert short.reason == Reason.TOO_SHORT


def test_unmeasured_confidence_counts_as_none() -> None:
    measured, unmeasured = row(0, 0, 8, 4, px=50), row(1, 0, 8, float("nan"), px=300)
    refuse_other_faces([unmeasured, measured])
    assert [measured.reason, unmeasured.reason] == ["", Reason.NOT_THE_SPEAKER]


def test_a_given_limit_goes_before_the_scorers_own() -> None:
    small, large = row(0, 0, 8, 5.0, px=80), row(1, 0, 8, 1.5, px=200)
    refuse_other_faces([small, large], min_confidence=6.0)
    assert [small.reason, large.reason] == [Reason.NOT_THE_SPEAKER, ""]


def test_each_scorer_has_its_own_limit() -> None:
    small, large = row(0, 0, 8, 0.5, px=80), row(1, 0, 8, 0.2, px=200)
    small.scorer = large.scorer = "stable-syncnet"
    refuse_other_faces([small, large])
    assert [small.reason, large.reason] == ["", Reason.NOT_THE_SPEAKER]


def test_a_short_clip_within_a_long_one_of_another_face_is_out() -> None:
    """What they share is nothing of the long one, but all of the short one."""
    long, short = row(0, 0, 30, 4), row(1, 10, 12, 3)
    refuse_other_faces([long, short])
    assert [long.reason, short.reason] == ["", Reason.NOT_THE_SPEAKER]


@pytest.mark.parametrize(("start", "out"), [(4.0, False), (3.75, True)])
def test_a_fifth_of_the_shorter_clip_may_be_shared(start: float, out: bool) -> None:
    kept, other = row(0, 0, 5, 4), row(1, start, start + 5, 3)
    refuse_other_faces([other, kept])
    assert kept.reason == ""
    assert bool(other.reason) is out


def test_a_clip_chosen_before_keeps_its_time() -> None:
    before, surer = row(0, 0, 8, 3.5), row(1, 0, 8, 9.0)
    refuse_other_faces([surer], before=[before])
    assert surer.reason == Reason.NOT_THE_SPEAKER
    assert before.reason == ""


def test_below_the_limit_confidence_does_not_rank() -> None:
    nearly, larger = row(0, 0, 8, 2.9, px=100), row(1, 0, 8, 0.1, px=101)
    refuse_other_faces([nearly, larger])
    assert [nearly.reason, larger.reason] == [Reason.NOT_THE_SPEAKER, ""]
    # The limit itself counts as sure.
    sure, larger = row(0, 0, 8, 3.0, px=100), row(1, 0, 8, 2.9, px=300)
    refuse_other_faces([sure, larger])
    assert [sure.reason, larger.reason] == ["", Reason.NOT_THE_SPEAKER]
