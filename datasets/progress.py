"""How long-running work reports its progress."""

from typing import Protocol


class Progress(Protocol):
    """A receiver of progress: called often, from one thread at a time, so it must be quick."""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        """Take a report.

        Args:
            done: how much is finished, in the unit that the work counts.
            total: all of it; None if unknown.
            note: what else to report, such as the step that is counted.
        """


def no_progress(done: int, total: int | None, note: str = "", /) -> None:
    """A `Progress` for when nobody waits."""
