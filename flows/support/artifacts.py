"""What a person sees of a run: progress lines, and bars, boards and tables in Prefect.

Prefect only shows what is going on: where it cannot be reached, that is logged once and the
run goes on.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from datasets.redact import redact, redact_all
from tasks.pages.funnel import Step, funnel, refusals
from tasks.pages.markdown import table

log = logging.getLogger(__name__)
T = TypeVar("T")

EVERY_S = 4.0
"""Seconds between two lines of progress."""
LEAST_S = 3.0
"""Rates over shorter times mean nothing."""
PATIENCE = 10.0
"""A slow call to Prefect's API is followed by a pause this many times as long."""


def say(line: str) -> None:
    """One line for the person who waits."""
    print(redact(line), flush=True)


class ProgressReport:
    """A `Progress`: lines on the terminal and a bar in Prefect, every few seconds at most.

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
        self._courier = Courier(clock)

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Report, unless the last report was a moment ago.

        Args:
            done: items that are ready.
            total: all items; None if unknown.
            note: what else to report, such as how many were refused.
        """
        now = self.clock()
        if self._first is None:
            self._first = done
            if total is not None and done >= total:
                # Everything was done before: nothing is in progress.
                return
        at_end = total is not None and done >= total
        if now - self._last < EVERY_S and not at_end:
            return
        self._last = now
        say(self._line(done, total, note, now - self._began))
        if self.key and (self._courier.ready() or at_end):
            percent = 100.0 * done / max(total, 1) if total is not None else 0.0
            self._courier.send(lambda: self._bar(percent, note))

    def _line(self, done: int, total: int | None, note: str, seconds: float) -> str:
        parts = [f"{self.title} {done}" if total is None else f"{self.title} {done}/{total}"]
        parts += [note] if note else []
        made = done - (self._first or 0)
        if made > 0 and seconds >= LEAST_S:
            parts.append(f"{60 * made / seconds:.1f} per minute")
            if total is not None and done < total:
                parts.append(f"about {span(seconds * (total - done) / made)} left")
        return ", ".join(parts)

    def _bar(self, percent: float, note: str) -> None:
        if self._artifact is None:
            made = create_progress_artifact(percent, key=self.key, description=self.title)
            self._artifact = made if isinstance(made, UUID) else None
        else:
            text = f"{self.title}: {note}" if note else self.title
            update_progress_artifact(self._artifact, percent, description=text)


class Artifacts(Protocol):
    """Where a board is shown."""

    def create(self, key: str, markdown: str) -> UUID:
        """Create an artifact of the flow run."""

    def update(self, artifact: UUID, markdown: str) -> None:
        """Replace its content."""


class PrefectArtifacts:
    """Markdown artifacts of the flow run around the call."""

    def create(self, key: str, markdown: str) -> UUID:
        """A new version of the artifact `key`."""
        made = create_markdown_artifact(redact(markdown), key=key)
        assert isinstance(made, UUID)
        return made

    def update(self, artifact: UUID, markdown: str) -> None:
        """Prefect itself has a function for this only for progress bars."""
        with get_client(sync_client=True) as client:
            client.update_artifact(artifact, ArtifactUpdate(data=redact(markdown)))


class StageBoard:
    """The stages of a run side by side, and what was refused so far, as one page in Prefect.

    The page is brought up to date every few seconds at most. For one thread.

    Args:
        key: of the artifact: lower-case letters, digits and dashes.
        clock: seconds, for tests.
        artifacts: where the page is shown; None: in Prefect.
    """

    def __init__(
        self,
        key: str,
        clock: Callable[[], float] = time.monotonic,
        artifacts: Artifacts | None = None,
    ) -> None:
        self.key, self.clock = key, clock
        self._artifacts = artifacts or PrefectArtifacts()
        self._stages: dict[str, StageLine] = {}
        self._reasons: dict[str, int] = {}
        self._accepted: int | None = None
        self._artifact: UUID | None = None
        self._shown = ""
        self._courier = Courier(clock)

    def stage(self, name: str) -> "StageLine":
        """The line of a stage; added below the others the first time it is asked for."""
        if name not in self._stages:
            self._stages[name] = StageLine(name, self.clock, self._show)
        return self._stages[name]

    def funnel(self, reasons: Mapping[str, int], accepted: int | None = None) -> None:
        """What was refused so far by reason, and how many clips were good."""
        self._reasons, self._accepted = dict(reasons), accepted
        self._show()

    def flush(self) -> None:
        """Bring the page up to date now, unless it is already."""
        text = self.markdown()
        if text != self._shown:
            self._courier.send(lambda: self._post(text))

    def markdown(self) -> str:
        """The page: a table of stages, then a table of the funnel."""
        head = ("stage", "done", "total", "running", "refused", "per minute", "left", "note")
        stages = [line.cells() for line in self._stages.values()]
        counts = refusals(self._reasons)
        if self._accepted is not None:
            counts.insert(0, Step("accepted", self._accepted))
        clips = [(each.name, str(each.count)) for each in counts]
        tables = [table(head, stages, range(1, 7)), table(("clips so far", "count"), clips, (1,))]
        return "\n\n".join(each for each in tables if each) + "\n"

    def _show(self) -> None:
        if self._courier.ready():
            self.flush()

    def _post(self, text: str) -> None:
        if self._artifact is None:
            self._artifact = self._artifacts.create(self.key, text)
        else:
            self._artifacts.update(self._artifact, text)
        self._shown = text


class StageLine:
    """One stage on a board; made by `StageBoard.stage`."""

    def __init__(self, name: str, clock: Callable[[], float], changed: Callable[[], None]) -> None:
        self.name, self._clock, self._changed = name, clock, changed
        self._done = self._total = self._running = self._refused = 0
        self._note = ""
        self._first: int | None = None
        self._began = self._seconds = 0.0

    def update(
        self, done: int, total: int, running: int = 0, refused: int = 0, note: str = ""
    ) -> None:
        """Report where the stage stands. The first call says what was done before this run.

        Args:
            done: items that are ready, refused ones among them.
            total: all items known so far; it may grow.
            running: items that are being worked on.
            refused: items, or clips, that were refused.
            note: what else to report.
        """
        now = self._clock()
        if self._first is None:
            self._first, self._began = done, now
        if done != self._done or done < total:
            self._seconds = now - self._began
        self._done, self._total, self._running = done, total, running
        self._refused, self._note = refused, note
        self._changed()

    def cells(self) -> tuple[str, ...]:
        """The line's cells, with rate and time left once this run has finished something."""
        made = self._done - (self._first or 0)
        rate = left = "–"
        if made > 0 and self._seconds >= LEAST_S:
            rate = f"{60 * made / self._seconds:.1f}"
            if self._done < self._total:
                left = span(self._seconds * (self._total - self._done) / made)
        numbers = (self._done, self._total, self._running, self._refused)
        return (self.name, *(str(number) for number in numbers), rate, left, self._note)


class Courier:
    """Carries what is shown to Prefect: not too often, and never at the run's expense."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next = float("-inf")
        self._complained = False

    def ready(self) -> bool:
        """Whether enough time has passed since the last call."""
        return self._clock() >= self._next

    def send(self, call: Callable[[], T]) -> T | None:
        """The call's result; None when it failed, which is logged the first time."""
        began = self._clock()
        try:
            # A run may wait for its server, but not in order to show something.
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                return call()
        except Exception as error:
            if not self._complained:
                what = str(error).strip().partition("\n")[0] or type(error).__name__
                log.warning("Prefect cannot show progress, but the run goes on: %s", what)
            self._complained = True
            return None
        finally:
            now = self._clock()
            self._next = now + max(EVERY_S, PATIENCE * (now - began))


def span(seconds: float) -> str:
    """A length of time as people write it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def funnel_rows(
    inputs: int, accepted: int, reasons: Mapping[str, int]
) -> list[dict[str, str | int]]:
    """The funnel from input files to clips, for `show_table`."""
    steps = funnel([("input files", inputs)], accepted, reasons)
    return [{"step": each.name, "count": each.count} for each in steps]


def show_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """A table in Prefect's interface.

    Args:
        key: of the artifact: lower-case letters, digits and dashes.
        rows: one mapping from column to value each.
        description: Markdown above the table.
    """
    shown = [redact_all(dict(row)) for row in rows]
    Courier(time.monotonic).send(
        lambda: create_table_artifact(key=key, table=shown, description=description)
    )
