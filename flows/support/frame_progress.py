"""Progress as lines, not too many of them."""

import time
from collections.abc import Callable

SECONDS = 5.0
"""Between two lines of one step."""


class Progress:
    """Turns (step, done, total) into a line every few seconds and one when a step is done; a step
    without a total is named once.

    Args:
        say: takes the lines.
        clock: seconds, for tests.
    """

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._clock = say, clock
        self._step = ""
        self._began = self._spoke = 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        now = self._clock()
        if step != self._step:
            self._step, self._began, self._spoke = step, now, now
            if not total:
                self._say(step)
        if not total:
            return
        if done < total and now - self._spoke < SECONDS:
            return
        self._spoke = now
        passed = now - self._began
        left = f", {passed * (total - done) / done:.0f} s left" if 0 < done < total else ""
        self._say(f"{step}: {done}/{total} frames{left}")
