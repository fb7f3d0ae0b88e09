"""Attempts, pauses, deadlines and rates, on a clock that the test moves."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from datasets.errors import Reason, SourceError, UserError
from datasets.fetch.policy import (
    Deadline,
    DownloadSettings,
    PassingError,
    Throttle,
    http_problem,
    persist,
    retry_after_seconds,
)
from tests.support.fake_clock import FakeClock

SETTINGS = DownloadSettings(attempts=4, backoff_s=2.0, max_backoff_s=6.0)


def failing(*problems: Exception) -> object:
    """An attempt that raises these one after another, then returns "done"."""
    left = list(problems)

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return attempt


def run(attempt: object, time: FakeClock, deadline_s: float = 100.0) -> str:
    return str(persist(attempt, SETTINGS, Deadline(deadline_s, time.clock)))  # type: ignore[arg-type]


def test_pauses_double_up_to_the_longest_and_vary() -> None:
    time = FakeClock(chance=1.0)
    assert run(failing(*[PassingError("no")] * 3), time) == "done"
    assert time.sleeps == [2.0, 4.0, 6.0]
    time = FakeClock(chance=0.0)
    run(failing(*[PassingError("no")] * 3), time)
    assert time.sleeps == [1.0, 2.0, 3.0]


def test_the_last_attempt_ends_it() -> None:
    time = FakeClock()
    with pytest.raises(SourceError, match="HTTP 503; given up after 4 attempts") as caught:
        run(failing(*[PassingError("HTTP 503")] * 4), time)
    assert caught.value.reason is Reason.DOWNLOAD_FAILED
    assert len(time.sleeps) == 3


def test_an_attempt_that_brought_something_counts_as_the_first_again() -> None:
    time = FakeClock()
    problems = [PassingError("broke off", progress=True)] * 20
    assert run(failing(*problems), time) == "done"
    assert time.sleeps == [2.0] * 20


def test_the_other_side_may_ask_for_longer_pauses() -> None:
    time = FakeClock()
    assert run(failing(PassingError("HTTP 429", retry_after_s=50.0)), time) == "done"
    assert time.sleeps == [50.0]


def test_a_pause_beyond_the_deadline_is_not_begun() -> None:
    time = FakeClock()
    with pytest.raises(SourceError, match="no time is left for a pause of 200 s") as caught:
        run(failing(PassingError("HTTP 429", retry_after_s=200.0)), time)
    assert caught.value.reason is Reason.DOWNLOAD_FAILED
    assert time.sleeps == []


def test_no_attempt_begins_after_the_deadline() -> None:
    time = FakeClock()
    deadline = Deadline(10.0, time.clock)
    time.time += 10.0
    with pytest.raises(SourceError, match="within 10 s") as caught:
        persist(lambda: "done", SETTINGS, deadline)
    assert caught.value.reason is Reason.TIMED_OUT


def test_final_errors_are_not_tried_again() -> None:
    time = FakeClock()
    with pytest.raises(SourceError, match="gone"):
        run(failing(SourceError(Reason.UNAVAILABLE, "gone")), time)
    assert time.sleeps == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, Reason.UNAVAILABLE),
        (404, Reason.UNAVAILABLE),
        (410, Reason.UNAVAILABLE),
        (451, Reason.UNAVAILABLE),
        (400, Reason.DOWNLOAD_FAILED),
        (403, None),
        (408, None),
        (429, None),
        (500, None),
        (503, None),
    ],
)
def test_which_answers_are_final(status: int, reason: Reason | None) -> None:
    problem = http_problem(status, "7", "Words")
    if reason is None:
        assert isinstance(problem, PassingError)
        assert (problem.detail, problem.retry_after_s) == (f"HTTP {status} Words", 7.0)
    else:
        assert isinstance(problem, SourceError)
        assert problem.reason is reason


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_seconds("120") == 120.0
    assert retry_after_seconds(None) == retry_after_seconds("soon") == 0.0
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3500 < retry_after_seconds(later) <= 3600
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_the_rate_is_held_and_lost_time_gives_no_burst() -> None:
    time = FakeClock()
    throttle = Throttle(100.0, time.clock)
    for _ in range(10):
        throttle.took(50)
    assert sum(time.sleeps) == pytest.approx(5.0)
    time.time += 1000.0
    throttle.took(100)
    assert time.sleeps[-1] == pytest.approx(1.0)
    Throttle(0.0, time.clock).took(1 << 30)
    assert len(time.sleeps) == 11


def test_connections_share_the_rate() -> None:
    assert DownloadSettings(rate=8e6, connections=4).own_rate == 2e6


@pytest.mark.parametrize("bad", [{"attempts": 0}, {"connections": 0}, {"deadline_s": -1}])
def test_settings_that_fetch_nothing_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match="above 0"):
        DownloadSettings(**bad)  # type: ignore[arg-type]
