"""Our own ingest, measured from outside and from inside.

`run_flow` runs the command that users run, as a process of its own. `run_stage_alone` is for
the ingest stage without the start of Prefect, Ray and the face models: its workers are all
ready before the first file begins. It runs in a process of its own too:

    python -m benchmarks.ingest_ours OUT PROCESSES RESULT.json FOLDER...
"""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.ingest_meter import TreeMeter
from datasets.sources.items import list_folder
from datasets.store.local import LocalStore
from tasks.ingest.config import IngestConfig
from tasks.ingest.groups import group_sources
from tasks.ingest.layout import SPARE
from tasks.ingest.stage import IngestStage, IngestWork
from tasks.ingest.verdicts import Thresholds
from tasks.publish.ledger import read_ledger
from tasks.runtime.executor import run_groups
from tasks.runtime.ray_session import ray_session
from tasks.runtime.stage import GroupOutcome, ItemGroup, Limits, Stage

ROOT = Path(__file__).resolve().parents[1]
READY_S = 300.0
DEADLINE_S = 1800.0
GRACE_S = 30.0
"""Seconds for an interrupted flow to end in an orderly way."""
NOTHING_ACCEPTED = 2
"""Exit code of a refresh without a single good clip."""


class BenchmarkError(RuntimeError):
    """Raised when a part of the benchmark fails; the text says which and why."""


@dataclass
class FlowRun:
    """One run of the whole command."""

    wall_s: float
    cpu_s: float
    others_percent: float
    """See `TreeMeter.others_percent`."""
    written: dict[str, int]
    """Bytes by kind of process, see `TreeMeter.written`."""
    shard_bytes: int = 0
    spare_bytes: int = 0
    """Tars of clips that are kept only for other thresholds."""
    clips: dict[str, list[int]] = field(default_factory=dict)
    """Source -> frames of each accepted clip."""


@dataclass
class StageRun:
    """One run of the stage on warm workers."""

    begin: float
    """`time.monotonic` when the first file began."""
    end: float
    """When the last file ended."""
    video_seconds: float
    """Seconds of video in the files that were decoded."""
    landmark_frames: int
    """Frames that the face mesh saw; 0 if the stage does not report it."""
    clips: int
    """Number of clips that the stage made, before thresholds."""
    cpu_s: float = 0.0
    others_percent: float = 0.0

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def run_flow(folder: Path, output: Path, workers: int, prefect_home: Path) -> FlowRun:
    """`python -m flows.refresh_dataset --source folder`, metered.

    Raises:
        BenchmarkError: the run failed.
    """
    command = ["-m", "flows.refresh_dataset", "--source", "folder", "--input", str(folder)]
    command += ["--output", str(output), "--workers", str(workers)]
    command += ["--deadline-s", str(DEADLINE_S)]
    wall, meter = _metered(command, {"PREFECT_HOME": str(prefect_home)}, (0, NOTHING_ACCEPTED))
    run = FlowRun(wall, meter.cpu_s(), meter.others_percent(), meter.written())
    for tar in output.rglob("*.tar"):
        if tar.parent == output / "shards":
            run.shard_bytes += tar.stat().st_size
        elif tar.name.startswith(SPARE):
            run.spare_bytes += tar.stat().st_size
    run.clips = accepted_clips(output)
    return run


def accepted_clips(output: Path) -> dict[str, list[int]]:
    """Frames of each accepted clip, by source, from the ledger."""
    clips: dict[str, list[int]] = defaultdict(list)
    for row in read_ledger(LocalStore(output), ("path", "num_frames", "verdict")):
        if row["verdict"] == "accepted":
            clips[row["path"]].append(row["num_frames"])
    return dict(clips)


def run_stage_alone(folders: Sequence[Path], work: Path, workers: int) -> list[StageRun]:
    """The ingest stage on each folder, one after another on one Ray, in a process of its own.

    Raises:
        BenchmarkError: the run failed.
    """
    result = work / "stage.json"
    command = ["-m", "benchmarks.ingest_ours", work, str(workers), result, *folders]
    _, meter = _metered([str(part) for part in command], {}, (0,))
    runs = [StageRun(**each) for each in json.loads(result.read_text(encoding="utf-8"))]
    for run in runs:
        run.cpu_s = meter.cpu_s(run.begin, run.end)
        run.others_percent = meter.others_percent()
    return runs


def _metered(
    arguments: Sequence[str], env: dict[str, str], good: tuple[int, ...]
) -> tuple[float, TreeMeter]:
    """Wall seconds and the meter of a Python process that ended with one of the good codes."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with TreeMeter(process.pid) as meter:
            output, _ = process.communicate()
    except BaseException:
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    if process.returncode not in good:
        last = "\n".join(output.strip().splitlines()[-12:])
        raise BenchmarkError(f"{' '.join(arguments)} ended with {process.returncode}:\n{last}")
    return time.monotonic() - begin, meter


# Only the following part knows how the pipeline is called from inside.


def stage_and_groups(folder: Path, out: Path) -> tuple[IngestStage, list[ItemGroup]]:
    """Our ingest stage with its defaults, and the groups of files, the largest first."""
    stage = IngestStage(IngestConfig(), Thresholds(), LocalStore(out), "staging/benchmark")
    groups = sorted(
        group_sources(list_folder(folder), 0), key=lambda group: (-group.weight, group.number)
    )
    batches = [
        ItemGroup(
            group.name,
            tuple((item.key, IngestWork(item, item.path, "train")) for item in group.items),
        )
        for group in groups
    ]
    return stage, batches


def facts(value: dict[str, Any]) -> tuple[float, int, int]:
    """Video seconds, frames that the face mesh saw (0: not told) and clips, of one result."""
    clips = sum(not row["reason"] for row in value["rows"])
    return float(value["video_seconds"]), int(value.get("landmark_frames", 0)), clips


@dataclass
class WarmStage(Stage):
    """A stage whose workers begin together, and that records when items began and ended."""

    inner: Stage
    workers: int
    gate: Path
    """Folder in which each worker leaves a file when it is ready."""

    def __post_init__(self) -> None:
        self.resources = self.inner.resources

    def setup(self) -> None:
        """Load what the stage needs and wait for the other workers."""
        self.inner.setup()
        (self.gate / uuid4().hex).touch()
        end = time.monotonic() + READY_S
        while len(list(self.gate.iterdir())) < self.workers and time.monotonic() < end:
            time.sleep(0.02)

    def begin(self, batch: str) -> None:
        self._begun = time.monotonic()
        self.inner.begin(batch)

    def process(self, item: Any) -> Any:
        return self.inner.process(item)

    def finish(self, batch: str) -> tuple[float, float]:
        """When the batch began, and when its shards were in place."""
        self.inner.finish(batch)
        return self._begun, time.monotonic()


def measure(folder: Path, out: Path, workers: int) -> StageRun:
    """Run the stage here; needs a `ray_session`."""
    stage, batches = stage_and_groups(folder, out / "stage")
    gate = out / "gate"
    gate.mkdir(parents=True)
    ends: list[GroupOutcome] = []
    workers = min(workers, len(batches))
    run_groups(
        WarmStage(stage, workers, gate),
        batches,
        on_group=ends.append,
        workers=workers,
        limits=Limits(DEADLINE_S),
    )
    outcomes = [outcome for end in ends for outcome in end.outcomes]
    lost = [f"{each.key}: {each.detail}" for each in outcomes if each.value is None]
    if lost:
        raise BenchmarkError(f"{len(lost)} files had no result, the first being {lost[0]}")
    known = [facts(each.value) for each in outcomes]
    return StageRun(
        begin=min(end.value[0] for end in ends),
        end=max(end.value[1] for end in ends),
        video_seconds=sum(each[0] for each in known),
        landmark_frames=sum(each[1] for each in known),
        clips=sum(each[2] for each in known),
    )


def main(arguments: Sequence[str]) -> int:
    out, workers, result, *folders = arguments
    with ray_session(num_cpus=int(workers)):
        runs = [
            measure(Path(folder), Path(out) / str(number), int(workers))
            for number, folder in enumerate(folders)
        ]
    Path(result).write_text(json.dumps([asdict(run) for run in runs]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
