"""The pools of Ray actors behind `tasks.runtime.executor`, and the loop that drives them.

A worker has one group and one call at a time. With several calls under way, a worker's death
could not be attributed to the item that caused it, since earlier answers get lost as well.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from datasets.errors import Reason, UserError
from tasks.runtime.failures import one_line
from tasks.runtime.room import room
from tasks.runtime.stage import (
    GroupOutcome,
    ItemGroup,
    Limits,
    Outcome,
    Stage,
    StageError,
    StageProgress,
    StageSetupError,
)
from tasks.runtime.worker import Reply, Worker

SETUP_DEADLINE_S = 600.0
"""Seconds that a stage's `setup` may take, including model loading from a slow disk."""
SETUP_ATTEMPTS = 3
"""Workers in a row that may die before they are ready."""
FINISH = ""
"""Takes the place of an item's key; no item has this key."""
NO_ROOM_S = 300.0
"""Seconds that a cluster may have no node for a worker, for example while it starts new ones."""
TICK_S = 1.0
"""Longest wait before progress is reported again."""


@dataclass(eq=False)
class _Work:
    """A group that is waiting or being worked on."""

    group: ItemGroup
    attempts: dict[str, int] = field(default_factory=dict)
    given_up: dict[str, Outcome] = field(default_factory=dict)
    """Items that took down as many workers as allowed, or passed their deadline."""
    answered: dict[str, Outcome] = field(default_factory=dict)
    """Results by the worker that has the group now; void if that worker dies."""

    def left(self) -> deque[tuple[str, Any]]:
        """Items still worth working on when the group is started (again)."""
        return deque((key, item) for key, item in self.group.items if key not in self.given_up)

    def outcome(self, value: Any) -> GroupOutcome:
        all_of_them = self.answered | self.given_up
        return GroupOutcome(
            self.group.key, tuple(all_of_them[key] for key, _ in self.group.items), value
        )


@dataclass
class _Call:
    """What a worker is doing: an item, or its setup."""

    ref: Any
    deadline_s: float | None
    key: str = FINISH
    """Key of the item; `FINISH` for the call that finishes the group."""
    asks: bool = False
    """Whether it asks how long the item may take, before the worker gets the item."""
    since: float = field(default_factory=time.monotonic)

    def left_s(self) -> float:
        """Seconds until the deadline."""
        if self.deadline_s is None:
            return float("inf")
        return self.since + self.deadline_s - time.monotonic()


@dataclass
class _Slot:
    """One worker, as the driver sees it."""

    actor: Any
    call: _Call | None = None
    work: _Work | None = None
    """Its group; None during setup or if it has nothing to do."""
    left: deque[tuple[str, Any]] = field(default_factory=deque)
    """Items of the group that it has not received yet."""
    begun: bool = False
    """Whether it has received an item of the group."""
    generation: int = 0
    """Number of the set of workers that were started together."""
    said_hello: bool = False
    ready: bool = False
    taken: int = 0


class Pool:
    """The workers of one stage.

    Args:
        stage: the stage that they run.
        size: their maximum number.
        limits: what an item may cost.
        on_group: called with every group that has ended.
        may_start: asked before a worker gets a group; back-pressure from a later stage.
    """

    def __init__(
        self,
        stage: Stage,
        size: int,
        limits: Limits,
        on_group: Callable[[GroupOutcome], None],
        may_start: Callable[[], bool] = lambda: True,
    ) -> None:
        self.need = need = stage.resources
        options = {"num_cpus": need.cpus, "num_gpus": need.gpus, "max_restarts": 0}
        if need.memory_bytes:
            options["memory"] = need.memory_bytes
        self._finishes = type(stage).finish is not Stage.finish
        self.new_actor = ray.remote(Worker).options(**options).remote
        self.stage, self.stage_ref = stage, ray.put(stage)
        self.size = size
        self.limits = limits
        self.on_group = on_group
        self.may_start = may_start
        self.slots: list[_Slot] = []
        self.waiting: deque[_Work] = deque()
        self.done = 0
        """Number of items that have ended, or at least been answered."""
        self.total = 0
        self._no_room_since: float | None = None
        self._generation = 0
        self._failed: set[int] = set()
        """Generations since the last ready worker in which a worker died before it was ready."""

    def submit(self, group: ItemGroup) -> None:
        """Add a group at the end of the queue; one without items ends at once."""
        self.total += len(group.items)
        if group.items:
            self.waiting.append(_Work(group))
        else:
            self.on_group(GroupOutcome(group.key, (), None))

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or running."""
        return not self.waiting and not self.running

    @property
    def running(self) -> int:
        """Workers that have a group."""
        return sum(1 for slot in self.slots if slot.work)

    def fill(self) -> None:
        """Give work to every free worker; replace those that are gone or worn out."""
        for slot in [each for each in self.slots if self._spent(each) and not each.work]:
            self._drop(slot)
        self._generation += 1
        while len(self.slots) < min(self.size, len(self.waiting) + self.running):
            slot = _Slot(self.new_actor(), generation=self._generation)
            slot.call = _Call(slot.actor.hello.remote(), None)
            self.slots.append(slot)
        for slot in self.slots:
            if slot.ready and not slot.work and self.waiting and self.may_start():
                slot.work = self.waiting.popleft()
                slot.left = slot.work.left()
                slot.taken += len(slot.left)
                slot.begun = False
                self._call_next(slot)

    def _spent(self, slot: _Slot) -> bool:
        return slot.taken >= self.limits.recycle_after

    def _call_next(self, slot: _Slot) -> None:
        """Give a worker the next item of its group, or let it finish the group."""
        assert slot.work is not None
        group = slot.work.group.key
        if slot.left:
            key, item = slot.left[0]
            if self.stage.may_be_long(item):
                ref = slot.actor.extra_seconds.remote(item)
                slot.call = _Call(ref, self.limits.deadline_s, key, asks=True)
            else:
                self._process(slot, group, 0.0)
        elif self._finishes:
            slot.call = _Call(slot.actor.finish.remote(group), self.limits.finish_s)
        else:
            self._end_group(slot, None)

    def _process(self, slot: _Slot, group: str, extra_s: float) -> None:
        """Give a worker an item."""
        key, item = slot.left.popleft()
        ref = slot.actor.process.remote(group, item, not slot.begun)
        slot.begun = True
        slot.call = _Call(ref, self.limits.deadline_s + extra_s, key)

    def _end_group(self, slot: _Slot, value: Any) -> None:
        assert slot.work is not None
        work, slot.work, slot.call = slot.work, None, None
        self.on_group(work.outcome(value))

    def take(self, slot: _Slot) -> None:
        """Take the answer of a worker, which has arrived."""
        assert slot.call is not None
        try:
            answer = ray.get(slot.call.ref)
        except RayTaskError as error:
            # Outside the stage's own code: an item or a result that cannot be pickled.
            text = one_line(error.cause or error)[:500]
            if slot.work is None:
                raise StageSetupError(text) from error
            if slot.call.key == FINISH:
                raise StageError(f"{slot.work.group.key} could not be finished: {text}") from error
            answer = Reply(None, Reason.INTERNAL, text, 0.0)
        except RayError as error:
            self._lost(slot, one_line(error)[:500])
            return
        if slot.work is not None:
            self._answered(slot, slot.work, slot.call, answer)
        elif not slot.said_hello:
            slot.said_hello = True
            slot.call = _Call(slot.actor.setup.remote(self.stage_ref), SETUP_DEADLINE_S)
        else:
            if answer is not None:
                raise answer
            slot.call, slot.ready = None, True
            self._failed.clear()

    def _answered(self, slot: _Slot, work: _Work, call: _Call, reply: Reply | float) -> None:
        if not isinstance(reply, Reply):
            self._process(slot, work.group.key, reply)
            return
        if reply.fatal is not None:
            raise reply.fatal
        if call.key == FINISH:
            self._end_group(slot, reply.value)
            return
        if call.asks:
            # The item could not even be sent.
            slot.left.popleft()
        work.answered[call.key] = self._outcome(work, call.key, reply)
        self.done += 1
        self._call_next(slot)

    def _outcome(self, work: _Work, key: str, reply: Reply) -> Outcome:
        attempts = work.attempts.get(key, 0) + 1
        return Outcome(key, reply.value, reply.reason, reply.detail, attempts, reply.seconds)

    def _drop(self, slot: _Slot) -> None:
        """Forget a worker; a group that it had not finished goes back to the front."""
        self.slots.remove(slot)
        if slot.work:
            self.done -= len(slot.work.answered)
            slot.work.answered.clear()
            self.waiting.appendleft(slot.work)
        with suppress(RayError):
            ray.kill(slot.actor)

    def _lost(self, slot: _Slot, why: str) -> None:
        """Handle the death of a worker and the fate of its work."""
        assert slot.call is not None
        self._drop(slot)
        if slot.work is None:
            # A lost node takes several workers with it, which counts as one failure.
            self._failed.add(slot.generation)
            if len(self._failed) >= SETUP_ATTEMPTS:
                raise StageSetupError(
                    f"{len(self._failed)} workers in a row died before they were ready: {why}"
                )
            return
        work, key = slot.work, slot.call.key
        work.attempts[key] = count = work.attempts.get(key, 0) + 1
        if count < self.limits.max_attempts:
            # At the end of the queue, so that a poisoned item does not hold up the others.
            self.waiting.rotate(-1)
        elif key == FINISH:
            raise StageError(f"{work.group.key} could not be finished: {why}")
        else:
            detail = f"the process that worked on it died, {count} time{'s'[: count > 1]}"
            seconds = time.monotonic() - slot.call.since
            self._give_up(work, Outcome(key, None, Reason.WORKER_DIED, detail, count, seconds))

    def _give_up(self, work: _Work, outcome: Outcome) -> None:
        """End an item without an answer; its group, at the front of the queue, goes on without
        it."""
        work.given_up[outcome.key] = outcome
        self.done += 1
        if not work.left():
            self.waiting.popleft()
            self.on_group(work.outcome(None))

    def end_overdue(self) -> None:
        """Kill workers whose item has passed its deadline."""
        for slot in [each for each in self.slots if each.call and each.call.left_s() <= 0]:
            assert slot.call is not None
            ready, _ = ray.wait([slot.call.ref], timeout=0)
            if ready:
                continue
            self._drop(slot)
            key, work = slot.call.key, slot.work
            if work is None:
                raise StageSetupError(f"a worker was not ready within {SETUP_DEADLINE_S:g} s")
            limit = slot.call.deadline_s or 0.0
            detail = f"not finished within {limit:.6g} s"
            if key == FINISH:
                raise StageError(f"{work.group.key}: {detail}")
            count = work.attempts.get(key, 0) + 1
            self._give_up(work, Outcome(key, None, Reason.TIMED_OUT, detail, count, limit))

    def check_room(self) -> None:
        """Give up if no node has had room for a worker for a long time.

        Raises:
            UserError: the cluster lost the nodes that it had.
        """
        if not self.slots or any(slot.said_hello for slot in self.slots) or room(self.need):
            self._no_room_since = None
            return
        now = time.monotonic()
        self._no_room_since = self._no_room_since or now
        if now - self._no_room_since > NO_ROOM_S:
            raise UserError(
                f"the cluster has had no node for a worker for {NO_ROOM_S:g} s: start nodes again "
                "and run the same command, which goes on where this one stopped"
            )

    def cancel(self, group: str) -> bool:
        """Take a group out, whose end is then not told: a worker that has it is ended.

        Returns:
            Whether it was there.
        """
        for work in [each for each in self.waiting if each.group.key == group]:
            self.waiting.remove(work)
            self.total -= len(work.group.items)
            return True
        for slot in [each for each in self.slots if each.work and each.work.group.key == group]:
            assert slot.work is not None
            self.total -= len(slot.work.group.items)
            self.done -= len(slot.work.answered)
            slot.work = None
            self._drop(slot)
            return True
        return False

    def close(self) -> None:
        """End all workers."""
        for slot in self.slots:
            with suppress(RayError):
                ray.kill(slot.actor)
        self.slots = []


def drive(
    pools: Sequence[Pool], on_progress: Callable[[list[StageProgress]], None] | None = None
) -> None:
    """Run pools, which may submit groups to each other, until all are idle, then close them.

    Args:
        pools: in the order in which data passes through them.
        on_progress: called with the state of each pool after every answer, and about once a
            second in between.
    """
    began = reported = time.monotonic()
    try:
        while not all(pool.idle for pool in pools):
            before = [pool.done for pool in pools]
            _step(pools)
            now = time.monotonic()
            moved = before != [pool.done for pool in pools]
            if on_progress and (moved or now - reported >= TICK_S):
                reported = now
                seconds = now - began
                on_progress(
                    [StageProgress(each.done, each.total, each.running, seconds) for each in pools]
                )
    finally:
        for pool in pools:
            pool.close()


def keep_driving(pool: Pool, feed: Callable[[], bool], pause_s: float = 0.1) -> None:
    """Run a pool that is given work from time to time, then close it.

    Args:
        pool: its workers stay when they have nothing to do.
        feed: called again and again, to submit and cancel groups; returns whether to go on.
        pause_s: seconds between two calls while there is nothing to do.
    """
    try:
        while feed():
            _step([pool])
            if pool.idle:
                time.sleep(pause_s)
    finally:
        pool.close()


def _step(pools: Sequence[Pool]) -> None:
    """Hand out work, and wait for an answer, for a moment."""
    for pool in pools:
        pool.fill()
    for pool, slot in _changed(pools):
        pool.take(slot)
    for pool in pools:
        pool.end_overdue()
        pool.check_room()


def _changed(pools: Sequence[Pool]) -> list[tuple[Pool, _Slot]]:
    """Wait until a worker answers or a deadline passes; the workers that answered."""
    heads = {slot.call.ref: (pool, slot) for pool in pools for slot in pool.slots if slot.call}
    if not heads:
        return []
    left = [slot.call.left_s() for _, slot in heads.values() if slot.call]
    timeout = max(0.0, min([TICK_S, *left]))
    ready, waiting = ray.wait(list(heads), num_returns=1, timeout=timeout)
    if ready and waiting:
        ready += ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]
    return [heads[ref] for ref in ready]
