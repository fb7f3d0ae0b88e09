"""Run stages over many items on Ray, bounded and with deadlines, whatever the items do.

    class Double(Stage):
        def process(self, item: int) -> int:
            return 2 * item

    with ray_session():
        run_stage(Double(), [("a", 1), ("b", 2)], on_outcome=print)

Items come alone or in groups. A group's items run in order on one worker, which then
finishes the group as a whole: what they made together becomes durable at that point. Every
item ends in exactly one `Outcome`, handed over in the calling process. An item that raises an
error, hangs or kills its process is an outcome with a reason; it never ends the run, and the rest
of its group is started again without it. A full disk and user errors do end it, since
every further item would fail alike.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tasks.runtime.pool import Pool, drive
from tasks.runtime.room import fitting_workers
from tasks.runtime.stage import GroupOutcome, ItemGroup, Limits, Outcome, Stage, StageProgress


def run_stage(
    stage: Stage,
    items: Sequence[tuple[str, Any]],
    *,
    on_outcome: Callable[[Outcome], None],
    workers: int | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[StageProgress], None] | None = None,
) -> None:
    """Process every item, each as a group of its own, on a pool of workers.

    Args:
        stage: the stage to run.
        items: (key, item) pairs; keys must differ.
        on_outcome: called in this process, in the order in which items end.
        workers, limits, on_progress: see `run_groups`.
    """

    def one_by_one(outcome: GroupOutcome) -> None:
        on_outcome(outcome.outcomes[0])

    groups = [ItemGroup(key, ((key, item),)) for key, item in items]
    run_groups(
        stage,
        groups,
        on_group=one_by_one,
        workers=workers,
        limits=limits,
        on_progress=on_progress,
    )


def run_groups(
    stage: Stage,
    groups: Sequence[ItemGroup],
    *,
    on_group: Callable[[GroupOutcome], None],
    workers: int | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[StageProgress], None] | None = None,
) -> None:
    """Process all groups on a pool of workers; needs a `ray_session`.

    Args:
        stage: what to do.
        groups: names of groups and keys of items must differ.
        on_group: called in this process, in the order in which groups end.
        workers: number of processes; None: as many as fit, but no more than groups.
        limits: what an item may cost.
        on_progress: called after every answer and about once a second in between.

    Raises:
        UserError: the workers do not fit the cluster, or a worker raised one.
        OSError: a worker's disk is full.
        StageSetupError: `stage.setup` failed.
        StageError: a group could not be finished.
    """
    for names in (
        [each.key for each in groups],
        [key for each in groups for key, _ in each.items],
    ):
        if len(set(names)) != len(names) or "" in names:
            raise ValueError("keys of groups and items must differ and must not be empty")
    if not groups:
        return

    pool = Pool(stage, fitting_workers(stage.resources, workers), limits or Limits(), on_group)
    for group in groups:
        pool.submit(group)
    drive([pool], (lambda states: on_progress(states[0])) if on_progress else None)
