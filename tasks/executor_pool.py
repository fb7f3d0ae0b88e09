"""The pools of Ray actors behind `tasks.executor`, and the loop that drives them.

A worker has one batch at a time, and a second one waiting only where items are so short
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
from tasks.executor import (
    Batch,
    BatchOutcome,
    Limits,
    Outcome,
    Stage,
    StageError,
    StageProgress,
    StageSetupError,
)
from tasks.failures import causes, describe, for_the_user, is_disk_full, one_line
from tasks.guard import die_with_parent

SETUP_DEADLINE_S = 600.0
"""Seconds that a stage's `setup` may take, model loading on a slow disk included."""
SETUP_ATTEMPTS = 3
"""Workers in a row that may die before they are ready."""
SHORT_S = 0.25
"""Batches shorter than this are queued one ahead; longer ones would wait behind a slow one."""
FINISH = ""
"""Stands where an item's key stands; no item has it."""
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

    def process(self, batch: str, item: Any, first: bool) -> _Reply:
        assert self.stage is not None
        began = time.monotonic()
        try:
            if first:
                self.stage.begin(batch)
            value = self.stage.process(item)
        except SourceError as error:
            return _Reply(None, error.reason, error.detail, time.monotonic() - began)
        except Exception as error:
            seconds = time.monotonic() - began
            return _Reply(None, Reason.INTERNAL, describe(error), seconds, _fatal(error))
        return _Reply(value, Reason.NONE, "", time.monotonic() - began)

    def finish(self, batch: str) -> _Reply:
        assert self.stage is not None
        began = time.monotonic()
        try:
            value = self.stage.finish(batch)
        except Exception as error:
            fatal = _fatal(error) or StageError(f"{batch} could not be finished: {describe(error)}")
            return _Reply(None, Reason.INTERNAL, "", time.monotonic() - began, fatal)
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


@dataclass(eq=False)
class _Work:
    """A batch that is waiting or with a worker."""

    batch: Batch
    attempts: dict[str, int] = field(default_factory=dict)
    given_up: dict[str, Outcome] = field(default_factory=dict)
    """Items that took down as many workers as they may, or their deadline."""
    answered: dict[str, Outcome] = field(default_factory=dict)
    """By the worker that has the batch now; void when that one dies."""

    def left(self) -> list[tuple[str, Any]]:
        """Items that are still worth working on."""
        return [(key, item) for key, item in self.batch.items if key not in self.given_up]

    def outcome(self, value: Any) -> BatchOutcome:
        all_of_them = self.answered | self.given_up
        return BatchOutcome(
            self.batch.key, tuple(all_of_them[key] for key, _ in self.batch.items), value
        )


@dataclass
class _Call:
    """A call that a worker was sent: an item's, or one that makes the worker ready."""

    ref: Any
    deadline_s: float | None
    work: _Work | None = None
    key: str = FINISH
    """Of the item; `FINISH` for the call that finishes the batch."""
    last: bool = False


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

    def works(self) -> list[_Work]:
        """Batches it has, the running one first."""
        found: list[_Work] = []
        for call in self.calls:
            if call.work is not None and (not found or found[-1] is not call.work):
                found.append(call.work)
        return found


class Pool:
    """Workers of one stage.

    Args:
        stage: what they do.
        size: how many there are at most.
        limits: what an item may cost.
        on_batch: called with every batch that has ended.
        may_start: asked before a batch is given to a worker; back-pressure of a later stage.
    """

    def __init__(
        self,
        stage: Stage,
        size: int,
        limits: Limits,
        on_batch: Callable[[BatchOutcome], None],
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        need = stage.resources
        options = {"num_cpus": need.cpus, "num_gpus": need.gpus, "max_restarts": 0}
        if need.memory_bytes:
            options["memory"] = need.memory_bytes
        self._finishes = type(stage).finish is not Stage.finish
        self.new_actor = ray.remote(_Worker).options(**options).remote
        self.stage_ref = ray.put(stage)
        self.size = size
        self.limits = limits
        self.on_batch = on_batch
        self.may_start = may_start
        self.slots: list[_Slot] = []
        self.waiting: deque[_Work] = deque()
        self.done = 0
        """Items that have ended, or at least been answered."""
        self.total = 0
        self._mean_s = float("inf")
        self._failed_setups = 0

    def submit(self, batch: Batch) -> None:
        """Add a batch behind the others; one without items ends at once."""
        self.total += len(batch.items)
        if batch.items:
            self.waiting.append(_Work(batch))
        else:
            self.on_batch(BatchOutcome(batch.key, (), None))

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or being worked on."""
        return not self.waiting and not any(slot.works() for slot in self.slots)

    @property
    def running(self) -> int:
        """Workers that are working."""
        return sum(1 for slot in self.slots if slot.ready and slot.calls)

    def fill(self) -> None:
        """Give work to every worker that has room; replace those that are gone or spent."""
        for slot in [each for each in self.slots if self._spent(each) and not each.calls]:
            self._drop(slot)
        held = sum(len(slot.works()) for slot in self.slots)
        while len(self.slots) < min(self.size, len(self.waiting) + held):
            slot = _Slot(self.new_actor())
            slot.calls.append(_Call(slot.actor.hello.remote(), None))
            slot.calls.append(_Call(slot.actor.setup.remote(self.stage_ref), SETUP_DEADLINE_S))
            self.slots.append(slot)
        depth = 2 if self._mean_s < SHORT_S else 1
        for level in range(depth):
            for slot in self.slots:
                free = slot.ready and len(slot.works()) == level and not self._spent(slot)
                if free and self.waiting and self.may_start():
                    self._send(slot, self.waiting.popleft())

    def _spent(self, slot: _Slot) -> bool:
        return slot.taken >= self.limits.recycle_after

    def _send(self, slot: _Slot, work: _Work) -> None:
        if not slot.calls:
            slot.since = time.monotonic()
        left = work.left()
        for place, (key, item) in enumerate(left):
            ref = slot.actor.process.remote(work.batch.key, item, place == 0)
            last = place == len(left) - 1 and not self._finishes
            slot.calls.append(_Call(ref, self.limits.deadline_s, work, key, last))
        if self._finishes:
            ref = slot.actor.finish.remote(work.batch.key)
            slot.calls.append(_Call(ref, self.limits.finish_s, work, last=True))
        slot.taken += len(left)

    def take(self, slot: _Slot) -> None:
        """Take the first answer of a worker, which is there; the next wait finds the next."""
        call = slot.calls[0]
        try:
            answer = ray.get(call.ref)
        except RayTaskError as error:
            # Outside the stage's own code: an item or a result that cannot be pickled.
            text = one_line(error.cause or error)[:500]
            if call.work is None:
                raise StageSetupError(text) from error
            if call.key == FINISH:
                raise StageError(f"{call.work.batch.key} could not be finished: {text}") from error
            answer = _Reply(None, Reason.INTERNAL, text, 0.0)
        except RayError as error:
            self._lost(slot, one_line(error)[:500])
            return
        slot.next()
        if call.work is not None:
            self._answered(call, answer)
        elif not slot.calls:
            if answer is not None:
                raise answer
            slot.ready, self._failed_setups = True, 0

    def _answered(self, call: _Call, reply: _Reply) -> None:
        assert call.work is not None
        if reply.fatal is not None:
            raise reply.fatal
        work, key = call.work, call.key
        if key != FINISH:
            work.answered[key] = self._outcome(work, key, reply)
            self.done += 1
        if call.last:
            seconds = sum(each.seconds for each in work.answered.values())
            known = self._mean_s != float("inf")
            self._mean_s = 0.8 * self._mean_s + 0.2 * seconds if known else seconds
            self.on_batch(work.outcome(reply.value if key == FINISH else None))

    def _outcome(self, work: _Work, key: str, reply: _Reply) -> Outcome:
        attempts = work.attempts.get(key, 0) + 1
        return Outcome(key, reply.value, reply.reason, reply.detail, attempts, reply.seconds)

    def _drop(self, slot: _Slot) -> None:
        """Forget a worker; batches that it had not finished go back to the front."""
        self.slots.remove(slot)
        works = slot.works()
        for work in works:
            self.done -= len(work.answered)
            work.answered.clear()
        self.waiting.extendleft(reversed(works))
        with suppress(RayError):
            ray.kill(slot.actor)

    def _lost(self, slot: _Slot, why: str) -> None:
        """A worker is gone with what it was doing."""
        seconds = time.monotonic() - slot.since
        call = slot.calls[0]
        if call.work is None:
            slot.calls.clear()
            self._failed_setups += 1
            if self._failed_setups >= SETUP_ATTEMPTS:
                raise StageSetupError(
                    f"{self._failed_setups} workers in a row died before they were ready: {why}"
                )
            self._drop(slot)
            return
        work, key = call.work, call.key
        self._drop(slot)
        work.attempts[key] = count = work.attempts.get(key, 0) + 1
        if count >= self.limits.max_attempts:
            if key == FINISH:
                raise StageError(f"{work.batch.key} could not be finished: {why}")
            detail = f"the process that worked on it died, {count} time{'s'[: count > 1]}"
            self._give_up(work, Outcome(key, None, Reason.WORKER_DIED, detail, count, seconds))
        elif work in self.waiting:
            # Last, so that a poisoned item does not hold up the others.
            self.waiting.remove(work)
            self.waiting.append(work)

    def _give_up(self, work: _Work, outcome: Outcome) -> None:
        """An item has ended without an answer; its batch goes on without it."""
        work.given_up[outcome.key] = outcome
        self.done += 1
        if not work.left():
            self.waiting.remove(work)
            self.on_batch(work.outcome(None))

    def end_overdue(self) -> None:
        """Kill workers whose item has had its time."""
        for slot in [each for each in self.slots if each.left_s() <= 0]:
            ready, _ = ray.wait([slot.calls[0].ref], timeout=0)
            if ready:
                continue
            call = slot.calls[0]
            if call.work is None:
                slot.calls.clear()
                self._drop(slot)
                raise StageSetupError(f"a worker was not ready within {SETUP_DEADLINE_S:g} s")
            if call.key == FINISH:
                raise StageError(
                    f"{call.work.batch.key} was not finished within {self.limits.finish_s:g} s"
                )
            count = call.work.attempts.get(call.key, 0) + 1
            self._drop(slot)
            detail = f"not finished within {self.limits.deadline_s:g} s"
            seconds = self.limits.deadline_s
            self._give_up(
                call.work, Outcome(call.key, None, Reason.TIMED_OUT, detail, count, seconds)
            )

    def close(self) -> None:
        """End all workers."""
        for slot in self.slots:
            ray.kill(slot.actor)
        self.slots = []


def drive(
    pools: Sequence[Pool], on_progress: Callable[[StageProgress], None] | None = None
) -> None:
    """Run pools, which may submit batches to each other, until all are idle; then close them.

    Args:
        pools: in the order of the data's way; progress is the last one's.
        on_progress: called after every answer and about once a second in between.
    """
    began = reported = time.monotonic()
    try:
        while not all(pool.idle for pool in pools):
            for pool in pools:
                pool.fill()
            before = [pool.done for pool in pools]
            for pool, slot in _changed(pools):
                pool.take(slot)
            for pool in pools:
                pool.end_overdue()
            now = time.monotonic()
            moved = before != [pool.done for pool in pools]
            if on_progress and (moved or now - reported >= TICK_S):
                reported = now
                last = pools[-1]
                on_progress(StageProgress(last.done, last.total, last.running, now - began))
    finally:
        for pool in pools:
            pool.close()


def _changed(pools: Sequence[Pool]) -> list[tuple[Pool, _Slot]]:
    """Wait until a worker answers or a deadline passes; the workers that answered."""
    heads = {slot.calls[0].ref: (pool, slot) for pool in pools for slot in pool.slots if slot.calls}
    if not heads:
        return []
    left = [slot.left_s() for pool in pools for slot in pool.slots]
    timeout = max(0.0, min([TICK_S, *left]))
    ready, waiting = ray.wait(list(heads), num_returns=1, timeout=timeout)
    if ready and waiting:
        ready += ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
    return [heads[ref] for ref in ready]
