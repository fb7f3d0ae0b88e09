"""The pool of Ray actors behind `tasks.executor.run_stage`.

A worker has one item at a time, and a second one waiting only where items are so short
that the way to the driver and back would show. Its own deque of calls says, in order,
what it is doing: first the two calls that make it ready, then items.
"""

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from datasets.errors import Reason, SourceError
from tasks.executor import Outcome, Stage, StageProgress, StageSetupError
from tasks.failures import causes, describe, for_the_user, is_disk_full, one_line
from tasks.guard import die_with_parent

SETUP_DEADLINE_S = 600.0
"""Seconds that a stage's `setup` may take, model loading on a slow disk included."""
SETUP_ATTEMPTS = 3
"""Workers in a row that may die before they are ready."""
SHORT_S = 0.25
"""Items shorter than this are queued one ahead; longer ones would wait behind a slow one."""
TICK_S = 1.0
"""Longest wait before progress is reported again."""


@dataclass(frozen=True)
class _Reply:
    """What a worker sends back for an item."""

    value: Any
    reason: Reason
    detail: str
    seconds: float
    fatal: Exception | None = None


class _Worker:
    """Lives in the worker's process and holds the stage."""

    def __init__(self) -> None:
        die_with_parent()
        self.stage: Stage | None = None

    def hello(self) -> None:
        """Answers as soon as the process runs, however long it had to wait for room."""

    def setup(self, stage: Stage) -> Exception | None:
        self.stage = stage
        try:
            stage.setup()
        except Exception as error:
            return _fatal(error) or StageSetupError(describe(error))
        return None

    def process(self, item: Any) -> _Reply:
        assert self.stage is not None
        began = time.monotonic()
        try:
            value = self.stage.process(item)
        except SourceError as error:
            return _Reply(None, error.reason, error.detail, time.monotonic() - began)
        except Exception as error:
            seconds = time.monotonic() - began
            return _Reply(None, Reason.INTERNAL, describe(error), seconds, _fatal(error))
        return _Reply(value, Reason.NONE, "", time.monotonic() - began)


def _fatal(error: Exception) -> Exception | None:
    """The cause that would fail every further item too, in a form that can be pickled."""
    for each in causes(error):
        if for_the_user(each):
            return type(each)(one_line(each))  # type: ignore[return-value]
        if is_disk_full(each):
            name = getattr(each, "filename", None)
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    return None


@dataclass
class _Task:
    key: str
    item: Any
    attempts: int = 0


@dataclass
class _Call:
    """A call that a worker was sent: an item's, or one that makes the worker ready."""

    ref: Any
    task: _Task | None
    deadline_s: float | None


@dataclass
class _Slot:
    """One worker, seen from the driver."""

    actor: Any
    calls: deque[_Call] = field(default_factory=deque)
    since: float = field(default_factory=time.monotonic)
    """When the first of `calls` began."""
    ready: bool = False
    taken: int = 0

    def next(self) -> _Call:
        self.since = time.monotonic()
        return self.calls.popleft()

    def left_s(self) -> float:
        """Seconds until the running call's deadline."""
        if not self.calls or self.calls[0].deadline_s is None:
            return float("inf")
        return self.since + self.calls[0].deadline_s - time.monotonic()


class Pool:
    """Workers of one stage, for one `run`."""

    def __init__(
        self, stage: Stage, size: int, deadline_s: float, max_attempts: int, recycle_after: int
    ) -> None:
        need = stage.resources
        options = {"num_cpus": need.cpus, "num_gpus": need.gpus, "max_restarts": 0}
        if need.memory_bytes:
            options["memory"] = need.memory_bytes
        self.new_actor = ray.remote(_Worker).options(**options).remote
        self.stage = stage
        self.size = size
        self.deadline_s = deadline_s
        self.max_attempts = max_attempts
        self.recycle_after = recycle_after
        self.slots: list[_Slot] = []
        self.todo: deque[_Task] = deque()
        self.done = 0
        self.mean_s = float("inf")
        self.failed_setups = 0
        self.reported = 0.0

    def run(
        self,
        items: Sequence[tuple[str, Any]],
        on_outcome: Callable[[Outcome], None],
        on_progress: Callable[[StageProgress], None] | None,
    ) -> None:
        """Process all items; see `run_stage`."""
        self.todo = deque(_Task(key, item) for key, item in items)
        self.on_outcome = on_outcome
        began = time.monotonic()
        stage = ray.put(self.stage)
        try:
            while self.done < len(items):
                self._fill(stage)
                before = self.done
                for slot in self._changed():
                    self._take_answers(slot)
                self._end_overdue()
                waited = time.monotonic()
                if on_progress and (self.done != before or waited - self.reported >= TICK_S):
                    self.reported = waited
                    running = sum(1 for slot in self.slots if slot.ready and slot.calls)
                    on_progress(StageProgress(self.done, len(items), running, waited - began))
        finally:
            for slot in self.slots:
                ray.kill(slot.actor)
            self.slots = []

    def _fill(self, stage: Any) -> None:
        """Give work to every worker that has room; replace those that are gone or spent."""
        for slot in [each for each in self.slots if self._spent(each) and not each.calls]:
            self._drop(slot)
        while len(self.slots) < min(self.size, self._unfinished()):
            slot = _Slot(self.new_actor())
            slot.calls.append(_Call(slot.actor.hello.remote(), None, None))
            slot.calls.append(_Call(slot.actor.setup.remote(stage), None, SETUP_DEADLINE_S))
            self.slots.append(slot)
        depth = 2 if self.mean_s < SHORT_S else 1
        for level in range(depth):
            for slot in self.slots:
                free = slot.ready and len(slot.calls) == level and not self._spent(slot)
                if free and self.todo:
                    self._send(slot, self.todo.popleft())

    def _unfinished(self) -> int:
        """Items that are waiting or with a worker."""
        return len(self.todo) + sum(1 for slot in self.slots for call in slot.calls if call.task)

    def _spent(self, slot: _Slot) -> bool:
        return slot.taken >= self.recycle_after

    def _send(self, slot: _Slot, task: _Task) -> None:
        if not slot.calls:
            slot.since = time.monotonic()
        slot.calls.append(_Call(slot.actor.process.remote(task.item), task, self.deadline_s))
        slot.taken += 1

    def _changed(self) -> list[_Slot]:
        """Wait until a worker answers or a deadline passes; the workers that answered."""
        heads = {slot.calls[0].ref: slot for slot in self.slots if slot.calls}
        timeout = max(0.0, min([TICK_S, *(slot.left_s() for slot in self.slots)]))
        ready, waiting = ray.wait(list(heads), num_returns=1, timeout=timeout)
        if ready and waiting:
            ready += ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
        return [heads[ref] for ref in ready]

    def _take_answers(self, slot: _Slot) -> None:
        """Take the first answer, which is there; the next one is found by the next wait."""
        call = slot.calls[0]
        try:
            answer = ray.get(call.ref)
        except RayTaskError as error:
            # Outside the stage's own code: an item or a result that cannot be pickled.
            answer = _Reply(None, Reason.INTERNAL, one_line(error.cause or error)[:500], 0.0)
            if call.task is None:
                raise StageSetupError(answer.detail) from error
        except RayError as error:
            self._died(slot, error)
            return
        slot.next()
        if call.task is not None:
            self._finish(call.task, answer)
        elif not slot.calls:
            if answer is not None:
                raise answer
            slot.ready, self.failed_setups = True, 0

    def _finish(self, task: _Task, reply: _Reply) -> None:
        if reply.fatal is not None:
            raise reply.fatal
        known = self.mean_s != float("inf")
        self.mean_s = 0.8 * self.mean_s + 0.2 * reply.seconds if known else reply.seconds
        self._report(task, reply.value, reply.reason, reply.detail, reply.seconds)

    def _report(self, task: _Task, value: Any, reason: Reason, detail: str, seconds: float) -> None:
        self.done += 1
        attempts = task.attempts + 1
        self.on_outcome(Outcome(task.key, value, reason, detail, attempts, seconds))

    def _drop(self, slot: _Slot) -> None:
        """Forget a worker; items that it had not begun go back to the front."""
        self.slots.remove(slot)
        self.todo.extendleft(call.task for call in reversed(slot.calls) if call.task)
        with suppress(RayError):
            ray.kill(slot.actor)

    def _died(self, slot: _Slot, error: RayError) -> None:
        seconds = time.monotonic() - slot.since
        task = slot.next().task
        if task is None:
            slot.calls.clear()
            self.failed_setups += 1
            if self.failed_setups >= SETUP_ATTEMPTS:
                raise StageSetupError(
                    f"{self.failed_setups} workers in a row died before they were ready: "
                    f"{one_line(error)[:500]}"
                ) from error
        self._drop(slot)
        if task is None:
            return
        if task.attempts + 1 < self.max_attempts:
            task.attempts += 1
            # Last, so that a poisoned item does not hold up the others.
            self.todo.append(task)
        else:
            count = task.attempts + 1
            detail = f"the process that worked on it died, {count} time{'s'[: count > 1]}"
            self._report(task, None, Reason.WORKER_DIED, detail, seconds)

    def _end_overdue(self) -> None:
        for slot in [each for each in self.slots if each.left_s() <= 0]:
            ready, _ = ray.wait([slot.calls[0].ref], timeout=0)
            if ready:
                continue
            task = slot.next().task
            self._drop(slot)
            if task is None:
                raise StageSetupError(f"a worker was not ready within {SETUP_DEADLINE_S:g} s")
            detail = f"not finished within {self.deadline_s:g} s"
            self._report(task, None, Reason.TIMED_OUT, detail, self.deadline_s)
