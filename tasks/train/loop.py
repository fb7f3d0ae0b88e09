"""One training loop for all stages, which differ only in their `Objective`.

Everything random is a function of (seed, step, rank): the batch, the noise, the dropout.
So a run that was killed goes on from its checkpoint with exactly the losses of a run that was
never interrupted; on a CPU bit for bit (tests/tasks/train/test_loop.py).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypedDict, cast

import torch
from torch import Tensor, nn

from datasets.errors import UserError
from tasks.recipes.config import StageConfig
from tasks.train.checkpoints import CHECKPOINT, load_state, save_state
from tasks.train.curves import METRICS, Clock, Curve

AHEAD = 2
"""Batches that are prepared in the background while a step is computed."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Rank:
    """One process among those that train together."""

    device: torch.device
    """The device on which it computes."""
    rank: int = 0
    """From 0; rank 0 writes checkpoints and logs."""
    world_size: int = 1
    """Number of processes."""

    @property
    def leads(self) -> bool:
        return self.rank == 0


class Reporter(Protocol):
    """Takes what rank 0 reports."""

    def metrics(self, stage: str, values: dict[str, float], step: int) -> None:
        """Take points of the stage's curves after `step` steps."""

    def progress(self, line: str) -> None:
        """Show one line to the person who waits."""

    def finished(self, stage: str) -> None:
        """Finish the stage's curves: no more points will come."""


class Objective(ABC):
    """What a stage learns, from the loop's point of view."""

    network: nn.Module
    """Its parameters with `requires_grad` are trained; its whole state is saved."""
    measure_every: int = 0
    """Steps between two calls of `measure`; 0 for none."""

    @abstractmethod
    def batch(self, step: int) -> Any:
        """The samples of a step, on the CPU. Called from another thread, in the order of steps."""

    def streamed(self, step: int) -> Generator[Any, None, None] | None:
        """The batches from a step on, of a stage that streams them; None: `batch` makes them."""
        return None

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and named parts of it for the curves."""

    def measure(self) -> dict[str, float]:
        """Scores on held-out samples, for the curves."""
        return {}


def learning_rate(config: StageConfig, step: int) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then as scheduled."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of torch's generators for one step of one worker."""
    return (seed * 1_000_003 + step * 8_191 + rank) % (1 << 63)


class TrainingState(TypedDict):
    """What a checkpoint of a stage holds."""

    version: int
    digest: str
    """Digest of everything that the stage depends on."""
    seed: int
    step: int
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    average: dict[str, Tensor]


@dataclass
class _State:
    """Everything that a checkpoint holds besides the network itself."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor]
    step: int = 0

    def save(self, path: Path, digest: str, seed: int) -> None:
        state: TrainingState = {
            "version": 1,
            "digest": digest,
            "seed": seed,
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average,
        }
        save_state(path, state)

    def restore(self, path: Path, digest: str, seed: int) -> None:
        """Go on from `path` if it is a checkpoint of the same training; otherwise start from
        scratch."""
        if not path.is_file():
            return
        state = cast(TrainingState, load_state(path))
        if state.get("digest") != digest or state.get("seed") != seed:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self.step = int(state["step"])

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the averaged weights towards the current ones, faster in the first steps."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        current = dict(self.network.named_parameters())
        for name, value in self.average.items():
            value.lerp_(current[name].detach().to(value.dtype), 1 - decay)


def train(
    objective: Objective,
    config: StageConfig,
    folder: Path,
    *,
    stage: str,
    digest: str,
    seed: int,
    worker: Rank,
    reporter: Reporter,
) -> None:
    """Train to `config.steps`, going on from `folder/checkpoint.pt` if it matches `digest`.

    Afterwards `objective.network` holds the weights that the stage hands on: the averaged
    ones with `config.ema`, otherwise the last ones.

    Raises:
        UserError: the loss is not a finite number.
        OSError: the checkpoint cannot be written.
    """
    state = _prepare(objective, config, worker)
    path = folder / CHECKPOINT
    folder.mkdir(parents=True, exist_ok=True)
    state.restore(path, digest, seed)
    curve = Curve(folder / METRICS)
    if worker.leads:
        curve.cut(state.step)
        if state.step:
            reporter.progress(f"{stage}: going on from step {state.step}")
    if config.steps == 0 and worker.leads:
        state.save(path, digest, seed)
    clock = Clock(stage, config.steps, state.step)
    objective.network.train()
    with _batches(objective, state.step, config.steps) as batches:
        for batch in batches:
            torch.manual_seed(step_seed(seed, state.step, worker.rank))
            values = _step(objective, config, state, batch, worker)
            state.step += 1
            if config.ema:
                state.follow(config.ema)
            curve.add(values)
            due = state.step % config.checkpoint_every == 0 or state.step == config.steps
            if due or state.step % config.log_every == 0:
                _log(objective, config, state, curve, stage, worker, reporter)
            if due and worker.leads:
                state.save(path, digest, seed)
            if worker.leads and (line := clock.line(state.step, curve)):
                reporter.progress(line)
    _hand_on(state)


def _prepare(objective: Objective, config: StageConfig, worker: Rank) -> _State:
    network = objective.network
    learned = {name: each for name, each in network.named_parameters() if each.requires_grad}
    if not learned:
        raise ValueError(f"{type(objective).__name__} has no weights to train")
    optimizer = torch.optim.AdamW(learned.values(), lr=config.lr, weight_decay=config.weight_decay)
    uses_scaler = config.precision == "fp16" and worker.device.type == "cuda"
    scaler = torch.amp.GradScaler(worker.device.type, enabled=uses_scaler)
    average = {name: each.detach().clone().float() for name, each in learned.items() if config.ema}
    return _State(network, optimizer, scaler, average)


def _step(
    objective: Objective, config: StageConfig, state: _State, batch: Any, worker: Rank
) -> dict[str, Tensor]:
    """Do one forward pass, backward pass and update; returns the loss and its parts."""
    rate = learning_rate(config, state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    lower = worker.device.type == "cuda" and config.precision != "fp32"
    with torch.autocast(worker.device.type, DTYPES[config.precision], enabled=lower):
        loss, parts = objective.loss(batch)
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    learned = [each for group in state.optimizer.param_groups for each in group["params"]]
    # Before unscaling, so that all workers see the same infinities and skip the step together.
    share_gradients(learned, worker)
    state.scaler.unscale_(state.optimizer)
    torch.nn.utils.clip_grad_norm_(learned, config.clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return {"loss": loss, **parts}


def share_gradients(parameters: list[nn.Parameter], worker: Rank) -> None:
    """Replace each gradient by its mean over all workers.

    By one all-reduce per type rather than by DistributedDataParallel, since a stage's
    loss runs several networks and parts of them. A missing gradient counts as 0.
    """
    if worker.world_size == 1:
        return
    for each in parameters:
        if each.grad is None:
            each.grad = torch.zeros_like(each)
    for dtype in sorted({each.dtype for each in parameters}, key=str):
        grads = [each.grad for each in parameters if each.dtype == dtype and each.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        torch.distributed.all_reduce(flat)
        flat /= worker.world_size
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))


def _log(
    objective: Objective,
    config: StageConfig,
    state: _State,
    curve: Curve,
    stage: str,
    worker: Rank,
    reporter: Reporter,
) -> None:
    """Write one point of the curves; every rank checks its own loss."""
    values = curve.point()
    if not math.isfinite(values["loss"]):
        raise UserError(
            f"the loss of {stage} is {values['loss']} at step {state.step}: lower {stage}.lr "
            f"(now {config.lr}) or raise {stage}.warmup (now {config.warmup})"
        )
    if not worker.leads:
        return
    values["lr"] = learning_rate(config, state.step - 1)
    every = objective.measure_every
    if every and (state.step % every == 0 or state.step == config.steps):
        values |= objective.measure()
        objective.network.train()
    curve.write(state.step, values)
    reporter.metrics(stage, values, state.step)


def _hand_on(state: _State) -> None:
    state.network.eval()
    current = dict(state.network.named_parameters())
    with torch.no_grad():
        for name, value in state.average.items():
            current[name].copy_(value)


@contextmanager
def _batches(objective: Objective, start: int, stop: int) -> Iterator[Iterator[Any]]:
    """The batches of steps `start` to `stop`, a few prepared ahead: by one thread, or by the
    processes that stream them."""
    if (streamed := objective.streamed(start)) is not None:
        with closing(streamed):
            yield islice(streamed, stop - start)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def stream() -> Iterator[Any]:
        waiting: list[Future[Any]] = []
        for step in range(start, stop):
            last = min(step + AHEAD, stop - 1)
            while step + len(waiting) <= last:
                waiting.append(pool.submit(objective.batch, step + len(waiting)))
            yield waiting.pop(0).result()

    try:
        yield stream()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
