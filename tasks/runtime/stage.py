"""A stage, what it works on and with which outcome, and the limits of an item."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from datasets.errors import Reason


@dataclass(frozen=True)
class Resources:
    """The resources of one worker of a stage. Fractions share a CPU or GPU among workers."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0
    """Bytes of resident memory; 0: not accounted for."""


class Stage(ABC):
    """One step over records. Its fields are its configuration; it knows nothing about Ray.

    A stage is pickled for its workers, so heavy objects are created in `setup`.
    """

    resources: Resources = Resources()

    def setup(self) -> None:
        """Load heavy objects, once per worker. An error raised here ends the run."""
        return

    def may_be_long(self, item: Any) -> bool:
        """Whether `extra_seconds` is worth a call; asked in the driver, so it must be quick."""
        return False

    def extra_seconds(self, item: Any) -> float:
        """Seconds that an item may take beyond the deadline; called in the worker."""
        return 0.0

    def begin(self, group: str) -> None:
        """Begin a group; what an earlier, unfinished group left in this worker is void."""
        return

    @abstractmethod
    def process(self, item: Any) -> Any:
        """Work on one item; the result travels to the driver, so it should be small."""

    def finish(self, group: str) -> Any:
        """Make the work on a group's items durable; all are done. An error raised here ends the
        run."""
        return None


@dataclass(frozen=True)
class Outcome:
    """How one item ended."""

    key: str
    """The item's name."""
    value: Any
    """What `process` returned; None if it failed."""
    reason: Reason
    """`Reason.NONE` if it succeeded."""
    detail: str
    """What exactly went wrong, in one line."""
    attempts: int
    """Number of attempts."""
    seconds: float
    """Seconds that the last attempt took."""


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
    """What `finish` returned; None if no item was left to work on."""


@dataclass(frozen=True)
class StageProgress:
    """Where a run stands."""

    done: int
    total: int
    running: int
    seconds: float
    """Seconds since the run began."""


@dataclass(frozen=True)
class Limits:
    """The limits of an item."""

    deadline_s: float = 600.0
    """Seconds that one item may take before its worker is killed; `Stage.extra_seconds` adds to
    it."""
    max_attempts: int = 3
    """How many workers an item may take down before it is abandoned."""
    recycle_after: int = 2000
    """Items after which a worker is replaced, against leaks in libraries; each time costs as
    much as some short items, so not often."""
    finish_s: float = 600.0
    """Seconds that finishing a group may take."""


class StageError(RuntimeError):
    """A stage could not finish a group; the text says why."""


class StageSetupError(RuntimeError):
    """A worker could not be made ready; the text says why."""
