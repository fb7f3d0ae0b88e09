"""A stage, what it works on, and how that ends; what an item may cost."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from datasets.errors import Reason


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage needs. Fractions share a CPU or GPU among workers."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0
    """Resident memory; 0: not accounted for."""


class Stage(ABC):
    """One step over records. Its fields are its configuration; it knows nothing of Ray.

    A stage travels to its workers by pickle, so heavy things are made in `setup`.
    """

    resources: Resources = Resources()

    def setup(self) -> None:
        """Load heavy things, once per worker. Raising here ends the run."""
        return

    def may_be_long(self, item: Any) -> bool:
        """Whether `extra_seconds` is worth a call; asked in the driver, so it must be quick."""
        return False

    def extra_seconds(self, item: Any) -> float:
        """Time that an item may take beyond the deadline; asked in the worker."""
        return 0.0

    def begin(self, group: str) -> None:
        """A group begins; what an earlier, unfinished one left in this worker is void."""
        return

    @abstractmethod
    def process(self, item: Any) -> Any:
        """Work on one item; the result travels to the driver, so it should be small."""

    def finish(self, group: str) -> Any:
        """All items of a group are through: make their work durable. Raising here ends the
        run."""
        return None


@dataclass(frozen=True)
class Outcome:
    """How one item ended."""

    key: str
    """The item's name."""
    value: Any
    """What `process` returned; None when it did not."""
    reason: Reason
    """`Reason.NONE` when it did."""
    detail: str
    """What exactly went wrong, in one line."""
    attempts: int
    """How many times it was started."""
    seconds: float
    """How long the last attempt took."""


@dataclass(frozen=True)
class ItemGroup:
    """Items that one worker processes in order and finishes together."""

    key: str
    """The group's name, unique in its run."""
    items: tuple[tuple[str, Any], ...]
    """(key, item) pairs; keys are unique in the run."""


@dataclass(frozen=True)
class GroupOutcome:
    """How a group ended."""

    key: str
    outcomes: tuple[Outcome, ...]
    """One for each item, in the group's order."""
    value: Any
    """What `finish` returned; None when no item was left to be worked on."""


@dataclass(frozen=True)
class StageProgress:
    """Where a run stands."""

    done: int
    total: int
    running: int
    seconds: float
    """Since the run began."""


@dataclass(frozen=True)
class Limits:
    """What an item may cost."""

    deadline_s: float = 600.0
    """Seconds that one item may take before its worker is killed; `Stage.extra_seconds` adds to
    it."""
    max_attempts: int = 3
    """How many workers an item may take down before it is given up."""
    recycle_after: int = 2000
    """Items after which a worker is replaced, against leaks in libraries; each time costs as
    much as some short items, so not often."""
    finish_s: float = 600.0
    """Seconds that finishing a group may take."""


class StageError(RuntimeError):
    """A stage could not finish a group; the text says why."""


class StageSetupError(RuntimeError):
    """A worker could not be made ready; the text says why."""
