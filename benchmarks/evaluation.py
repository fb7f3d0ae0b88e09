"""Whether a killed evaluation gives the same numbers, and how much faster two workers measure.

    python -m benchmarks.evaluation DATASET BUNDLE [--clips 8] [--kills 10] [--json FILE]

*Killed*: an evaluation in a process of its own is undisturbed once; then it is killed (kill -9) at
random moments and started again, `--kills` times in all, and at last runs to its end. The bytes of
`measurements.parquet`, and of metrics, baselines and strata in `evaluation.json`, must be equal.

*Workers*: the clips' frames are generated beforehand. What is timed is all the rest of a clip:
decoding, the six trivial models, measuring all seven by every judge, features, two or three videos
written, the record. The clock starts when all workers have loaded their judges, and stops when the
last clip is done. Workers have a core and a thread each. The fastest of `--runs` rounds counts.
Where others use the machine, the ratio of CPU seconds says more: those of the busier of two
workers over those of a single one.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.evaluate.clip_stage import ClipStage
from tasks.evaluate.clips import freeze, open_clip, open_test_clips
from tasks.evaluate.generated import GeneratedFrames
from tasks.evaluate.run import evaluate, read_evaluation
from tasks.evaluate.table import MEASUREMENTS
from tasks.recipes.evaluation import EvaluationConfig
from tasks.runtime.executor import run_stage
from tasks.runtime.ray_session import ray_session
from tasks.runtime.stage import Outcome
from tasks.weights.bundle import read_bundle

BAR = 0.6
"""Most time of two workers over that of one."""
READY_S = 600.0
SHARE = 0.8
"""Of an undisturbed run's seconds: the latest moment at which a process is killed."""


@dataclass
class TimedStage(ClipStage):
    """Clips whose beginning and end are told; workers wait for each other before the first."""

    barrier: Path = Path()
    workers: int = 1

    def setup(self) -> None:
        """Load the judges, then wait for the other workers."""
        super().setup()
        (self.barrier / str(os.getpid())).touch()
        until = time.monotonic() + READY_S
        while len(list(self.barrier.iterdir())) < self.workers:
            if time.monotonic() > until:
                raise RuntimeError(f"not all workers were ready within {READY_S:g} s")
            time.sleep(0.01)

    def process(self, item: Sequence[int]) -> Any:
        """When it began and ended, by the clock that all processes share, its CPU seconds, and
        whose they were."""
        begin, cpu = time.monotonic(), time.process_time()
        super().process(item)
        return begin, time.monotonic(), time.process_time() - cpu, os.getpid()


def numbers(output: Path) -> bytes:
    """What must be equal."""
    content = read_evaluation(output)
    chosen = {name: content[name] for name in ("metrics", "baselines", "strata", "clips")}
    return (output / MEASUREMENTS).read_bytes() + json.dumps(chosen).encode()


def run_killed(command: Sequence[str], output: Path, kills: int) -> tuple[list[float], bool]:
    """Kill an evaluation at random moments; when, and whether its numbers are the calm ones."""
    calm = output.with_name("calm")
    began = time.monotonic()
    subprocess.run([*command, str(calm)], check=True)
    longest = SHARE * (time.monotonic() - began)
    expected, moments, equal = numbers(calm), list[float](), True
    rng = random.Random(0)
    while len(moments) < kills:
        moment = rng.uniform(0, longest)
        process = subprocess.Popen([*command, str(output)], start_new_session=True)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            moments.append(moment)
            there = len(list(output.rglob("records/*/*.npz")))
            text = f"killed after {moment:.1f} s, {there} clips were done"
            print(text, file=sys.stderr, flush=True)
            continue
        equal &= numbers(output) == expected
        print("finished before it was killed", file=sys.stderr, flush=True)
        shutil.rmtree(output)
    subprocess.run([*command, str(output)], check=True)
    return moments, equal and numbers(output) == expected


def time_workers(
    dataset: Path, bundle: Path, config: EvaluationConfig, work: Path, runs: int
) -> tuple[dict[int, float], dict[int, float]]:
    """Number of workers -> seconds of the fastest round, and CPU seconds of the busiest worker in
    the round where it was least busy."""
    about = read_bundle(bundle)
    store, split = open_test_clips(dataset, int(about["resolution"]), about["crop"])
    config = replace(config, reference=about["reference"], windows_at_once=1)
    tests = freeze(
        store, split, config.clips, config.frames_per_clip, None, config.silent_clips, 50
    )
    frames = work / "frames"
    frames.mkdir(parents=True)

    def stage(workers: int, number: int) -> TimedStage:
        place = work / f"{workers}-{number}"
        for name in ("records", "output", "barrier"):
            (place / name).mkdir(parents=True)
        return TimedStage(
            bundle,
            bundle,
            dataset,
            int(about["resolution"]),
            tests,
            config,
            "cpu",
            place / "output",
            frames,
            place / "records",
            barrier=place / "barrier",
            workers=workers,
        )

    generated = GeneratedFrames(frames, tests, stage(1, -1)._load, print)
    for number, chosen in enumerate(tests.clips):
        clip = open_clip(store, chosen)
        for kind in chosen.kinds:
            generated.video(number, clip, kind)
    found: dict[int, list[float]] = {1: [], 2: []}
    busiest: dict[int, list[float]] = {1: [], 2: []}
    with ray_session(num_cpus=max(found)):
        for number in range(runs):
            for workers, seconds in found.items():
                spans: list[tuple[float, float, float, int]] = []

                def ended(outcome: Outcome, spans: list[Any] = spans) -> None:
                    assert not outcome.detail, outcome.detail
                    spans.append(outcome.value)

                items = [(each.clip_id, (index,)) for index, each in enumerate(tests.clips)]
                run_stage(stage(workers, number), items, on_outcome=ended, workers=workers)
                begins, ends, _, _ = zip(*spans, strict=True)
                seconds.append(max(ends) - min(begins))
                by_worker: dict[int, float] = defaultdict(float)
                for _, _, cpu, worker in spans:
                    by_worker[worker] += cpu
                busiest[workers].append(max(by_worker.values()))
                text = f"{workers} workers, round {number + 1}: {seconds[-1]:.1f} s"
                text += f", {busiest[workers][-1]:.1f} s of CPU in the busiest"
                text += f", {sum(by_worker.values()):.1f} s in all"
                print(text, file=sys.stderr, flush=True)
    return (
        {workers: min(each) for workers, each in found.items()},
        {workers: min(each) for workers, each in busiest.items()},
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print both results; exit code 1 if one is not as wanted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=60, help="frames of a clip")
    parser.add_argument("--kills", type=int, default=10, help="0: leave this part out")
    parser.add_argument("--runs", type=int, default=3, help="0: leave this part out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    dataset, bundle = options.dataset.resolve(), options.bundle.resolve()
    config = EvaluationConfig(
        clips=options.clips, frames_per_clip=options.frames, steps=2, silent_clips=2
    )
    if options.output:
        evaluate(bundle, dataset, options.output, config)
        return 0
    command = [sys.executable, "-m", "benchmarks.evaluation", str(dataset), str(bundle)]
    command += ["--clips", str(options.clips), "--frames", str(options.frames), "--output"]
    found: dict[str, Any] = {}
    good = True
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if options.kills:
            moments, equal = run_killed(command, place / "killed", options.kills)
            text = "the same bytes" if equal else "OTHER BYTES"
            print(f"killed {len(moments)} times: {text}", flush=True)
            found |= {"moments_s": moments, "equal": equal}
            good &= equal
        if options.runs:
            seconds, cpu = time_workers(dataset, bundle, config, place / "workers", options.runs)
            for name, each in (("two workers over one", seconds), ("by CPU seconds", cpu)):
                print(f"{name}: {each[2] / each[1]:.2f} ({each[2]:.1f} s, {each[1]:.1f} s)")
            found |= {"seconds": seconds, "cpu_seconds": cpu}
            good &= seconds[2] <= BAR * seconds[1]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return int(not good)


if __name__ == "__main__":
    raise SystemExit(main())
