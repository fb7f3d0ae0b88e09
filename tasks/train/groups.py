"""Groups of workers that train one after the other, as workers are lost and come.

Ray Train has this, too (`num_workers=(min, max)` and `FailureConfig`), and ours serves better here.
Ray's growing group is killed wherever it is, which costs the steps since its last checkpoint; ours
writes one first. Ray tries again whatever a worker raised, also what a user must mend. And it
looks at the cluster every 20 seconds, so after a node is lost it waits for a group that cannot be.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from datasets.errors import UserError
from tasks.train.beats import Listener
from tasks.train.kept import checkpoint_step, newest
from tasks.train.stages import TrainingJob, remaining

RESTARTS = 3
"""How often in a row workers may be lost without a new checkpoint in between."""
WAIT_S = 300.0
"""Seconds after which a training gives up that has too few workers."""
LOOK_S = 5.0
"""Seconds between two looks for room for more workers."""
PAUSE = "pause"
"""A file that asks a group to write a checkpoint and end."""


class Room(Protocol):
    """Where workers can be."""

    @property
    def wanted(self) -> int:
        """Workers that are asked for."""

    def workers(self) -> int:
        """How many of them there can be."""

    def more(self) -> int:
        """How many more there can be now."""


class Groups:
    """Trains what remains of a job in one group of workers after the other.

    Args:
        job: the training.
        room: where workers can be.
        least: the fewest workers that go on when others are lost.
        folder: for signs of life and `PAUSE`; the workers must see it.
        start: trains what remains with so many workers, until it is done or paused.
        lost: why an error of `start` means that a worker was lost; empty for other errors.
        say: takes lines.
        clock: seconds, for tests.
        sleep: waits so many seconds, for tests.
    """

    def __init__(
        self,
        job: TrainingJob,
        room: Room,
        least: int,
        folder: Path,
        start: Callable[[int], None],
        lost: Callable[[BaseException], str],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.job, self.room, self.least, self.start, self.lost = job, room, least, start, lost
        self.say, self.clock, self.sleep = say, clock, sleep
        self.pause = folder / PAUSE
        self.listener = Listener(folder, say, clock)
        self._running = 0
        self._looked = clock()

    def fit(self) -> None:
        """Train until nothing remains.

        Raises:
            UserError: workers were lost too often, or there is no room for enough of them.
            Exception: what `start` raised for any other reason.
        """
        losses = 0
        while remaining(self.job):
            count, before = self._await_room(), self._progress()
            self.pause.unlink(missing_ok=True)
            self.listener.forget()
            self._running = count
            try:
                self.start(count)
            except Exception as error:
                why = self.lost(error)
                if not why:
                    raise
                losses = 1 if self._progress() != before else losses + 1
                if losses > RESTARTS:
                    raise UserError(
                        f"training lost workers {losses} times without a new checkpoint in between "
                        f"(at last: {why}): see to the machines, then the same command goes on "
                        "from the last checkpoint"
                    ) from error
                self.say(f"{why}: training goes on from the last checkpoint")
                continue
            finally:
                self._running = 0
            if remaining(self.job) and not self.pause.exists():
                raise RuntimeError("a group of workers ended before the training did")

    def watch(self) -> None:
        """Look after the group that runs, in another thread: who is silent, and is there room for
        more workers?"""
        self.listener.listen()
        now = self.clock()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        missing = 0 < self._running < self.room.wanted and not self.pause.exists()
        # What is free may be what this very group has not taken yet: what counts is whether a group
        # that began now would be larger.
        if missing and (more := min(self.room.more(), self.room.workers() - self._running)) > 0:
            self.say(f"there is room for {more} more: training pauses and goes on with them")
            self.pause.touch()

    def _await_room(self) -> int:
        """How many workers there can be, as soon as they are enough."""
        began = self.clock()
        while (count := self.room.workers()) < self.least:
            waited = self.clock() - began
            if waited >= WAIT_S:
                raise UserError(
                    f"there has been room for {count} training workers for {waited:.0f} s, and "
                    f"{self.least} are needed: add machines, then the same command goes on from "
                    "the last checkpoint"
                )
            if not waited:
                self.say(f"waiting for room for {self.least} training workers: there is {count}")
            self.sleep(1.0)
        return count

    def _progress(self) -> tuple[int, int]:
        """Grows with every stage and checkpoint."""
        todo = remaining(self.job)
        path = newest(self.job.output / todo[0]) if todo else None
        return -len(todo), checkpoint_step(path) if path else -1
