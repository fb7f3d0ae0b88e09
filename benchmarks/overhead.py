"""The cost of a refresh outside decoding: seconds per record, and memory of the driver.

    python -m benchmarks.overhead                 10,000 records, one or two minutes

A whole refresh except for the video: sources are planned in groups, go to workers on
Ray, come back as rows and shards, are written to the journal, judged and published. The stage
gives a row and a clip of a few kilobytes at once, which is what makes the rest visible; the
numbers say nothing about decoding.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from datasets.shards.records import ClipRow
from datasets.shards.splits import assign_splits
from datasets.sources.items import SourceItem
from datasets.store.open import open_store
from tasks.ingest.config import IngestConfig
from tasks.ingest.journal import Journal
from tasks.ingest.journal_entries import GroupEntry
from tasks.ingest.run import Crew, RefreshRun
from tasks.ingest.stage import FileResult, IngestStage, IngestWork
from tasks.ingest.verdicts import Thresholds
from tasks.publish.pack import PackConfig
from tasks.publish.version import publish
from tasks.runtime.ray_session import ray_session
from tasks.runtime.stage import StageProgress

RECORDS = 10_000
SPEAKERS = 50
STEP = 1000
"""Records between two looks at the driver's memory."""
BAR_MS = 5.0
"""Milliseconds that a record may cost outside decoding."""
BAR_BYTES = 16 << 20
"""Resident memory by which the driver may grow from the first to the last step."""
CLIP_BYTES = 4096


class FakeIngest(IngestStage):
    """Reports every source, without looking at it, as one good clip."""

    def setup(self) -> None:
        return

    def process(self, item: IngestWork) -> FileResult:
        name = item.item.key.removesuffix(".mp4").replace("/", "-")
        row = ClipRow(
            path=item.item.relative,
            clip_id=name,
            shot=0,
            track=0,
            speaker=item.item.speaker,
            end_s=4.0,
            num_frames=100,
            face_px=200.0,
            av_offset_frames=1.0,
            sync_confidence=9.0,
            scorer="mouth-audio",
            coverage=1.0,
            sharpness=500.0,
            yaw_deg=5.0,
            brightness=120.0,
        )
        body = name.encode().ljust(CLIP_BYTES, b".")
        self._keep(row, {"mp4": body, "flac": body, "npy": body, "json": b"{}"}, item.split)
        return {
            "digest": "0" * 64,
            "content": "",
            "recording": "",
            "seconds": 0.0,
            "video_seconds": 4.0,
            "cuts_s": [],
            "note": "",
            "heard": "",
            "rows": [row.as_row()],
        }


@dataclass
class Cost:
    """The cost of a run over `records` records."""

    records: int
    workers: int
    plan_s: float = 0.0
    """Seconds for listing the work and dividing it into groups."""
    start_s: float = 0.0
    """Starting the workers, up to the end of the first group: once for a run."""
    run_s: float = 0.0
    """From then on to the last record."""
    driver_cpu_s: float = 0.0
    """The driver's own computing in all of this."""
    publish_s: float = 0.0
    start_bytes: int = 0
    """The driver's resident memory before the run."""
    steps: list[tuple[int, int]] = field(default_factory=list)
    """(records done, the driver's resident bytes)."""
    publish_bytes: int = 0
    """The same after publishing."""

    @property
    def ms(self) -> float:
        """Milliseconds for each record."""
        return 1000 * (self.plan_s + self.run_s + self.publish_s) / self.records

    @property
    def growth_bytes(self) -> int:
        """From the first step to the last."""
        return self.steps[-1][1] - self.steps[0][1]


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def make_items(folder: Path, count: int) -> list[SourceItem]:
    """Sources with an empty file each, of which only the times are read."""
    items = []
    for number in range(count):
        path = folder / f"{number % SPEAKERS:03d}" / f"{number:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        relative = path.relative_to(folder).as_posix()
        items.append(
            SourceItem(relative, str(path), relative, path.parent.name, expected_bytes=1 << 20)
        )
    return items


def run(records: int, workers: int, step: int = STEP) -> Cost:
    """Send records through a refresh in this process; needs nothing but a temporary folder."""
    cost = Cost(records, workers)
    with tempfile.TemporaryDirectory() as name, ray_session(num_cpus=workers):
        folder = Path(name)
        items = make_items(folder / "videos", records)
        store = open_store(folder / "dataset")
        cost.start_bytes = resident()
        done = 0
        first = 0.0

        def count(entry: GroupEntry) -> None:
            nonlocal done, first
            first = first or time.monotonic()
            before, done = done, done + len(entry.sources)
            if done // step > before // step:
                cost.steps.append((done, resident()))

        def tell(states: list[StageProgress]) -> None:
            assert states

        began, computed = time.monotonic(), time.process_time()
        journal = Journal(store, IngestConfig(), 60.0)
        todo = journal.changes(items).todo
        stage = FakeIngest(IngestConfig(), Thresholds(), store, journal.prefix)
        splits = assign_splits({item.speaker for item in items}, 0.2)
        refresh = RefreshRun(
            journal, stage, None, dict(splits), Crew(workers=workers, deadline_s=60.0), count
        )
        groups = journal.plan(todo)
        cost.plan_s = time.monotonic() - began
        began = time.monotonic()
        refresh.run(groups, tell)
        cost.start_s, cost.run_s = first - began, time.monotonic() - first
        assert done == records
        began = time.monotonic()
        made = publish(store, journal, Thresholds(), PackConfig(256), {"changes": {}})
        cost.publish_s = time.monotonic() - began
        cost.driver_cpu_s = time.process_time() - computed
        assert made.summary()["clips_accepted"] == records
        cost.publish_bytes = resident()
    return cost


def measure(records: int, workers: int, step: int = STEP) -> Cost:
    """`run` in a process of its own.

    Raises:
        RuntimeError: it failed; the text is what it wrote.
    """
    numbers = ["--records", str(records), "--workers", str(workers), "--step", str(step)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", *numbers, "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


def show(cost: Cost) -> None:
    print("driver's resident memory, MiB")
    print(f"{0:>7d} records {mib(cost.start_bytes):>8s}")
    for records, size in cost.steps:
        print(f"{records:>7d} records {mib(size):>8s}")
    print(f"published       {mib(cost.publish_bytes):>8s}")
    each = 1000 / cost.records
    print(
        f"{cost.records} records on {cost.workers} workers: {cost.ms:.2f} ms each (plan "
        f"{cost.plan_s * each:.2f}, run {cost.run_s * each:.2f}, publish "
        f"{cost.publish_s * each:.2f}; of these {cost.driver_cpu_s * each:.2f} the driver's "
        f"computing), at most {BAR_MS:g} is wanted; the workers' start took {cost.start_s:.1f} s"
    )
    print(
        f"the driver grew by {mib(cost.growth_bytes)} MiB from the first step to the last, at "
        f"most {mib(BAR_BYTES)} is wanted"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--step", type=int, default=STEP)
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    options = parser.parse_args(argv)
    cost = run(options.records, options.workers, options.step)
    text = json.dumps(asdict(cost))
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    if options.json:
        print(text)
        return 0
    show(cost)
    return 0 if cost.ms < BAR_MS and cost.growth_bytes < BAR_BYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
