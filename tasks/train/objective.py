"""What a stage learns and who trains it, from the loop's point of view."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rank:
    """One process among those that train together."""

    device: torch.device
    """The device on which it computes."""
    rank: int = 0
    """From 0; rank 0 writes checkpoints and curves."""
    world_size: int = 1
    """Number of processes."""
    shares: int = 0
    """Equal shares of every step, each with its own samples and random numbers, which are dealt
    out to the processes: with fewer processes a step is the same; 0: one share for each."""

    @property
    def all_shares(self) -> int:
        """Shares of a step."""
        return self.shares or self.world_size

    @property
    def own_shares(self) -> list[int]:
        """The shares that this process computes, from 0; there are no more processes than shares.
        Rank 0 has no fewer than any other."""
        if not self.shares:
            return [self.rank]
        return list(range(self.rank, self.all_shares, self.world_size))

    @property
    def leads(self) -> bool:
        return self.rank == 0


class Paused(Exception):
    """Training has ended early, as it was asked to, with a checkpoint."""


class Reporter(Protocol):
    """Takes what rank 0 reports."""

    def progress(self, line: str) -> None:
        """Show one line to the person who waits."""


@dataclass(frozen=True)
class StageRun:
    """One stage as one worker trains it."""

    name: str
    """The stage's name."""
    folder: Path
    """Its checkpoints and curves."""
    digest: str
    """Of everything that the result depends on; checkpoints carry it."""
    seed: int
    """Of the data's order, the noise and the dropout."""
    worker: Rank
    """This process."""
    reporter: Reporter
    """Takes lines of progress."""
    goes_on_from: tuple[str, ...] = ()
    """Digests of other trainings whose checkpoints this one may go on from."""
    must_pause: Callable[[], bool] | None = None
    """Whether to write a checkpoint and raise `Paused`; the leader asks at every point of the
    curve."""


class Objective(ABC):
    """What a stage learns."""

    network: nn.Module
    """Its parameters with `requires_grad` are trained; its whole state is saved."""
    slower: Mapping[str, float] = {}
    """Beginnings of weights' names, and the share of the learning rate that they learn with."""
    measure_every: int = 0
    """Steps between two calls of `measure`; 0 for none."""
    sample_every: int = 0
    """Steps between two calls of `sample`; 0 for none."""
    score: str = ""
    """Which value of `measure` says how good the network is, less is better; empty: none does."""

    @abstractmethod
    def batch(self, step: int, share: int = 0) -> Any:
        """The samples of a share of a step, on the CPU: a tensor, or a dataclass of tensors, each
        (b, ...).

        Called from another thread, in the order of steps.
        """

    def streamed(self, step: int, share: int = 0) -> Generator[Any, None, None] | None:
        """The batches of a share from a step on, of a stage that streams them; None: `batch`
        makes them."""
        return None

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, a mean over the samples, and named parts of it for the curves."""

    def notice(self, step: int, loss: float, since: int) -> str:
        """What a person should know about the course of the loss; empty if it is as it should be.

        Args:
            step: steps done.
            loss: its mean over the last `since` steps.
            since: number of these steps.
        """
        return ""

    def measure(self) -> dict[str, float]:
        """Scores on held-out samples, for the curves."""
        return {}

    def sample(self, step: int) -> dict[str, float]:
        """Show what the network makes, in files; returns scores of that, for the curves."""
        return {}


def parts_of(batch: Any, size: int) -> Iterator[tuple[Any, float]]:
    """A batch in parts of `size` samples, each with its share of all samples.

    Args:
        batch: a tensor or a dataclass of them (also of dataclasses), all with the samples first, or
            `Sliced`.
        size: 0 for the whole batch at once.
    """
    count = _samples(batch) if size else 0
    if count <= size:
        yield batch, 1.0
        return
    for start in range(0, count, size):
        stop = min(count, start + size)
        yield _slice(batch, start, stop), (stop - start) / count


@runtime_checkable
class Sliced(Protocol):
    """Samples that are not tensors with one entry for each."""

    def __len__(self) -> int:
        """How many samples."""

    def part(self, start: int, stop: int) -> Self:
        """The samples from `start` to before `stop`."""


def _samples(batch: Any) -> int:
    if isinstance(batch, Tensor | Sliced):
        return len(batch)
    return _samples(getattr(batch, fields(batch)[0].name))


def _slice(batch: Any, start: int, stop: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[start:stop]
    if isinstance(batch, Sliced):
        return batch.part(start, stop)
    parts = {each.name: _slice(getattr(batch, each.name), start, stop) for each in fields(batch)}
    return replace(batch, **parts)
