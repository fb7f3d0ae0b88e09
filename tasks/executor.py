"""Run stages over many items on Ray: bounded, with deadlines, and whatever the items do.

    class Double(Stage):
        def process(self, item: int) -> int:
            return 2 * item

    with ray_session():
        run_stage(Double(), [("a", 1), ("b", 2)], on_outcome=print)

Items come alone or in batches. A batch's items run in order on one worker, which then
finishes the batch as a whole: what they made together becomes durable there and then. Every
item ends in exactly one `Outcome`, handed over in the calling process. An item that raises,
hangs or kills its process is an outcome with a reason; it never ends the run, and the rest of
its batch is begun again without it. A full disk and mistakes of the user do end it, since
every further item would fail alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets.errors import Reason, UserError

MOST_PER_GPU = 16
"""Workers that share a GPU at most."""


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

    def begin(self, batch: str) -> None:
        """A batch begins; what an earlier, unfinished one left in this worker is void."""
        return

    @abstractmethod
    def process(self, item: Any) -> Any:
        """Work on one item; the result travels to the driver, so it should be small."""

    def finish(self, batch: str) -> Any:
        """All items of a batch are through: make their work durable. Raising here ends the
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
class Batch:
    """Items that one worker processes in order and finishes together."""

    key: str
    """The batch's name, unique in its run."""
    items: tuple[tuple[str, Any], ...]
    """(key, item) pairs; keys are unique in the run."""


@dataclass(frozen=True)
class BatchOutcome:
    """How a batch ended."""

    key: str
    outcomes: tuple[Outcome, ...]
    """One for each item, in the batch's order."""
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
    """Seconds that finishing a batch may take."""


def run_stage(
    stage: Stage,
    items: Sequence[tuple[str, Any]],
    *,
    on_outcome: Callable[[Outcome], None],
    workers: int | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[StageProgress], None] | None = None,
) -> None:
    """Process every item, each a batch of its own, on a pool of workers.

    Args:
        stage: what to do.
        items: (key, item) pairs; keys must differ.
        on_outcome: called in this process, in the order in which items end.
        workers, limits, on_progress: see `run_batches`.
    """

    def one_by_one(outcome: BatchOutcome) -> None:
        on_outcome(outcome.outcomes[0])

    batches = [Batch(key, ((key, item),)) for key, item in items]
    run_batches(
        stage,
        batches,
        on_batch=one_by_one,
        workers=workers,
        limits=limits,
        on_progress=on_progress,
    )


def run_batches(
    stage: Stage,
    batches: Sequence[Batch],
    *,
    on_batch: Callable[[BatchOutcome], None],
    workers: int | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[StageProgress], None] | None = None,
) -> None:
    """Process all batches on a pool of workers; needs a `ray_session`.

    Args:
        stage: what to do.
        batches: names of batches and keys of items must differ.
        on_batch: called in this process, in the order in which batches end.
        workers: processes; None: as many as fit, but no more than batches.
        limits: what an item may cost.
        on_progress: called after every answer and about once a second in between.

    Raises:
        UserError: the workers do not fit the cluster, or a worker raised one.
        OSError: a worker's disk is full.
        StageSetupError: `stage.setup` failed.
        StageError: a batch could not be finished.
    """
    for names in (
        [each.key for each in batches],
        [key for each in batches for key, _ in each.items],
    ):
        if len(set(names)) != len(names) or "" in names:
            raise ValueError("keys of batches and items must differ, and none be empty")
    if not batches:
        return
    from tasks.executor_pool import Pool, drive

    pool = Pool(stage, fitting_workers(stage.resources, workers), limits or Limits(), on_batch)
    for batch in batches:
        pool.submit(batch)
    drive([pool], (lambda states: on_progress(states[0])) if on_progress else None)


class StageError(RuntimeError):
    """A stage could not finish a batch; the text says why."""


class StageSetupError(RuntimeError):
    """A worker could not be made ready; the text says why."""


def fitting_workers(need: Resources, wanted: int | None) -> int:
    """How many workers of a stage run at once.

    Raises:
        UserError: the cluster, were it empty, had no room for `wanted` (or for one).
    """
    needs = _needs(need)
    fit = room(need)
    if wanted is not None and wanted < 1:
        raise UserError(f"{wanted} workers cannot do anything: give 1 or more")
    if not needs:
        # Workers that wait for others more than they compute: as many as one likes.
        return wanted or fit
    if fit < (wanted or 1):
        import ray

        total = ray.cluster_resources()
        nodes = [node for node in ray.nodes() if node["Alive"]]
        asked = ", ".join(_amount(kind, amount) for kind, amount in needs.items())
        has = ", ".join(_amount(kind, total.get(kind, 0.0)) for kind in needs)
        raise UserError(
            f"{wanted or 1} worker(s) of {asked} each do not fit: Ray has {has} in {len(nodes)} "
            f"node(s), enough for {fit}; use fewer workers or a larger cluster"
        )
    return wanted or fit


def gpu_share_of_core() -> float:
    """Part of a GPU for a worker of one CPU, so that all cores of the cluster have work.

    Each worker has its own copy of the network on the GPU, so it is at least a sixteenth.
    """
    import ray

    total = ray.cluster_resources()
    return max(1 / MOST_PER_GPU, min(1.0, total.get("GPU", 0.0) / max(total.get("CPU", 1.0), 1.0)))


def room(need: Resources) -> int:
    """How many workers the cluster had room for, were it empty; a worker lives on one node."""
    import ray

    needs = _needs(need)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        min((int(node.get(kind, 0.0) / amount + 1e-9) for kind, amount in needs.items()), default=1)
        for node in nodes
    )


def _needs(need: Resources) -> dict[str, float]:
    """By the names that Ray has for them."""
    needs = {"CPU": need.cpus, "GPU": need.gpus, "memory": float(need.memory_bytes)}
    return {kind: amount for kind, amount in needs.items() if amount > 0}


def _amount(kind: str, amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB memory" if kind == "memory" else f"{amount:g} {kind}"
