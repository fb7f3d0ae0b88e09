"""Many jobs on workers that load the model once, each job finished once, however often it stops.

What a job came to is a receipt, a file that the worker writes when the output is in place. A batch
that was killed at any moment reads them and does what is left. A job in progress keeps its finished
parts beside its output (`tasks.lipsync.parts`), so even that is not begun anew.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets.errors import Reason, SourceError, UserError
from datasets.store.atomic import write_atomic
from models.files.errors import is_disk_full
from tasks.lipsync.generator import FaceGenerator
from tasks.lipsync.job import LipSyncJob, job_of
from tasks.lipsync.parts import job_facts
from tasks.lipsync.table import Row
from tasks.lipsync.video import run_job
from tasks.runtime.failures import causes, one_line
from tasks.runtime.stage import Outcome, Resources, Stage
from tasks.weights.adapter import adapter_files

DONE, FAILED = "done", "failed"
REFUSED = "refused"
"""The reason of a job that asks for something that cannot be done; its detail says what."""
RECEIPTS = "receipts"
VERSION = 1
"""Raised when the same job would give something else."""


@dataclass(frozen=True)
class JobResult:
    """What a job came to."""

    status: str
    """`DONE` or `FAILED`."""
    reason: str = ""
    """`REFUSED`, or one of `datasets.errors.Reason`; empty if it is done."""
    detail: str = ""
    """A sentence about it."""
    frames: int = 0
    """Frames written."""
    faces_found: int = 0
    """How many of them show a new mouth."""
    seconds: float = 0.0
    """Seconds that it took."""
    notes: tuple[str, ...] = ()

    def row(self, number: int, values: dict[str, Any]) -> dict[str, Any]:
        """As a row of the results."""
        places = {name: str(values.get(name, "")) for name in ("video", "audio", "output")}
        return {"row": number, **places, **asdict(self)}


@dataclass(frozen=True)
class Item:
    """A job on its way to a worker."""

    values: dict[str, Any]
    receipt: Path
    """Where it is written what the job came to."""
    progress: Path | None = None
    """Where it is written how far it is, now and then."""


@dataclass
class LipSyncStage(Stage):
    """Lip-syncs, with one model.

    Args:
        bundle: folder of the model.
        device: cpu, cuda, cuda:N or mps.
        bf16: run the networks in bf16; None means if the device is made for it.
        adapter: an adapter for this bundle.
        resources: of one worker.
    """

    bundle: Path
    device: str = "cpu"
    bf16: bool | None = None
    adapter: Path | None = None
    resources: Resources = field(default_factory=Resources)

    def setup(self) -> None:
        self.generator = FaceGenerator(
            self.bundle, self.device, bf16=self.bf16, adapter=self.adapter
        )

    def process(self, item: Item) -> JobResult:
        result = self._done(item)
        write_receipt(item.receipt, result)
        return result

    def _done(self, item: Item) -> JobResult:
        tell = ProgressFile(item.progress) if item.progress else None
        try:
            done = run_job(
                job_of(item.values),
                self.bundle,
                adapter=self.adapter,
                generator=self.generator,
                progress=tell,
            )
        except (UserError, SourceError) as error:
            if any(is_disk_full(each) for each in causes(error)):
                raise
            return failure(error)
        return JobResult(
            DONE,
            frames=done.frames,
            faces_found=done.faces_found,
            seconds=round(done.seconds, 3),
            notes=done.notes,
        )


class ProgressFile:
    """A `Progress` that writes how far a job is into a file, a few times per second at most."""

    def __init__(
        self, path: Path, every_s: float = 0.5, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._every_s, self._clock = path, every_s, clock
        self._last, self._step = -every_s, ""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        now = self._clock()
        if note == self._step and now - self._last < self._every_s and done != total:
            return
        self._last, self._step = now, note
        write_atomic(self._path, json.dumps({"step": note, "done": done, "total": total}))


def failure(error: BaseException) -> JobResult:
    """What a job came to that cannot be done."""
    reasons = [each.reason.value for each in causes(error) if isinstance(each, SourceError)]
    detail = error.detail if isinstance(error, SourceError) else one_line(error)
    return JobResult(FAILED, reasons[0] if reasons else REFUSED, detail)


def ended(outcome: Outcome, receipt: Path) -> JobResult:
    """What an item of a `LipSyncStage` came to; of one without an answer a receipt is written."""
    if outcome.reason is Reason.NONE:
        found: JobResult = outcome.value
        return found
    result = JobResult(
        FAILED, outcome.reason.value, outcome.detail, seconds=round(outcome.seconds, 3)
    )
    write_receipt(receipt, result)
    return result


def write_receipt(path: Path, result: JobResult) -> None:
    """Write what a job came to, whole or not at all."""
    write_atomic(path, json.dumps(asdict(result), ensure_ascii=False))


def read_receipt(path: Path) -> JobResult | None:
    """What a job came to, if it has ended."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return JobResult(**{**found, "notes": tuple(found["notes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def job_key(job: LipSyncJob, bundle: Path, adapter: Path | None = None) -> str:
    """What tells jobs apart: options, model, and the present files behind the names.

    Returns:
        32 hexadecimal digits.
    """
    files = [Path(each) for each in job.files]
    there = [each for each in files if each.is_file()]
    missing = [str(each) for each in files if not each.is_file()]
    facts = job_facts((*there, *(adapter_files(adapter) if adapter else ())), bundle)
    text = repr((VERSION, job, facts, missing))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass
class BatchPlan:
    """The rows of a table, and what is known and left of them."""

    rows: Sequence[Row]
    receipts: dict[int, Path]
    """Number of a row -> its receipt, for rows that are jobs."""
    results: dict[int, JobResult]
    """Number of a row -> what it came to."""

    @property
    def todo(self) -> list[Row]:
        """Rows that are left."""
        return [row for row in self.rows if row.number not in self.results]

    def item(self, row: Row) -> Item:
        """A row for a worker."""
        values = {name: value for name, value in row.values.items() if value is not None}
        return Item(values, self.receipts[row.number])

    def table(self) -> list[dict[str, Any]]:
        """A row of results for each row that has ended, in order."""
        found = [(row, self.results[row.number]) for row in self.rows if row.number in self.results]
        return [result.row(row.number, row.values) for row, result in found]


def plan_batch(
    rows: Sequence[Row], folder: Path, bundle: Path, adapter: Path | None, retry_failed: bool
) -> BatchPlan:
    """Find out what is left to do.

    Args:
        rows: of the table.
        folder: of the batch.
        bundle, adapter: the model.
        retry_failed: do again what failed before.
    """
    plan = BatchPlan(rows, {}, {})
    for row in rows:
        if row.job is None:
            plan.results[row.number] = JobResult(FAILED, REFUSED, row.mistake)
            continue
        receipt = folder / RECEIPTS / f"{job_key(row.job, bundle, adapter)}.json"
        plan.receipts[row.number] = receipt
        found = read_receipt(receipt)
        if found is None or (found.status == FAILED and retry_failed):
            continue
        # An output that somebody has removed is made again.
        if found.status == FAILED or Path(row.job.output).is_file():
            plan.results[row.number] = found
    return plan
