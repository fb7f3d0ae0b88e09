"""Intervals hold the truth as often as they promise, and speakers count rather than clips."""

import numpy as np
import pytest

from tasks.registry.intervals import draws_of, with_interval
from tasks.registry.metric import metric


def mean_of(values: np.ndarray, speakers: list[str], name: str = "m") -> tuple[float, float]:
    entry = metric(float(values.mean()), "x", len(values))
    found = with_interval(entry, name, speakers, lambda chosen: float(values[chosen].mean()))
    return found["low"], found["high"]


def test_the_truth_lies_inside_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for number in range(200):
        values = rng.normal(3.0, 1.0, 30)
        low, high = mean_of(values, [f"s{index}" for index in range(30)], f"m{number}")
        inside += low <= 3.0 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_many_clips_of_few_speakers_are_less_sure_than_as_many_speakers() -> None:
    rng = np.random.default_rng(1)
    level = np.repeat(rng.normal(0, 1, 4), 25)
    values = level + rng.normal(0, 0.1, 100)
    few = mean_of(values, [f"s{index // 25}" for index in range(100)])
    many = mean_of(values, [f"s{index}" for index in range(100)])
    assert few[1] - few[0] > 2 * (many[1] - many[0])


def test_the_same_numbers_have_the_same_interval() -> None:
    values, speakers = np.array([1.0, 2.0, 4.0]), ["a", "b", "c"]
    assert mean_of(values, speakers) == mean_of(values, speakers)
    assert mean_of(values, speakers) != mean_of(values * 2, speakers)


def test_one_clip_says_nothing_about_spread() -> None:
    entry = metric(1.0, "x", 1)
    assert with_interval(entry, "m", ["a"], lambda chosen: 1.0) == entry
    missing = metric(float("nan"), "x", 0)
    assert with_interval(missing, "m", ["a", "b"], lambda chosen: 1.0) == missing


def test_draws_keep_clips_with_their_speakers() -> None:
    speakers = ["a", "a", "a", "b", "c"]
    for chosen in draws_of(speakers, 50, 3):
        found = [speakers[each] for each in chosen]
        # Three speakers, each with as many clips as it has.
        assert len(found) == 3 * found.count("a") // 3 + found.count("b") + found.count("c")
        assert found.count("a") % 3 == 0
        assert found.count("a") // 3 + found.count("b") + found.count("c") == 3


def test_values_that_do_not_exist_in_a_draw_are_left_out() -> None:
    entry = metric(1.0, "x", 3)

    def statistic(chosen: np.ndarray) -> float:
        return float("nan") if 0 in chosen else 2.0

    found = with_interval(entry, "m", ["a", "b", "c"], statistic)
    assert (found["low"], found["high"]) == (2.0, 2.0)
    nothing = with_interval(entry, "m", ["a", "b"], lambda chosen: float("nan"))
    assert "low" not in nothing


@pytest.mark.parametrize("count", [2, 5])
def test_equal_values_have_no_width(count: int) -> None:
    assert mean_of(np.ones(count), ["a"] * count) == (1.0, 1.0)


def test_clips_of_one_speaker_differ_too() -> None:
    low, high = mean_of(np.arange(8.0), ["a"] * 8)
    # The standard error of the mean is 2.29 / sqrt(8) = 0.81, its 95 % interval 1.6 to each side.
    assert low == pytest.approx(3.5 - 1.6, abs=0.3)
    assert high == pytest.approx(3.5 + 1.6, abs=0.3)
