"""How patient a download is: attempts, pauses, a deadline and a rate.

Everything that waits uses a `Clock`, so tests need not wait.
"""

import errno
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from datasets.errors import Reason, SourceError, UserError
from datasets.sources.addresses import AddressPolicy

Result = TypeVar("Result")

GONE = (401, 404, 410, 451)
"""Status codes that are final: not ours to see, not found, gone, banned."""
PASSING = (403, 408, 409, 423, 425, 429)
"""Temporary refusals by busy servers and rate limits; all codes from 500 on are as well."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


TRUSTED = AddressPolicy(allow_private=True)
"""For addresses chosen by the user or this program, not by a list."""


@dataclass(frozen=True)
class DownloadSettings:
    """How files are fetched."""

    max_height: int = 1080
    """Of a page's videos the largest with at most this many pixels on its shorter side is taken."""
    connections: int = 4
    """Items fetched at once, over all workers."""
    rate: float = 0.0
    """Bytes per second over all connections; 0: unlimited."""
    attempts: int = 5
    """Consecutive connections without new bytes before an item is given up."""
    backoff_s: float = 2.0
    """Pause after the first failure; it doubles with each further one."""
    max_backoff_s: float = 120.0
    timeout_s: float = 30.0
    """Seconds for which a connection may be silent."""
    deadline_s: float = 3600.0
    """Seconds that an item may take, including all attempts and pauses."""
    cookies: str = ""
    """A cookies.txt for pages that show videos only to users who are logged in; may be empty."""
    addresses: AddressPolicy = field(default_factory=AddressPolicy)
    """Which addresses may be fetched from, redirects included."""
    max_bytes: int = 20 << 30
    """Most bytes of one file; a larger one is refused."""
    keep_free_bytes: int = 1 << 30
    """Bytes to keep free on the disk: a fetch that would leave less is not begun."""

    def __post_init__(self) -> None:
        for name in (
            "max_height",
            "connections",
            "attempts",
            "timeout_s",
            "deadline_s",
            "max_bytes",
        ):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} of downloads must be above 0, got {getattr(self, name)}")
        if self.rate < 0:
            raise UserError(f"the rate of downloads must be 0 or more bytes/s, got {self.rate:g}")

    def check_size(self, count: int) -> None:
        """Raise SourceError(NOT_ALLOWED) for a file with more bytes than allowed."""
        if count > self.max_bytes:
            text = f"it has {count:,} bytes or more, at most {self.max_bytes:,} are taken"
            raise SourceError(Reason.NOT_ALLOWED, text)

    @property
    def own_rate(self) -> float:
        """Bytes per second that one connection may take; 0: no limit."""
        return self.rate / self.connections


@dataclass(frozen=True)
class Clock:
    """Time and random numbers, which tests may replace."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    """A number in [0, 1)."""


class Deadline:
    """The moment when an item's time is up."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.seconds, self.clock = seconds, clock
        self._end = clock.now() + seconds

    @property
    def left_s(self) -> float:
        return self._end - self.clock.now()

    def check(self) -> None:
        """Raise SourceError(TIMED_OUT) once the time is up."""
        if self.left_s <= 0:
            raise SourceError(Reason.TIMED_OUT, f"not fetched within {self.seconds:g} s")


class Throttle:
    """Limits one connection to a number of bytes per second (0: no limit)."""

    def __init__(self, rate: float, clock: Clock) -> None:
        self.rate, self.clock = rate, clock
        self._due = clock.now()

    def took(self, count: int) -> None:
        """Wait until `count` more bytes are within the rate."""
        if not self.rate:
            return
        now = self.clock.now()
        # Time lost on a slow server is not made up for by a burst.
        self._due = max(self._due, now) + count / self.rate
        self.clock.sleep(self._due - now)


class PassingError(Exception):
    """A failure that another attempt may not encounter.

    Args:
        detail: what was seen, in one line.
        retry_after_s: how long the server asked clients to wait, seconds.
        progress: whether bytes arrived that the next attempt need not fetch again.
        status: HTTP status; 0 if there was no answer.
    """

    def __init__(
        self,
        detail: str,
        *,
        retry_after_s: float = 0.0,
        progress: bool = False,
        status: int = 0,
    ) -> None:
        super().__init__(detail)
        self.detail, self.retry_after_s, self.progress = detail, retry_after_s, progress
        self.status = status


class DiskError(SourceError):
    """An error of this machine's disk, which another attempt does not fix."""


def persist(
    attempt: Callable[[], Result], settings: DownloadSettings, deadline: Deadline
) -> Result:
    """The result of `attempt`, repeated with growing pauses while it raises `PassingError`.

    An attempt that brought new bytes resets the count. Pauses are half to
    all of `backoff_s * 2**n`, drawn at random so that workers do not return at the same time.

    Raises:
        SourceError: DOWNLOAD_FAILED after the last attempt, or if the server asks for a
            longer pause than time allows; TIMED_OUT at the deadline; and what `attempt` raises.
    """
    failures = 0
    while True:
        deadline.check()
        try:
            return attempt()
        except PassingError as problem:
            failures = 1 if problem.progress else failures + 1
            if failures >= settings.attempts:
                text = f"{problem.detail}; given up after {failures} attempts"
                raise SourceError(Reason.DOWNLOAD_FAILED, text) from problem
            whole = min(settings.backoff_s * 2 ** (failures - 1), settings.max_backoff_s)
            pause = whole * (1 + deadline.clock.chance()) / 2
            pause = max(pause, problem.retry_after_s)
            if pause >= deadline.left_s:
                text = f"{problem.detail}; no time is left for a pause of {pause:.0f} s"
                raise SourceError(Reason.DOWNLOAD_FAILED, text) from problem
            deadline.clock.sleep(pause)


def http_problem(
    status: int, retry_after: str | None, phrase: str = ""
) -> SourceError | PassingError:
    """The error for an answer with this status: final, or one to try again."""
    text = f"HTTP {status} {phrase}".strip()
    if status in GONE:
        return SourceError(Reason.UNAVAILABLE, text)
    if status in PASSING or status >= 500:
        pause = retry_after_seconds(retry_after)
        return PassingError(text, retry_after_s=pause, status=status)
    return SourceError(Reason.DOWNLOAD_FAILED, text)


def retry_after_seconds(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 if it is neither."""
    if not value:
        return 0.0
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max((then - datetime.now(UTC)).total_seconds(), 0.0)
