"""Lip-sync a table of videos.

    python -m flows.lip_sync_batch JOBS.csv runs/batch --model models:/latentsync@champion

The table has a row for each job and an option of a job in each column. Workers load the model once.
A batch that was interrupted goes on where it stopped; nothing is done twice.
"""

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from datasets.errors import Reason, UserError
from datasets.store.lock import only_run
from flows.support.artifacts import say
from flows.support.cli import run
from flows.support.parameters import taking
from flows.support.parcel import Parcel
from flows.support.secrets import keep_secrets
from tasks.lipsync.batch import BatchPlan, LipSyncStage, ended, plan_batch
from tasks.lipsync.estimate import Speed, SpeedStage, batch_seconds, works_of
from tasks.lipsync.job import LipSyncJob
from tasks.lipsync.table import read_rows, write_results
from tasks.registry.published import resolve_model
from tasks.registry.tracking import check_uri, default_uri
from tasks.runtime.executor import run_stage
from tasks.runtime.ray_session import ray_session
from tasks.runtime.room import fitting_workers
from tasks.runtime.stage import Limits, Outcome, Resources, StageProgress
from tasks.weights.licences import bundle_licence

LINES_S = 5.0
"""Seconds between two lines of progress."""


class BatchSummary(TypedDict):
    """What the flow returns."""

    results: str
    """The table of results."""
    jobs: int
    done: int
    failed: int
    reasons: dict[str, int]
    """How many failed for which reason."""
    estimated_s: float | None
    """Seconds that were expected for what was left; None: nothing was, or nobody asked."""
    seconds: float
    """Seconds that it took."""


@dataclass(frozen=True)
class Crew:
    """With what and where the jobs are done."""

    bundle: Path
    device: str
    bf16: bool | None
    adapter: Path | None
    workers: int | None
    gpu_share: float | None
    ray_address: str | None
    deadline_s: float

    @property
    def resources(self) -> Resources:
        """Of a worker."""
        gpus = (self.gpu_share or 1.0) if self.device.startswith("cuda") else 0.0
        return Resources(gpus=gpus)

    def stage(self) -> LipSyncStage:
        """What a worker does."""
        return LipSyncStage(self.bundle, self.device, self.bf16, self.adapter, self.resources)

    def speed_stage(self) -> SpeedStage:
        """How its speed is measured."""
        return SpeedStage(self.bundle, self.device, self.bf16, self.adapter, self.resources)


@flow(name="lip-sync-batch")
@keep_secrets
@taking(LipSyncJob, own=("video", "output", "segments"))
def lip_sync_batch(
    table: str,
    output: str,
    model: str = "models:/latentsync@champion",
    device: str = "cpu",
    bf16: bool | None = None,
    adapter: str | None = None,
    workers: int | None = None,
    gpu_share: float | None = None,
    ray_address: str | None = None,
    deadline_s: float = 3600.0,
    estimate: bool = True,
    dry_run: bool = False,
    retry_failed: bool = False,
    tracking_uri: str | None = None,
    **options: Any,
) -> BatchSummary:
    """Lip-sync every video of a table.

    Args:
        table: .csv, .parquet or .jsonl with a row for each job: columns are the options of a job
            (video, audio, output, segments as JSON, face, length and so on), empty cells mean
            that an option is not given.
        output: folder for the results, and for videos whose place the table does not name.
        model: registered model such as models:/latentsync@champion, a published one (latentsync-1.5
            or latentsync-1.6), or a bundle folder.
        device: cpu, cuda, cuda:N or mps.
        bf16: run the networks in bf16; by default on GPUs that are made for it.
        adapter: folder that adapt-model wrote for this model.
        workers: number of processes, each with its own copy of the model; by default one per core,
            or one per GPU.
        gpu_share: share of a GPU that one worker uses, with device cuda; by default all of it.
        ray_address: address of a running Ray cluster, whose nodes see the same files; by default
            Ray is started here.
        deadline_s: seconds that one job may take.
        estimate: measure the speed first, and say how long it will take.
        dry_run: say what there is to do and how long it will take, and do nothing.
        retry_failed: do again what failed before; by default its row stays until a file of the job
            or an option has changed.
        tracking_uri: MLflow's store; by default a SQLite file under runs.

    Returns:
        results (the table), jobs, done, failed, reasons, estimated_s and seconds.
    """
    began = time.monotonic()
    folder, path = Path(output), Path(table)
    if not deadline_s > 0:
        raise UserError(f"the deadline must be more than 0 s, got {deadline_s:g} s")
    if gpu_share is not None and not 0 < gpu_share <= 1:
        raise UserError(f"the GPU share must be above 0 and at most 1, got {gpu_share:g}")
    _check_places(path, folder)
    rows = read_rows(path, folder, options)
    bundle = resolve_model(model, check_uri(tracking_uri or default_uri()), say)
    if licence := bundle_licence(bundle):
        say(licence)
    weights = Path(adapter) if adapter else None
    crew = Crew(bundle, device, bf16, weights, workers, gpu_share, ray_address, deadline_s)
    with only_run(folder):
        plan = plan_batch(rows, folder, bundle, weights, retry_failed)
        say(
            f"{len(rows)} jobs: {len(rows) - len(plan.todo)} have ended before or cannot be done, "
            f"{len(plan.todo)} are left"
        )
        expected = None
        try:
            if plan.todo:
                expected = work(Parcel(plan), crew, estimate or dry_run, dry_run)
        finally:
            if plan.results:
                results, _ = write_results(folder, plan.table())
    found = plan.results.values()
    reasons: dict[str, int] = {}
    for each in found:
        if each.reason:
            reasons[each.reason] = reasons.get(each.reason, 0) + 1
    failed = sum(reasons.values())
    say(_words(len(rows), len(found) - failed, reasons, len(plan.todo)))
    if plan.results:
        say(f"results: {results}")
    return {
        "results": str((folder / "results.csv").resolve()) if plan.results else "",
        "jobs": len(rows),
        "done": len(found) - failed,
        "failed": failed,
        "reasons": reasons,
        "estimated_s": expected,
        "seconds": time.monotonic() - began,
    }


def _check_places(table: Path, folder: Path) -> None:
    for name in ("results.csv", "results.jsonl"):
        if table.resolve() == (folder / name).resolve():
            raise UserError(
                f"the table {table} is where the results would be written: choose another folder"
            )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"the output {folder} is a file: name a folder for the results")


def _words(jobs: int, done: int, reasons: dict[str, int], left: int) -> str:
    text = f"{done} of {jobs} jobs are done"
    if reasons:
        parts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        text += f", {sum(reasons.values())} failed ({parts})"
    return text + (f", {left} are left" if left else "")


@task(name="lip-sync jobs", cache_policy=NO_CACHE)
@keep_secrets
def work(parcel: Parcel[BatchPlan], crew: Crew, estimate: bool, dry_run: bool) -> float | None:
    """Do what is left of a batch; returns the seconds that were expected."""
    plan = parcel.content
    say("starting Ray, some seconds" if crew.ray_address is None else "joining Ray")
    with ray_session(crew.ray_address, num_cpus=crew.workers):
        workers = min(fitting_workers(crew.resources, crew.workers), len(plan.todo))
        expected = _estimate(plan, crew, workers) if estimate else None
        if dry_run:
            return expected
        keys = {f"row {row.number}": row for row in plan.todo}
        told = _Lines(len(plan.rows))

        def on_outcome(outcome: Outcome) -> None:
            row = keys[outcome.key]
            plan.results[row.number] = ended(outcome, plan.receipts[row.number])

        def on_progress(state: StageProgress) -> None:
            told(plan, state)

        run_stage(
            crew.stage(),
            [(key, plan.item(row)) for key, row in keys.items()],
            on_outcome=on_outcome,
            workers=workers,
            limits=Limits(deadline_s=crew.deadline_s, recycle_after=500),
            on_progress=on_progress,
        )
    return expected


def _estimate(plan: BatchPlan, crew: Crew, workers: int) -> float | None:
    jobs = [row.job for row in plan.todo if row.job]
    works = works_of(jobs)
    speeds: list[Speed] = []

    def take(outcome: Outcome) -> None:
        if outcome.reason is Reason.NONE:
            speeds.append(outcome.value)

    for job in jobs[: min(3, len(jobs))]:
        limits = Limits(deadline_s=crew.deadline_s)
        video = Path(job.video)
        run_stage(
            crew.speed_stage(), [(str(video), video)], on_outcome=take, workers=1, limits=limits
        )
        if speeds:
            break
    if not works or not speeds:
        say("how long it will take cannot be said: none of the first videos can be read")
        return None
    seconds = batch_seconds(works, speeds[0], workers)
    frames = sum(each.written for each in works)
    many = f"{workers} worker{'s' * (workers > 1)}"
    say(
        f"about {_time(seconds)} for {len(works)} jobs with {frames} frames on {many}"
        + (f"; {len(jobs) - len(works)} cannot be read" if len(works) < len(jobs) else "")
    )
    return seconds


class _Lines:
    """A line of progress every few seconds."""

    def __init__(self, jobs: int) -> None:
        self._jobs, self._last = jobs, -math.inf

    def __call__(self, plan: BatchPlan, state: StageProgress) -> None:
        if state.seconds - self._last < LINES_S and state.done < state.total:
            return
        self._last = state.seconds
        failed = sum(1 for each in plan.results.values() if each.reason)
        left = ""
        if 0 < state.done < state.total:
            left = f", {_time(state.seconds * (state.total - state.done) / state.done)} left"
        say(
            f"jobs: {len(plan.results)}/{self._jobs}"
            + (f", {failed} failed" if failed else "")
            + f", {state.running} running{left}"
        )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


main = partial(run, lip_sync_batch, hello="batch: starting Prefect, some seconds")

if __name__ == "__main__":
    raise SystemExit(main())
