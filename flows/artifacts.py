"""What a person sees of a run: progress lines, a progress bar and tables in Prefect."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

EVERY_S = 4.0
"""Seconds between two lines of progress."""


def say(line: str) -> None:
    """One line for the person who waits."""
    print(line, flush=True)


class ProgressReport:
    """Lines on the terminal and a bar in Prefect, every few seconds at most.

    Args:
        title: what is being done; it begins every line.
        key: of Prefect's artifact; None: no bar.
        clock: seconds, for tests.
    """

    def __init__(
        self, title: str, key: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.title, self.key, self.clock = title, key, clock
        self._began = self._last = clock()
        self._first: int | None = None
        self._artifact: UUID | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report, unless the last report was a moment ago.

        Args:
            done: items that are ready.
            total: all items.
            note: what else is to be said, such as how many were refused.
        """
        now = self.clock()
        if self._first is None:
            self._first = done
            if done >= total:
                # All was there before: nothing is in progress.
                return
        if now - self._last < EVERY_S and done < total:
            return
        self._last = now
        say(self._line(done, total, note, now - self._began))
        if self.key:
            self._bar(100.0 * done / max(total, 1), note)

    def _line(self, done: int, total: int, note: str, seconds: float) -> str:
        parts = [f"{self.title} {done}/{total}"]
        parts += [note] if note else []
        made = done - (self._first or 0)
        if made > 0 and seconds > 0:
            parts.append(f"{60 * made / seconds:.1f} per minute")
            if done < total:
                parts.append(f"about {span(seconds * (total - done) / made)} left")
        return ", ".join(parts)

    def _bar(self, percent: float, note: str) -> None:
        if self._artifact is None:
            made = create_progress_artifact(percent, key=self.key, description=self.title)
            self._artifact = made if isinstance(made, UUID) else None
        else:
            text = f"{self.title}: {note}" if note else self.title
            update_progress_artifact(self._artifact, percent, description=text)


def span(seconds: float) -> str:
    """A length of time as people say it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def funnel(inputs: int, accepted: int, reasons: Mapping[str, int]) -> list[dict[str, Any]]:
    """A table from what came in to what is left, with the reasons in between."""
    rows: list[dict[str, Any]] = [{"step": "input files", "count": inputs}]
    rows += [{"step": f"refused: {reason}", "count": count} for reason, count in reasons.items()]
    return [*rows, {"step": "accepted clips", "count": accepted}]


def show_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """A table in Prefect's interface.

    Args:
        key: of the artifact: lower-case letters, digits and dashes.
        rows: one mapping from column to value each.
        description: Markdown above the table.
    """
    create_table_artifact(key=key, table=[dict(row) for row in rows], description=description)
