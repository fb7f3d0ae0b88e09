"""How long work says how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Whoever waits for something; called often, from one thread at a time, and soon done."""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        """Take note.

        Args:
            done: what is ready, in whatever the work counts.
            total: all of it; None: nobody knows.
            note: what else is to be said, such as the step that is counted.
        """
