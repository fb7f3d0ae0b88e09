"""Run a stage over many items on Ray: bounded, with deadlines, and whatever the items do.

    class Double(Stage):
        def process(self, item: int) -> int:
            return 2 * item

    with ray_session():
        run_stage(Double(), [("a", 1), ("b", 2)], on_outcome=print)

Every item ends in exactly one `Outcome`, handed to `on_outcome` in the calling process as
soon as it is there. An item that raises, hangs or kills its process is an outcome with a
reason; it never ends the run. A full disk and mistakes of the user do end it, since every
further item would fail alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets.errors import Reason, UserError


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

    @abstractmethod
    def process(self, item: Any) -> Any:
        """Work on one item; the result travels to the driver, so it should be small."""


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
class StageProgress:
    """Where a run stands."""

    done: int
    total: int
    running: int
    seconds: float
    """Since the run began."""


def run_stage(
    stage: Stage,
    items: Sequence[tuple[str, Any]],
    *,
    on_outcome: Callable[[Outcome], None],
    workers: int | None = None,
    deadline_s: float = 600.0,
    max_attempts: int = 2,
    recycle_after: int = 200,
    on_progress: Callable[[StageProgress], None] | None = None,
) -> None:
    """Process every item on a pool of workers; needs a `ray_session`.

    Args:
        stage: what to do.
        items: (key, item) pairs; keys must differ.
        on_outcome: called in this process, in the order in which items end.
        workers: processes; None: as many as fit, but no more than items.
        deadline_s: seconds an item may take before its worker is killed.
        max_attempts: how many workers an item may take down before it is given up.
        recycle_after: items after which a worker is replaced, against leaks in libraries.
        on_progress: called after every outcome and about once a second in between.

    Raises:
        UserError: the workers do not fit the cluster, or a worker raised one.
        OSError: a worker's disk is full.
        StageSetupError: `stage.setup` failed.
    """
    if len({key for key, _ in items}) != len(items):
        raise ValueError("keys of items must differ")
    if not items:
        return
    from tasks.executor_pool import Pool

    count = min(fitting_workers(stage.resources, workers), len(items))
    pool = Pool(stage, count, deadline_s, max_attempts, recycle_after)
    pool.run(items, on_outcome, on_progress)


class StageSetupError(RuntimeError):
    """A worker could not be made ready; the text says why."""


def fitting_workers(need: Resources, wanted: int | None) -> int:
    """How many workers of a stage run at once.

    Raises:
        UserError: the cluster, were it empty, had no room for `wanted` (or for one).
    """
    import ray

    total = ray.cluster_resources()
    needs = {"CPU": need.cpus, "GPU": need.gpus, "memory": float(need.memory_bytes)}
    needs = {kind: amount for kind, amount in needs.items() if amount > 0}
    # A worker lives on one node, so room is counted node by node.
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = sum(
        min((int(node.get(kind, 0.0) / amount + 1e-9) for kind, amount in needs.items()), default=1)
        for node in nodes
    )
    if wanted is not None and wanted < 1:
        raise UserError(f"{wanted} workers cannot do anything: give 1 or more")
    if fit < (wanted or 1):
        asked = ", ".join(_amount(kind, amount) for kind, amount in needs.items())
        has = ", ".join(_amount(kind, total.get(kind, 0.0)) for kind in needs)
        raise UserError(
            f"{wanted or 1} worker(s) of {asked} each do not fit: Ray has {has} in {len(nodes)} "
            f"node(s), enough for {fit}; use fewer workers or a larger cluster"
        )
    return wanted or fit


def _amount(kind: str, amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB memory" if kind == "memory" else f"{amount:g} {kind}"
