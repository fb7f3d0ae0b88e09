"""Lips at p, b and m, for mouths whose every frame is known."""

import math

import numpy as np
import pytest

from tasks.evaluate.closure import CLOSED, Spoken, measure_closure

SAID = Spoken(closures=((0.40, 0.48), (1.00, 1.08)), begin_s=0.2, end_s=1.6)
"""Sounds at frames 10 and 11, and at 25 and 26; words at frames 5 to 39."""


def speaking(*closed: int, frames: int = 60) -> np.ndarray:
    """A mouth 0.04 open from frame 5 to 39, but not at those frames; otherwise shut."""
    opening = np.zeros(frames)
    opening[5:40] = 0.04
    opening[list(closed)] = 0.004
    return opening


def test_lips_that_close_at_every_sound() -> None:
    found = measure_closure(speaking(11, 25), SAID)
    assert (found.gap, found.closed) == (pytest.approx(0.1), 1.0)


def test_one_of_two_sounds_is_half() -> None:
    found = measure_closure(speaking(11), SAID)
    assert (found.gap, found.closed) == (pytest.approx((0.1 + 1) / 2), 0.5)


def test_lips_may_close_a_frame_away_and_no_further() -> None:
    assert measure_closure(speaking(9, 27), SAID).closed == 1
    assert measure_closure(speaking(8, 28), SAID).closed == 0
    assert measure_closure(speaking(8, 28), SAID).gap == pytest.approx(1)


def test_the_median_is_of_the_sentence_and_not_of_the_pauses_around_it() -> None:
    # Three quarters of the video are a pause.
    assert measure_closure(speaking(11, 25, frames=160), SAID).gap == pytest.approx(0.1)


def test_lips_are_closed_below_a_share_of_the_usual_opening() -> None:
    opening = speaking()
    opening[[10, 25]] = 0.04 * CLOSED * np.array([0.99, 1.01])
    assert measure_closure(opening, SAID).closed == 0.5


def test_sounds_after_the_end_of_the_video_do_not_count() -> None:
    found = measure_closure(speaking(11)[:27], SAID)
    assert (found.gap, found.closed) == (pytest.approx(0.1), 1.0)
    # The frame after the second one is there, too.
    assert measure_closure(speaking(11)[:28], SAID).closed == 0.5


@pytest.mark.parametrize(
    ("opening", "spoken", "why"),
    [
        (speaking(), Spoken(reason="no transcript is given"), "no transcript is given"),
        (speaking(), Spoken(begin_s=0.2, end_s=1.6), "no p, b or m is spoken in it"),
        (speaking()[:8], SAID, "no p, b or m is spoken in it"),
        (np.full(60, 1e-4), SAID, "the mouth hardly opens while it speaks"),
    ],
)
def test_there_is_a_reason_instead_of_a_number(
    opening: np.ndarray, spoken: Spoken, why: str
) -> None:
    found = measure_closure(opening, spoken)
    assert found.reason == why
    assert math.isnan(found.gap)
    assert math.isnan(found.closed)
