"""How fast the ingest is, as ratios to a classic chain and to the least work possible.

    python -m benchmarks.ingest FOLDER_OF_VIDEOS --json runs/ingest.json

All parts run one after another on the same files, each with as many processes as cores:
decoding alone, decoding with FaceMesh (the floor), our ingest stage on warm workers, our whole
command, and the directory-per-stage chain (benchmarks/ingest_chain.py). benchmarks/README.md
says what each figure means. Nothing is written to the folder of videos. The parts' output
goes to a new folder below --work (by default runs), which is removed at the end, even after Ctrl-C;
--keep keeps it.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.ingest_chain import ChainResult, run_chain
from benchmarks.ingest_floor import decode, on_all, see_regions, see_whole, usable
from benchmarks.ingest_meter import TreeMeter
from benchmarks.ingest_ours import BenchmarkError, FlowRun, run_flow, run_stage_alone
from benchmarks.ingest_report import Inputs, Measured, figures, table
from benchmarks.ingest_where import where
from benchmarks.ingest_workers import Span, Workers
from datasets.errors import UserError
from datasets.sources.items import list_folder
from tasks.ingest.config import IngestConfig
from tasks.ingest.verdicts import Thresholds

LARGE = 1080
"""Shorter side in pixels from which on a video counts as large."""
INTERRUPTED = 130


@dataclass
class Benchmark:
    """The parts, on one folder of videos."""

    folder: Path
    work: Path
    processes: int
    large_side: int
    config: IngestConfig = field(default_factory=IngestConfig)
    bar: Thresholds = field(default_factory=Thresholds)
    measured: Measured = field(default_factory=Measured)

    def inputs(self) -> Inputs:
        """Inspect all files, which also brings them into the page cache."""
        items = list_folder(self.folder)
        # The longest first, as everywhere, so that no process works alone at the end.
        items.sort(key=lambda item: (-item.path.stat().st_size, item.key))
        with self._workers() as workers:
            known = workers.map(usable, [item.path for item in items])[0]
        sources = [source for source in known if source is not None]
        if not sources:
            raise UserError(f"no file in {self.folder} has video and sound: use talking heads")
        names = {str(item.path): item.relative for item in items}
        large = [each for each in sources if each.short_side >= self.large_side]
        return Inputs([item.path for item in items], names, sources, large)

    def start_up(self) -> None:
        """Run our command without files: once to create Prefect's database, once for the time."""
        empty = self.work / "empty"
        empty.mkdir()
        (empty / "broken.mp4").touch()
        for key in ("first start of our command", "start of our command"):
            run = self._flow(empty, self.work / "nothing")
            self._note(key, run.wall_s, run.cpu_s, run.others_percent)
            shutil.rmtree(self.work / "nothing")

    def round(self, number: int, inputs: Inputs) -> None:
        """Run every part once."""
        here = self.work / f"round{number}"
        here.mkdir()
        paths = [source.path for source in inputs.sources]
        with self._workers() as workers:
            frames = self._metered("decode", lambda: on_all(workers, decode, paths))
            self.measured.source_frames = frames
            if inputs.large:
                large = [source.path for source in inputs.large]
                self._metered("decode, large", lambda: on_all(workers, decode, large))
        with self._workers() as workers:
            seen = self._metered("floor", lambda: on_all(workers, see_whole, paths))
            self.measured.frames = seen
            self._metered("floor, regions", lambda: on_all(workers, see_regions, paths))
        self._ours(here, inputs)
        with self._workers() as workers:
            self._chain(here / "chain", inputs, workers)

    def profile(self) -> None:
        """Where the time of our stage goes."""
        say("profile of our stage in one process")
        self.measured.where = where(self.folder, self.work / "profile")

    def _ours(self, here: Path, inputs: Inputs) -> None:
        whole = self._flow(self.folder, here / "dataset")
        if self._note("ours, command", whole.wall_s, whole.cpu_s, whole.others_percent):
            self.measured.flow = whole
        folders = [self.folder]
        if inputs.large:
            folders.append(here / "large")
            folders[1].mkdir()
            for number, source in enumerate(inputs.large):
                name = f"{number:05d}{source.path.suffix}"
                (folders[1] / name).symlink_to(source.path.resolve())
        (here / "stage").mkdir()
        alone, *large = run_stage_alone(folders, here / "stage", self.processes)
        if self._note("ours, stage", alone.seconds, alone.cpu_s, alone.others_percent):
            self.measured.stage = alone
        for run in large:
            self._note("ours, large", run.seconds, run.cpu_s, run.others_percent)

    def _flow(self, folder: Path, output: Path) -> FlowRun:
        return run_flow(folder, output, self.processes, self.work / "prefect")

    def _chain(self, here: Path, inputs: Inputs, workers: Workers) -> None:
        here.mkdir()
        with TreeMeter(os.getpid()) as meter:
            result: ChainResult = run_chain(inputs.paths, here, workers, self.config, self.bar)
        # Without the variants, which are not part of the chain.
        cpu = meter.cpu_s(result.begin, result.end)
        if self._note("chain", result.total_s, cpu, meter.others_percent()):
            self.measured.chain = result

    def _metered(self, key: str, run: Callable[[], tuple[int, Span]]) -> int:
        with TreeMeter(os.getpid()) as meter:
            count, span = run()
        self._note(key, span.seconds, meter.cpu_s(), meter.others_percent())
        return count

    def _note(self, key: str, wall_s: float, cpu_s: float, others: float) -> bool:
        say(f"{key}: {wall_s:.2f} s, {cpu_s:.2f} s of CPU, others used {others:.0f} % of the cores")
        return self.measured.note(key, wall_s, cpu_s, others)

    def _workers(self) -> Workers:
        return Workers(self.processes, self.config.max_faces)


def say(line: str) -> None:
    print(line, flush=True)


def tools(folder: Path) -> None:
    """Put ffmpeg and scenedetect on PATH, for this process and those that it starts.

    Raises:
        UserError: one of them is not installed.
    """
    import imageio_ffmpeg

    folder.mkdir()
    # The program's own name has its version in it.
    (folder / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    own = Path(sys.executable).parent
    os.environ["PATH"] = os.pathsep.join([str(folder), str(own), os.environ.get("PATH", "")])
    if shutil.which("scenedetect") is None:
        raise UserError(f"there is no scenedetect in {own}: install the locked requirements")


@contextmanager
def work_folder(parent: Path, keep: bool) -> Iterator[Path]:
    """A new folder; it is removed at the end, and every process that still runs is ended."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="ingest-benchmark-", dir=parent)).resolve()
    # Both, since a shell's background jobs begin with Ctrl-C ignored.
    before = {each: signal.signal(each, _end) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield folder
    finally:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                # Python's own semaphore tracker ends by itself, and complains if it is ended.
                if "multiprocessing.resource_tracker" not in " ".join(process.cmdline()):
                    process.kill()
        if keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        for each, handler in before.items():
            signal.signal(each, handler)


def _end(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def run(options: argparse.Namespace) -> dict[str, object]:
    """All rounds; returns the figures."""
    inner, outer = options.work.resolve(), options.folder.resolve()
    if outer == inner or outer in inner.parents:
        raise UserError(f"--work {options.work} is inside the videos: choose a folder elsewhere")
    with work_folder(options.work, options.keep) as work:
        tools(work / "bin")
        bench = Benchmark(outer, work, options.processes, options.large)
        inputs = bench.inputs()
        say(f"{len(inputs.paths)} files, {len(inputs.sources)} of them with video and sound")
        bench.start_up()
        for number in range(options.runs):
            bench.round(number, inputs)
            if not options.keep:
                shutil.rmtree(work / f"round{number}")
        bench.profile()
        return figures(bench.measured, inputs, options.processes)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ingest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="videos of talking heads")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="where to work, on disk")
    parser.add_argument("--runs", type=int, default=1, help="rounds; the fastest of each counts")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="of every part")
    parser.add_argument("--large", type=int, default=LARGE, help="shorter side of large videos")
    parser.add_argument("--keep", action="store_true", help="leave the folder of the work")
    options = parser.parse_args(argv)
    if min(options.runs, options.processes) < 1:
        parser.error("--runs and --processes must be at least 1")
    try:
        found = run(options)
    except KeyboardInterrupt:
        print("interrupted: nothing was left behind", file=sys.stderr)
        return INTERRUPTED
    except (UserError, BenchmarkError) as error:
        print(error, file=sys.stderr)
        return 2
    print(table(found))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
