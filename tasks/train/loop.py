"""One training loop for all stages, which differ only in their `Objective`.

Everything random is a function of (seed, step, sample): the batch, the noise, the dropout.
So a run that was killed goes on from its checkpoint with exactly the losses of a run that was
never interrupted; on a CPU bit for bit (tests/tasks/train/test_loop.py).
"""

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import torch

from datasets.errors import UserError
from tasks.recipes.config import StageConfig
from tasks.train.checkpoints import CHECKPOINT
from tasks.train.curves import METRICS, RUNTIME, Clock, Curve, Meter
from tasks.train.kept import BEST
from tasks.train.objective import Objective, Paused, StageRun
from tasks.train.state import State
from tasks.train.update import Updates, learning_rate, prepare

AHEAD = 2
"""Batches that are prepared in the background while a step is computed."""


def step_seed(seed: int, step: int, index: int) -> int:
    """The seed of torch's generators for one step of one share or sample."""
    return (seed * 1_000_003 + step * 8_191 + index) % (1 << 63)


def train(objective: Objective, config: StageConfig, run: StageRun) -> None:
    """Train to `config.steps`, going on from the newest checkpoint in `run.folder` if there is one.

    Afterwards `objective.network` holds the weights that the stage hands on, whole in every worker:
    the averaged ones with `config.ema`, otherwise the last ones.

    Raises:
        UserError: too many steps in a row were not finite, or the checkpoint is another training's.
        OSError: the checkpoint cannot be written.
        Paused: the run was asked to end early; a checkpoint is there.
    """
    state = prepare(objective, config, run.worker)
    run.folder.mkdir(parents=True, exist_ok=True)
    state.restore(run.folder, {run.digest, *run.goes_on_from}, run.seed)
    if state.step > config.steps:
        raise UserError(
            f"{run.name} has been trained for {state.step} steps, more than {run.name}.steps = "
            f"{config.steps}: raise it, or choose another output folder"
        )
    loop = _Loop(objective, config, run, state)
    if config.steps == 0:
        loop.save(run.folder / CHECKPOINT)
    objective.network.train()

    def draw(share: int) -> None:
        torch.manual_seed(step_seed(run.seed, state.step, share))

    updates = Updates(config, state, run.worker, run.name, draw)
    with _batches(objective, run.worker.own_shares, state.step, config.steps) as steps:
        for batches, waited_s in steps:
            values = updates.step(*batches)
            state.step += 1
            if values and config.ema:
                state.follow(config.ema)
            loop.after_step(values, waited_s)
    state.finish()
    state.hand_on()


class _Loop:
    """What is written and said between the steps."""

    def __init__(
        self, objective: Objective, config: StageConfig, run: StageRun, state: State
    ) -> None:
        self.objective, self.config, self.run, self.state = objective, config, run, state
        self.curve = Curve(run.folder / METRICS)
        self.runtime = Curve(run.folder / RUNTIME)
        self.meter = Meter(config.batch_size * run.worker.all_shares, run.worker.device)
        self.clock = Clock(run.name, config.steps, state.step)
        if run.worker.leads:
            self.curve.cut(state.step)
            self.runtime.cut(state.step)
            if state.step:
                run.reporter.progress(f"{run.name}: going on from step {state.step}")

    def after_step(self, values: dict[str, torch.Tensor], waited_s: float) -> None:
        config, step = self.config, self.state.step
        self.curve.add(values)
        self.meter.add(waited_s)
        due = step % config.checkpoint_every == 0 or step == config.steps
        if due or step % config.log_every == 0:
            self._point()
        pauses = step % config.log_every == 0 and step < config.steps and self._must_pause()
        if due or pauses:
            self.save(self.run.folder / CHECKPOINT, config.keep_last)
        if self.run.worker.leads and (line := self.clock.line(step, self.curve, self.meter)):
            self.run.reporter.progress(line)
        if pauses:
            self.state.finish()
            raise Paused

    def _must_pause(self) -> bool:
        """Whether the leader is asked to, which all are told."""
        if self.run.must_pause is None:
            return False
        asked = torch.tensor(int(self.run.worker.leads and self.run.must_pause()))
        if self.run.worker.world_size > 1:
            asked = asked.to(self.run.worker.device)
            torch.distributed.broadcast(asked, 0)
        return bool(asked)

    def _point(self) -> None:
        """Write one point of the curves."""
        values, step, leads = self.curve.point(), self.state.step, self.run.worker.leads
        if "loss" in values and leads:
            note = self.objective.notice(step, values["loss"], self.curve.since)
            if note:
                self.run.reporter.progress(f"{self.run.name}: {note}")
        values["lr"] = learning_rate(self.config, step - 1)
        if self.state.skipped:
            values["skipped"] = self.state.skipped
        measured = self._is_due(self.objective.measure_every)
        shown = self._is_due(self.objective.sample_every)
        if measured or shown:
            with self.state.together.whole():
                if leads and measured:
                    values |= self.objective.measure()
                if leads and shown:
                    values |= self.objective.sample(step)
            self.objective.network.train()
        if leads:
            self.curve.write(step, values)
            self.runtime.write(step, self.meter.point())
        if measured:
            self._keep_best(values)

    def _is_due(self, every: int) -> bool:
        step = self.state.step
        return every > 0 and (step % every == 0 or step == self.config.steps)

    def _keep_best(self, values: dict[str, float]) -> None:
        score = values.get(self.objective.score)
        if self.state.together.sharded:
            # All write it, and the leader alone has measured.
            told = [score]
            torch.distributed.broadcast_object_list(told, 0)
            score = told[0]
        if score is None or (self.state.best is not None and score >= self.state.best):
            return
        self.state.best = score
        self.save(self.run.folder / BEST)

    def save(self, path: Any, keep: int = 1) -> None:
        if self.run.worker.leads or self.state.together.sharded:
            self.state.save(path, self.run.digest, self.run.seed, keep)


@contextmanager
def _batches(
    objective: Objective, shares: Sequence[int], start: int, stop: int
) -> Iterator[Iterator[tuple[list[Any], float]]]:
    """The batches of some shares of steps `start` to `stop`, a few prepared ahead by one thread, or
    by the processes that stream them; of each step with the seconds that were waited for them."""
    with ExitStack() as stack:
        streams = [objective.streamed(start, share) for share in shares]
        found = [stack.enter_context(closing(each)) for each in streams if each is not None]
        if found:
            yield _timed(found, stop - start)
            return
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def prepared(step: int) -> list[Any]:
        return [objective.batch(step, share) for share in shares]

    def stream() -> Iterator[tuple[list[Any], float]]:
        waiting: list[Future[list[Any]]] = []
        for step in range(start, stop):
            last = min(step + AHEAD, stop - 1)
            while step + len(waiting) <= last:
                waiting.append(pool.submit(prepared, step + len(waiting)))
            began = time.monotonic()
            batch = waiting.pop(0).result()
            yield batch, time.monotonic() - began

    try:
        yield stream()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _timed(
    streams: Sequence[Generator[Any, None, None]], count: int
) -> Iterator[tuple[list[Any], float]]:
    for _ in range(count):
        began = time.monotonic()
        batches = [next(each) for each in streams]
        yield batches, time.monotonic() - began
