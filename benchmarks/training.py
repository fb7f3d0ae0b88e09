"""Real optimizer steps of every stage of a recipe: speed, and memory against its estimate.

    python -m benchmarks.training --recipe tiny
    python -m benchmarks.training --recipe paper-256 --stages syncnet --set syncnet.batch_size=4
    python -m benchmarks.training --paper             all paper recipes, made to fit this processor
    python -m benchmarks.training --recipe paper-256 --device cuda --peak-tflops 989

Weights and windows are drawn, so nothing has to be at hand. Every stage runs in a process of its
own. `memory` is the most that it held, `estimate` what training says before it begins (within 15 %
wanted); `mfu` is the share of the device's peak that the counted operations amount to.

On a processor the paper's recipes are shrunk where they must be, and the table says how: one window
at a time, gradient checkpointing, and fewer channels where 20 GB are not enough.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from tasks.recipes.config import STAGES, Recipe
from tasks.recipes.recipe import parse_overrides, recipe
from tasks.train.memory import estimate_memory
from tasks.train.trial import Trial, try_stage

BAR = 0.15
"""Largest allowed error of the estimate."""
LIMIT_S = 900
NARROW = ("model.unet.block_out_channels=[64,128,256,256]",)
PAPER: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("paper-256", "syncnet", ("syncnet.batch_size=2",)),
    ("paper-256", "stage1", ("stage1.batch_size=1",)),
    ("paper-256", "stage2", ("stage2.batch_size=1", *NARROW)),
    ("paper-512", "syncnet", ("syncnet.batch_size=2",)),
    ("paper-512", "stage1", ("stage1.batch_size=1", *NARROW)),
    ("paper-512", "stage2", ("stage2.batch_size=1", *NARROW)),
    ("stage2-efficient", "stage2", ("stage2.batch_size=1",)),
)
"""Recipe, stage and what is changed so that a step fits into 20 GB and minutes on a processor."""


def one(
    chosen: Recipe, stage: str, device: torch.device, steps: int, flops: bool
) -> dict[str, object]:
    """Estimate, then do the steps, in this process."""
    estimate = estimate_memory(chosen, stage, device)
    tried = try_stage(chosen, stage, device, steps, flops)
    return {"estimate": asdict(estimate) | {"total": estimate.total}, "trial": asdict(tried)}


def in_a_process(
    name: str, stage: str, changes: Sequence[str], options: argparse.Namespace
) -> dict[str, object]:
    """The same in a process of its own, since a processor's peak is that of a whole process."""
    command = [
        *(sys.executable, "-m", "benchmarks.training", "--one", stage, "--recipe", name),
        *("--device", options.device, "--steps", str(options.steps)),
        *(["--flops"] if options.peak_tflops else []),
        *(word for change in changes for word in ("--set", change)),
    ]
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no result within {LIMIT_S} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    found: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def line_of(what: str, row: dict[str, object], peak_tflops: float) -> tuple[str, bool]:
    """A line of the table, and whether the bars were met."""
    if "failed" in row:
        return f"{what:34s} FAILED: {row['failed']}", False
    trial, estimate = Trial(**row["trial"]), row["estimate"]  # type: ignore[arg-type]
    total = float(estimate["total"])  # type: ignore[index]
    error = total / trial.memory_gb - 1
    good = all(map(math.isfinite, trial.losses)) and trial.moved > 0
    share = ""
    if peak_tflops:
        share = f"   mfu {trial.flops / trial.seconds / peak_tflops / 1e12:5.1%}"
    text = (
        f"{what:34s} {trial.seconds:8.2f} s/step {trial.samples_per_s:9.2f} samples/s   "
        f"memory {trial.memory_gb:6.2f} GB   estimate {total:6.2f} GB ({error:+.0%})   "
        f"loss {trial.losses[-1]:.3f}{share}"
    )
    return text if good else f"{text}   NO STEP", good and abs(error) <= BAR


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--recipe", default="tiny", help="name or recipe file")
    parser.add_argument("--stages", default="", help="comma-separated; by default all")
    parser.add_argument("--set", action="append", default=[], metavar="stage1.batch_size=1")
    parser.add_argument("--paper", action="store_true", help="all paper recipes, shrunk to fit")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device in bf16")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    parser.add_argument("--flops", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    chosen = recipe(options.recipe, parse_overrides(options.set))
    if options.one:
        device = torch.device(options.device)
        print(json.dumps(one(chosen, options.one, device, options.steps, options.flops)))
        return 0
    wanted = options.stages.split(",") if options.stages else list(STAGES)
    jobs: list[tuple[str, str, Sequence[str]]] = [
        (options.recipe, stage, options.set)
        for stage in wanted
        if (config := chosen.stage(stage)) and config.steps
    ]
    if options.paper:
        jobs = list(PAPER)
    rows, met = [], True
    for name, stage, changes in jobs:
        row = in_a_process(name, stage, changes, options)
        rows.append({"recipe": name, "stage": stage, "changes": list(changes), **row})
        line, good = line_of(f"{name} {stage}", row, options.peak_tflops)
        print(line, *[f"   with {' '.join(changes)}"] * bool(changes), flush=True)
        met &= good
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"a step of every stage, and estimates within {BAR:.0%}: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
