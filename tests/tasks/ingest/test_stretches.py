"""Which stretches of clips are good, and who speaks in them."""

from itertools import pairwise

import numpy as np

from datasets.errors import Reason
from tasks.ingest.frame_facts import FrameFacts
from tasks.ingest.speaker_choice import IN_SYNC, LARGEST
from tasks.ingest.stretches import Judged, SharedLag, judge
from tasks.sync.belonging import LAGS, evidence_by_lag
from tasks.sync.signals import MAX_LAG

GOOD, BAD = 0.5, -0.5


def facts(evidence: list[tuple[int, float]], lag: int = 0, **wrong: tuple[int, int]) -> FrameFacts:
    """Facts of a clip by (frames, evidence in each) at one lag, and stretches that are wrong."""
    values = np.concatenate([np.full(count, value) for count, value in evidence])
    ratios = np.full((len(LAGS), len(values)), -0.1)
    ratios[MAX_LAG + lag] = values
    reasons = [Reason.NONE] * len(values)
    for name, (first, stop) in wrong.items():
        reasons[first:stop] = [Reason(name)] * (stop - first)
    return FrameFacts(
        ratios,
        evidence_by_lag(ratios),
        np.ones(len(values), np.float32),
        np.ones(len(values), bool),
        tuple(reasons),
    )


def judged(*clips: Judged, policy: str = IN_SYNC) -> list[list[tuple[int, str]]]:
    """Runs of (frames, reason) of each."""
    lag = SharedLag()
    for each in clips:
        lag.add(each.facts)
    judge(clips, lag, policy)
    found = []
    for each in clips:
        edges = [0]
        edges += [at for at in range(1, each.frames) if each.reasons[at] != each.reasons[at - 1]]
        edges += [each.frames]
        found.append([(b - a, each.reasons[a].value) for a, b in pairwise(edges)])
    return found


def clip(track: int, about: FrameFacts, start: int = 0, face_px: float = 100.0) -> Judged:
    return Judged(track, start, face_px, about, shortest=50)


def test_a_voice_that_no_face_follows_is_nobodys() -> None:
    narrated = clip(0, facts([(60, BAD), (90, GOOD)]))
    assert judged(narrated) == [[(60, "other_voice"), (90, "")]]
    assert narrated.bad_share(0, 60) == 1
    assert narrated.bad_share(60, 150) == 0
    assert narrated.bad_share(0, 150) == 0.4


def test_people_who_take_turns_have_their_own_stretches() -> None:
    first, second = facts([(70, GOOD), (80, BAD)]), facts([(70, BAD), (80, GOOD)])
    assert judged(clip(0, first), clip(1, second)) == [
        [(70, ""), (80, "not_the_speaker")],
        [(70, "not_the_speaker"), (80, "")],
    ]


def test_of_two_who_follow_the_sound_one_speaks() -> None:
    strong, weak = facts([(100, GOOD)]), facts([(60, GOOD / 2), (40, BAD)])
    assert judged(clip(0, weak), clip(1, strong)) == [[(100, "not_the_speaker")], [(100, "")]]
    larger = clip(0, weak, face_px=200.0)
    assert judged(larger, clip(1, strong), policy=LARGEST)[0][0] == (60, "")


def test_a_turn_is_found_where_both_faces_might_speak() -> None:
    """Each would be taken for the speaker all the time if it were alone."""
    first = facts([(75, GOOD), (75, GOOD / 4)])
    second = facts([(75, GOOD / 4), (75, GOOD)])
    assert judged(clip(0, first), clip(1, second)) == [
        [(75, ""), (75, "not_the_speaker")],
        [(75, "not_the_speaker"), (75, "")],
    ]


def test_only_the_time_that_clips_share_is_contested() -> None:
    early, late = clip(0, facts([(100, GOOD)])), clip(1, facts([(100, GOOD / 2)]), start=60)
    assert judged(early, late) == [[(100, "")], [(40, "not_the_speaker"), (60, "")]]
    again = clip(0, facts([(100, GOOD / 2)]), start=60)
    assert judged(early, again) == [[(100, "")], [(100, "")]], "one face does not rival itself"


def test_what_is_wrong_whoever_speaks_goes_first() -> None:
    about = facts([(150, GOOD)], no_sound=(100, 150), frozen=(20, 60))
    assert judged(clip(0, about)) == [[(20, ""), (40, "frozen"), (40, ""), (50, "no_sound")]]


def test_a_brief_reason_counts_with_the_one_before() -> None:
    about = facts([(60, GOOD), (50, BAD), (40, GOOD)], no_sound=(75, 80))
    assert judged(clip(0, about)) == [[(60, ""), (50, "other_voice"), (40, "")]]


def test_where_nothing_follows_there_is_nothing_to_cut() -> None:
    stranger = clip(0, facts([(100, BAD)]))
    judged(stranger)
    assert stranger.strange
    assert stranger.bad_share(0, 100) == 1
    enough, little = (clip(0, facts([(count, GOOD), (100, BAD)])) for count in (60, 40))
    judged(enough)
    judged(little)
    assert not enough.strange
    assert little.strange
    half = clip(0, facts([(100, BAD)], frozen=(0, 50)))
    assert judged(half) == [[(50, "frozen"), (50, "other_voice")]]
    assert not half.strange


def test_clips_of_a_file_share_its_lag() -> None:
    """A clip of which little is heard has the lag of the others; one that is sure has its own."""
    others = [clip(0, facts([(100, GOOD)], lag=4), start=100 * at) for at in range(3)]
    brief = facts([(40, 0.1), (60, BAD)], lag=-8)
    jumped = facts([(100, GOOD)], lag=-8)
    clips = [*others, clip(0, brief, start=300), clip(0, jumped, start=400)]
    judged(*clips)
    assert [LAGS[each.lag] for each in clips] == [4, 4, 4, 4, -8]


def test_seconds_have_evidence() -> None:
    about = clip(0, facts([(75, GOOD), (75, BAD)]))
    judged(about)
    values = about.by_second(0, 150)
    assert len(values) == 6
    assert values[0] == values[1] == 12.5
    assert values[5] == -12.5
    assert values == sorted(values, reverse=True)


def test_without_comparison_only_what_is_wrong_is_cut() -> None:
    plain = FrameFacts(
        None,
        None,
        np.full(80, np.nan, np.float32),
        np.ones(80, bool),
        (*[Reason.NONE] * 50, *[Reason.FROZEN] * 30),
    )
    about = clip(0, plain)
    assert judged(about) == [[(50, ""), (30, "frozen")]]
    assert np.isnan(about.bad_share(0, 50))
    assert about.by_second(0, 50) == []
