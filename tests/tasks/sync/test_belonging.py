"""Evidence that a sound is that of the lips: for it, against it, and where it changes."""

from itertools import pairwise

import numpy as np
import pytest

from datasets.media import SAMPLES_PER_FRAME
from tasks.sync.belonging import (
    CHANGE,
    LAGS,
    _ratio,
    evidence_by_lag,
    log_likelihood_ratios,
    most_likely_states,
)
from tasks.sync.mouth_audio import mouth_spans
from tasks.sync.signals import MAX_LAG
from tests.support.mouths import loudness, mouth, sound

FRAMES = 160


def ratios(spoken: int, heard: int, from_here: int = 0, shift: int = 0) -> np.ndarray:
    """Of a mouth and a sound by seeds; before `from_here` the mouth's own is heard."""
    whole = FRAMES + 2 * MAX_LAG
    curve = loudness(whole, spoken)
    audio = sound(np.roll(curve, shift))
    edge = (MAX_LAG + from_here) * SAMPLES_PER_FRAME
    if heard != spoken:
        audio[edge:] = sound(loudness(whole, heard))[edge:]
    return log_likelihood_ratios(mouth_spans(mouth(curve[MAX_LAG:-MAX_LAG])), audio)


def together(ratio: np.ndarray) -> np.ndarray:
    """bool (t,): the more likely of two states."""
    return most_likely_states(np.stack([np.zeros(len(ratio)), ratio], axis=1)) == 1


def test_it_is_known_where_a_voice_changes() -> None:
    wrong = []
    for seed in range(12):
        found = together(ratios(seed, seed + 100, from_here=80)[MAX_LAG])
        wrong += [1 - found[:68].mean(), found[92:].mean()]
    assert np.mean(wrong) < 0.1


@pytest.mark.parametrize("shift", [-9, 0, 4, 15])
def test_the_evidence_is_greatest_at_the_offset(shift: int) -> None:
    found = ratios(3, 3, shift=shift)
    best = evidence_by_lag(found).argmax()
    assert abs(LAGS[best] - shift) <= 1
    assert together(found[best]).mean() > 0.9


def test_a_stranger_gives_none() -> None:
    own = [evidence_by_lag(ratios(seed, seed))[MAX_LAG] for seed in range(12)]
    other = [evidence_by_lag(ratios(seed, seed + 100))[MAX_LAG] for seed in range(12)]
    assert min(own) > 3 * CHANGE
    assert np.median(other) < CHANGE


def test_the_ratio_is_that_of_correlated_to_independent_normals() -> None:
    """Its mean where the correlation is true is half the information, and below 0 where it is
    not."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 200_000))
    y = 0.5 * x + np.sqrt(0.75) * noise
    assert _ratio(x, y, 0.5).mean() == pytest.approx(-np.log(0.75) / 2, abs=0.01)
    assert np.exp(_ratio(x, noise, 0.5)).mean() == pytest.approx(1, abs=0.02)
    assert _ratio(x, noise, 0.5).mean() < -0.1


def brute(values: np.ndarray) -> float:
    """The best sum over all sequences of states."""
    best = 0.0
    for number in range(1 << len(values)):
        states = [number >> at & 1 for at in range(len(values))]
        changes = sum(a != b for a, b in pairwise(states))
        best = max(best, float(values @ np.array(states)) - CHANGE * changes)
    return best


def test_the_best_of_all_sequences_is_found() -> None:
    values = np.random.default_rng(1).normal(0, 2.5, (31, 9))
    found = evidence_by_lag(values)
    for lag in range(31):
        assert found[lag] == pytest.approx(brute(values[lag]))
        states = together(values[lag])
        changes = (states[1:] != states[:-1]).sum()
        assert values[lag] @ states - CHANGE * changes == pytest.approx(found[lag])
