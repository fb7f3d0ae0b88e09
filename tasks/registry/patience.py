"""Waiting for an MLflow server that has gone away for a while."""

import time
from collections.abc import Callable
from typing import TypeVar

from tasks.runtime.failures import causes, one_line

T = TypeVar("T")
PATIENCE_S = 900.0
"""How long a server may be away: longer than a restart, a move or an upgrade takes."""
PAUSE_S = 5.0
AWAY_TYPES = (
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "Timeout",
    "ChunkedEncodingError",
    "MaxRetryError",
    "OperationalError",
    "InterfaceError",
)
"""Errors of requests, urllib3 and sqlalchemy by which a server that does not answer shows."""
AWAY_TEXTS = (
    "API request to ",
    "TEMPORARILY_UNAVAILABLE",
    "database is locked",
    "failed with error code 502",
    "failed with error code 503",
    "failed with error code 504",
)


def is_away(error: BaseException) -> bool:
    """Whether an error means that the server does not answer now, rather than that it refuses."""
    for each in causes(error):
        if type(each).__name__ in AWAY_TYPES or isinstance(each, ConnectionError | TimeoutError):
            return True
        if any(text in str(each) for text in AWAY_TEXTS):
            return True
        if getattr(each, "error_code", "") == "TEMPORARILY_UNAVAILABLE":
            return True
    return False


def patiently(
    action: Callable[[], T],
    what: str,
    say: Callable[[str], None],
    *,
    patience_s: float = PATIENCE_S,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """The result of an action, repeated while MLflow does not answer.

    Args:
        action: may be called several times.
        what: what is being done, for the line that is shown.
        say: shows one line to the person who waits.
        patience_s: after so many seconds the error is raised.

    Raises:
        Exception: what the action raised, if it is something else or took too long.
    """
    until, told = now() + patience_s, False
    while True:
        try:
            found = action()
        except Exception as error:
            if not is_away(error) or now() >= until:
                raise
            if not told:
                told = True
                say(f"MLflow does not answer ({one_line(error)[:120]}): {what} waits for it")
            sleep(PAUSE_S)
            continue
        if told:
            say("MLflow answers again")
        return found
