"""What the clips of a file say of its offset together."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.sync.mouth_audio import MouthAudioScorer
from tasks.sync.pooling import OffsetPool, correction, drift, name_drift
from tasks.sync.signals import OffsetScore
from tests.support.mouths import loudness, mouth, sound

SCORER = MouthAudioScorer()


def scored(seed: int, frames: int = 60, late: int = 0, stranger: bool = False) -> OffsetScore:
    curve = loudness(frames + 40, seed)
    heard = loudness(frames + 40, seed + 500) if stranger else curve
    audio = sound(np.roll(heard, late))[20 * 640 : (20 + frames) * 640]
    return SCORER.measure(mouth(curve[20:-20], seed), audio)


def pool_of(scores: list[OffsetScore], frames: int = 60) -> OffsetPool:
    pool = OffsetPool(SCORER.min_confidence)
    for each in scores:
        pool.add(each, frames)
    return pool


def test_together_clips_are_surer_than_alone() -> None:
    scores = [scored(seed, late=4) for seed in range(8)]
    whole = pool_of(scores).score()
    assert whole is not None
    assert whole.confidence > max(each.confidence for each in scores)
    assert whole.offset_frames == pytest.approx(4, abs=0.5)


def test_strangers_do_not_become_sure_together() -> None:
    whole = pool_of([scored(seed, stranger=True) for seed in range(8)]).score()
    assert whole is not None
    assert whole.confidence < SCORER.min_confidence


def test_one_clip_is_its_own_pool() -> None:
    own = scored(3)
    pool = pool_of([own])
    assert pool.of(own).score is own
    whole = pool.score()
    assert whole is not None
    assert (whole.offset_frames, whole.confidence) == pytest.approx(
        (own.offset_frames, own.confidence)
    )
    assert OffsetPool(3.0).score() is None


def test_an_unsure_clip_gets_the_offset_of_its_file() -> None:
    pool = pool_of([scored(seed, late=4) for seed in range(8)])
    unsure = replace(scored(9), offset_frames=-11.0, confidence=1.0)
    found = pool.of(unsure)
    assert found.score.offset_frames == pytest.approx(4, abs=0.5)
    assert found.score.confidence > SCORER.min_confidence
    assert found.note == ""


def test_a_sure_clip_keeps_an_offset_of_its_own_and_it_is_named() -> None:
    pool = pool_of([scored(seed, late=4) for seed in range(8)])
    jumped = scored(20, frames=150, late=-6)
    found = pool.of(jumped)
    assert found.score is jumped
    assert "own, -6" in found.note
    assert "+4" in found.note or "+3" in found.note


def test_what_a_scorer_without_curve_says_stays() -> None:
    pool = pool_of([scored(seed) for seed in range(3)])
    plain = OffsetScore(5.0, 4.5)
    pool.add(plain, 60)
    assert pool.of(plain).score is plain


@pytest.mark.parametrize(("offset", "moved"), [(0.9, 0.0), (-0.9, 0.0), (1.1, 1.1), (-3.0, -3.0)])
def test_a_correction_within_the_uncertainty_is_not_made(offset: float, moved: float) -> None:
    assert correction(OffsetScore(offset, 5.0, uncertainty=1.0)) == moved
    assert correction(OffsetScore(offset, 5.0)) == offset


def test_less_is_known_of_noisier_clips() -> None:
    clear = scored(1, frames=250)
    assert clear.curve is not None
    pooled = pool_of([clear])
    noisy = OffsetPool(3.0)
    noisy.add(replace(clear, chance=8 * clear.chance), 60)
    before, after = pooled.score(), noisy.score()
    assert before is not None
    assert after is not None
    assert 1.0 <= before.uncertainty < after.uncertainty


def test_drift_is_the_slope_of_offsets() -> None:
    scores = [(30.0 * at, OffsetScore(0.5 * at - 1, 5.0, uncertainty=1.0)) for at in range(6)]
    assert drift(scores) == pytest.approx(1.0)
    assert np.isnan(drift(scores[:2]))


def test_a_drift_is_named_where_it_is_more_than_an_error() -> None:
    steady = [(30.0 * at, OffsetScore(0.5 * (-1) ** at, 5.0, uncertainty=1.0)) for at in range(6)]
    assert name_drift(steady) == ""
    running = [(30.0 * at, OffsetScore(-0.6 * at, 5.0, uncertainty=1.0)) for at in range(6)]
    assert name_drift(running) == "the offset drifts by -1.2 frames a minute"
    assert name_drift(running[:4]) == ""
