"""Progress as lines, but not too many of them."""

import time
from collections.abc import Callable

SECONDS = 5.0
"""Seconds between two lines of one step."""


class FrameLines:
    """A `Progress` whose notes are steps: a line every few seconds and one when a step is done.

    A step that counts nothing is named once: 0 of None.

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

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        now = self._clock()
        if note != self._step:
            self._step, self._began, self._spoke = note, now, now
            if (done, total) == (0, None):
                self._say(note)
                return
        if done != total and now - self._spoke < SECONDS:
            return
        self._spoke = now
        if total is None:
            self._say(f"{note}: {done} frames")
            return
        passed = now - self._began
        left = f", {passed * (total - done) / done:.0f} s left" if 0 < done < total else ""
        self._say(f"{note}: {done}/{total} frames{left}")
