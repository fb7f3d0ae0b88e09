"""Lips that come from the input are caught, and by no other number that promotion looks at."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from datasets.faces.landmarks import mouth_opening
from tasks.evaluate.baselines import BASELINES, baseline_video
from tasks.evaluate.clips import OpenClip
from tasks.evaluate.generated import generate
from tasks.evaluate.leakage import (
    LEAST_FRAMES,
    MOVES,
    STILL,
    Mouth,
    correlation,
    moving_share,
    opening_in_silence,
)
from tasks.registry.metric import MOTIONLESS, NO_FACE, NO_SILENCE, Metric
from tasks.registry.policy import Policy, apply_policy
from tasks.sync.mouth_audio import MouthAudioScorer
from tests.support.collected import Collected, bare_scores
from tests.support.painted_mouths import LoudnessJudge, PaintedDetector, Painter, painted_clip

CLIPS = [painted_clip(number) for number in range(4)]
LEAKS = {"leak_opening", "leak_moving", "leak_correlation"}


def mouth(values: Any, seen: float = 1.0) -> Mouth:
    return Mouth(np.asarray(values, float), seen)


def course(frames: int, seed: int, size: float = 0.03) -> np.ndarray:
    return size * np.random.default_rng(seed).standard_normal(frames)


def test_the_spread_in_silence_is_told_as_a_share_of_that_in_speech() -> None:
    speaking = course(50, 1)
    for share in (0.0, 0.25, 1.0):
        value, reason = opening_in_silence(mouth(0.02 + share * speaking), mouth(speaking))
        assert (value, reason) == (pytest.approx(share), "")
    value, reason = opening_in_silence(mouth(speaking), mouth(np.full(50, 0.03)))
    assert math.isnan(value)
    assert reason.startswith(MOTIONLESS)


def test_only_movements_count_that_unrest_does_not_reach() -> None:
    steps = np.array([0.0, 0.5, 1.0, 1.5, -2.0]) * MOVES
    opening = np.concatenate([np.zeros(LEAST_FRAMES), np.cumsum(steps)])
    value, _ = moving_share(mouth(opening))
    assert value == pytest.approx(3 / (len(opening) - 1))
    assert moving_share(mouth(np.full(30, 0.05)))[0] == 0


def test_mouths_go_together_by_their_movements_and_not_by_their_trend() -> None:
    first, second = course(100, 1), course(100, 2)
    assert correlation(mouth(first), mouth(0.5 * first + 0.1))[0] == pytest.approx(1)
    assert correlation(mouth(first), mouth(-first))[0] == pytest.approx(-1)
    assert abs(correlation(mouth(first), mouth(second))[0]) < 0.25
    # Both sentences lie between two pauses, or both heads bow.
    shared = 0.2 * np.sin(np.linspace(0, np.pi, 100))
    assert np.corrcoef(first + shared, second + shared)[0, 1] > 0.7
    assert abs(correlation(mouth(first + shared), mouth(second + shared))[0]) < 0.25
    # Only frames that both have count.
    longer = np.concatenate([first, course(60, 3)])
    assert correlation(mouth(first), mouth(longer))[0] == pytest.approx(1, abs=0.01)
    for pair in ((first, np.full(100, 0.3)), (0.5 * STILL * first / first.std(), first)):
        value, reason = correlation(*(mouth(each) for each in pair))
        assert math.isnan(value)
        assert reason.startswith(MOTIONLESS)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (mouth(course(50, 1), 0.49), f"{NO_FACE} 49% of the frames"),
        (mouth(course(LEAST_FRAMES - 1, 1)), f"videos of {LEAST_FRAMES - 1} frames are too short"),
    ],
)
def test_what_cannot_be_seen_has_a_reason_and_no_number(bad: Mouth, why: str) -> None:
    good = mouth(course(LEAST_FRAMES, 2), 0.5)
    for value, reason in (
        opening_in_silence(bad, good),
        opening_in_silence(good, bad),
        moving_share(bad),
        correlation(bad, good),
        correlation(good, bad),
    ):
        assert math.isnan(value)
        assert reason.startswith(why)
    assert not good.fault


def new_scores() -> Collected:
    judge = LoudnessJudge()
    scores = bare_scores(judge, judge, MouthAudioScorer(), PaintedDetector(), 16)
    return Collected(scores)


def measured(clip_videos: Mapping[str, list[Any]]) -> dict[str, Metric]:
    scores = new_scores()
    for number, clip in enumerate(CLIPS):
        silence = clip_videos["silence"][number] if "silence" in clip_videos else None
        scores.add(
            clip, clip_videos["reconstruction"][number], clip_videos["cross"][number], silence
        )
    return scores.metrics()


def videos_of(painter: Painter) -> dict[str, list[np.ndarray]]:
    return {
        kind: [_generated(painter, clip, kind) for clip in CLIPS] for kind in CLIPS[0].chosen.kinds
    }


def _generated(painter: Painter, clip: OpenClip, kind: Any) -> np.ndarray:
    count = clip.length(kind)
    return generate(painter, clip.frames[:count], clip.heard(kind), clip.landmarks[:count])


def refused_for(metrics: dict[str, Metric]) -> set[str]:
    verdict = apply_policy(Policy(), {"protocol_digest": "p", "metrics": metrics}, None)
    return {each["metric"] for each in verdict.comparisons if not each["holds"]}


def value(metrics: dict[str, Metric], name: str) -> float:
    found = metrics[name]["value"]
    assert found is not None, metrics[name]
    return found


@pytest.fixture(scope="module")
def honest() -> dict[str, list[np.ndarray]]:
    return videos_of(Painter())


LEAKY = {
    "by a reference that shows the very mouth": (Painter(from_reference=0.5), LEAKS),
    "by a masked part that comes through": (Painter(through_mask=0.5), LEAKS),
    "only where nothing is heard": (Painter(in_pauses=True), LEAKS - {"leak_correlation"}),
}


def test_lips_that_follow_the_speech_pass(honest: dict[str, list[np.ndarray]]) -> None:
    metrics = measured(honest)
    assert refused_for(metrics) == set()
    assert value(metrics, "leak_opening") < 0.1
    assert value(metrics, "leak_moving") < 0.1
    assert abs(value(metrics, "leak_correlation")) < 0.2
    for each in LEAKS:
        assert metrics[each]["low"] <= value(metrics, each) <= metrics[each]["high"]


@pytest.mark.parametrize("name", LEAKY)
def test_lips_that_come_from_the_input_are_caught_by_nothing_else(name: str) -> None:
    painter, caught = LEAKY[name]
    assert refused_for(measured(videos_of(painter))) == caught


def test_a_leak_sounds_like_the_inputs_own_speech(honest: dict[str, list[np.ndarray]]) -> None:
    rows = []
    for videos in (honest, videos_of(Painter(through_mask=0.5))):
        scores = new_scores()
        scores.add(CLIPS[0], videos["reconstruction"][0], videos["cross"][0])
        rows.append(scores.rows[0])
    clean, leaky = rows
    assert leaky["leak_sync_c"] > clean["leak_sync_c"] + 0.1
    assert leaky["leak_sync_d"] < clean["leak_sync_d"] - 0.1


def test_a_real_video_of_the_foreign_speech_shows_what_chance_is() -> None:
    scores, clip = new_scores(), CLIPS[0]
    scores.add(clip, clip.frames, clip.frames)
    expected, _ = correlation(mouth(clip.driver_opening), mouth(mouth_opening(clip.landmarks)))
    assert scores.rows[0]["leak_correlation_real"] == pytest.approx(expected, abs=0.02)
    assert "chance" in scores.metrics()["leak_correlation_real"]["label"]


def test_trivial_models_leak_as_they_are_built(honest: dict[str, list[np.ndarray]]) -> None:
    clip = CLIPS[0]
    found = {}
    for name in BASELINES:
        scores, shown = new_scores(), {}
        for kind in clip.chosen.kinds:
            shown[kind] = baseline_video(name, clip, kind, honest[kind][0], "still")
        scores.add(clip, shown["reconstruction"], shown["cross"], shown["silence"])
        found[name] = scores.rows[0]
        if name == "still":
            assert scores.reasons["leak_opening"].startswith(MOTIONLESS)
    assert found["input"]["leak_correlation"] == pytest.approx(1)
    assert found["input"]["leak_opening"] == pytest.approx(1, abs=0.25)
    assert found["moment"]["leak_correlation"] < 0.25
    assert found["moment"]["leak_opening"] > 0.7
    assert found["shuffled"]["leak_opening"] < 0.1
    assert math.isnan(found["still"]["leak_opening"])
    assert found["still"]["leak_moving"] == 0


def test_silence_may_be_missing_for_some_clips_and_is_needed_for_one(
    honest: dict[str, list[np.ndarray]],
) -> None:
    some: dict[str, list[Any]] = {**honest, "silence": [*honest["silence"][:1], None, None, None]}
    metrics = measured(some)
    assert metrics["leak_moving"]["n"] == metrics["leak_opening"]["n"] == 1
    assert metrics["leak_correlation"]["n"] == 4
    metrics = measured({name: honest[name] for name in ("reconstruction", "cross")})
    assert metrics["leak_moving"]["value"] is None
    assert metrics["leak_moving"]["reason"] == NO_SILENCE
    assert refused_for(metrics) == {"leak_opening", "leak_moving"}
    # What was seen in a video says more than that others have none.
    some["silence"][0] = 0 * honest["silence"][0]
    assert measured(some)["leak_moving"]["reason"].startswith(f"{NO_FACE} 0%")
