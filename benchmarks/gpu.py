"""Everything that needs a GPU, in nine minutes at most: one table, one JSON.

    python -m benchmarks.gpu --json gpu.json
    python -m benchmarks.gpu --device cpu --small        the same with the debug recipe

Every stage of the paper's recipes, and the adaptation of a model of that size, does real optimizer
steps at full size with drawn weights and windows, so no file has to be at hand. What does not fit
into the GPU is computed in parts, and the table says so. At the end faces are painted as a chain
and in windows, 1, 8 and 32 shots side by side. `memory` is the most that torch's
allocator held, `estimate` what training says before it begins, `share` is the part of the GPU's
peak in bf16 that the counted operations of a step amount to.

Every part runs in a process of its own, until its deadline. One that fails is a row with the
reason, and leaves the others their time.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import chain_cost
from tasks.recipes.adapt import AdaptConfig, adaptation
from tasks.recipes.config import Recipe
from tasks.recipes.recipe import parse_overrides, recipe
from tasks.train.memory import estimate_memory, what_would_fit
from tasks.train.room import available_gb
from tasks.train.trial import try_stage

COST = "chain and windows"
"""The part that paints, see `benchmarks.chain_cost`."""
MINUTES = 9.0
"""For all parts together."""
LEAST_S = 20.0
"""Left for every later part, however long one takes."""
MOST_S = 180.0
"""For one part."""
STEPS = 3
"""Optimizer steps of a stage; the first one, in which operations are counted, is not timed."""
PEAKS = {
    "H200": 989.0, "H100": 989.0, "H20": 148.0, "A100": 312.0, "A10G": 70.0, "L40S": 362.0,
    "L4": 121.0, "RTX 4090": 165.0, "RTX 3090": 71.0,
}  # fmt: skip
"""Tera-operations per second in bf16, dense, by NVIDIA's data sheets; the first name that is part
of the device's."""


@dataclass(frozen=True)
class Part:
    """A row of the table."""

    name: str
    command: tuple[str, ...]
    """Arguments of Python; the last line of its output is the row as JSON."""


@dataclass(frozen=True)
class Stage:
    """A stage of a recipe, or an adaptation of its model."""

    recipe: str
    stage: str
    adapter: str = ""

    @property
    def name(self) -> str:
        return self.adapter or f"{self.recipe} {self.stage}"


FULL = (
    Stage("paper-256", "syncnet"),
    Stage("paper-256", "stage1"),
    Stage("paper-256", "stage2"),
    Stage("stage2-efficient", "stage2"),
    Stage("paper-256", "stage2", "lora-256"),
    Stage("paper-512", "stage1"),
    Stage("paper-512", "stage2"),
)
"""The sync network of paper-512 is that of paper-256, and stage2-efficient trains stage 2 alone."""
SMALL = (
    *(Stage("debug", stage) for stage in ("autoencoder", "syncnet", "stage1", "stage2")),
    Stage("debug", "stage2", "lora"),
)


def measure(stage: Stage, device: torch.device, peak_tflops: float) -> dict[str, Any]:
    """The row of a stage, in this process.

    Args:
        stage: which.
        device: where.
        peak_tflops: of the device; 0 if it is not known.
    """
    chosen = recipe(stage.recipe)
    adapter = adaptation(stage.adapter) if stage.adapter else None
    assert adapter is None or isinstance(adapter, AdaptConfig)
    estimate, changes = estimate_memory(chosen, stage.stage, device, adapter).total, ""
    if estimate > (free := available_gb(device)):
        chosen, adapter, changes = _made_to_fit(chosen, stage.stage, adapter, device, free)
        estimate = estimate_memory(chosen, stage.stage, device, adapter).total
    trial = try_stage(chosen, stage.stage, device, STEPS, bool(peak_tflops), adapter)
    if not (all(map(math.isfinite, trial.losses)) and trial.moved > 0):
        return {"failed": f"no step was done: losses {trial.losses}, moved {trial.moved}"}
    config = adapter or chosen.stage(stage.stage)
    assert config is not None
    row = {
        "samples_per_s": trial.samples_per_s,
        "seconds": trial.seconds,
        "memory_gb": trial.memory_gb,
        "estimate_gb": estimate,
        "error": estimate / trial.memory_gb - 1,
        "losses": list(trial.losses),
        "batch_size": config.batch_size,
        "precision": config.precision,
        "changes": changes,
    }
    if peak_tflops:
        row["flops"] = trial.flops
        row["share"] = trial.flops / trial.seconds / peak_tflops / 1e12
    return row


def _made_to_fit(
    chosen: Recipe,
    name: str,
    adapter: AdaptConfig | None,
    device: torch.device,
    free_gb: float,
) -> tuple[Recipe, AdaptConfig | None, str]:
    """What does not fit as a whole batch in parts, and what was changed."""
    if adapter is not None:
        return chosen, replace(adapter, micro_batch=1), "micro_batch=1"
    found = what_would_fit(chosen, name, device, free_gb)
    if not found:
        # It may fit nevertheless; if not, the row says so.
        return chosen, adapter, ""
    return recipe(chosen.name, parse_overrides(found[0].split())), adapter, found[0]


def run_parts(
    parts: Sequence[Part],
    seconds: float,
    show: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[dict[str, Any]]:
    """Run one part after the other.

    Args:
        parts: what to run.
        seconds: for all of them together.
        show: takes the lines of the table.
        clock: seconds, for tests.

    Returns:
        A row for each; one that failed has `failed`, the reason.
    """
    ends, rows = clock() + seconds, []
    for number, part in enumerate(parts):
        later = len(parts) - number - 1
        limit = min(MOST_S, ends - clock() - LEAST_S * later)
        began = clock()
        row = _run(part, limit) if limit > 0 else {"failed": "there was no time left for it"}
        rows.append({"part": part.name, **row, "wall_s": clock() - began})
        show(line_of(rows[-1]))
    return rows


def _run(part: Part, limit_s: float) -> dict[str, Any]:
    command = [sys.executable, *part.command]
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done within its {limit_s:.0f} s"}
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        return {"failed": reason}
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {"failed": "it printed no result"}
    return found


HEAD = (
    f"{'part':26s} {'batch':>5s} {'s/step':>8s} {'samples/s':>10s} {'memory GB':>10s} "
    f"{'estimate':>9s} {'':>5s} {'share':>6s}"
)


def line_of(row: dict[str, Any]) -> str:
    """A line of the table."""
    if "failed" in row:
        return f"{row['part']:26s} FAILED: {row['failed']}"
    if "cost" in row:
        return "\n".join(
            [row["part"], *(f"    {chain_cost.line_of(each)}" for each in row["cost"])]
        )
    share = f"{row['share']:6.1%}" if "share" in row else f"{'–':>6s}"
    return (
        f"{row['part']:26s} {row['batch_size']:5d} {row['seconds']:8.2f} "
        f"{row['samples_per_s']:10.2f} {row['memory_gb']:10.2f} {row['estimate_gb']:9.2f} "
        f"{row['error']:+5.0%} {share}   {row['changes']}"
    ).rstrip()


def peak_of(device: torch.device) -> float:
    """Tera-operations per second of a GPU in bf16; 0 if it is not known."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), 0.0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="the debug recipe, in seconds")
    parser.add_argument("--only", default="", help="parts whose names contain this")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together")
    parser.add_argument("--peak-tflops", type=float, help="of the device in bf16")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU: give --device cpu --small to try the script without one")
    peak = peak_of(device) if options.peak_tflops is None else options.peak_tflops
    stages = SMALL if options.small else FULL
    if options.part is not None:
        print(json.dumps(measure(stages[options.part], device, peak)))
        return 0
    began = time.monotonic()
    parts = [
        Part(stage.name, ("-m", "benchmarks.gpu", "--part", str(number), *_passed(options, peak)))
        for number, stage in enumerate(stages)
        if options.only in stage.name
    ]
    if options.only in COST:
        full = [] if options.small else ["--full"]
        command = ("-m", "benchmarks.chain_cost", "--device", options.device, *full)
        parts.append(Part(COST, command))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    print(f"{name}, torch {torch.__version__}, peak {f'{peak:g} TFLOPS' if peak else 'not known'}")
    print(HEAD, flush=True)
    rows = run_parts(parts, 60 * options.minutes, lambda line: print(line, flush=True))
    took = time.monotonic() - began
    good = sum("failed" not in row for row in rows)
    print(f"{good} of {len(rows)} parts in {took:.0f} s")
    if options.json:
        about = {"device": name, "torch": torch.__version__, "peak_tflops": peak, "seconds": took}
        options.json.write_text(json.dumps({**about, "parts": rows}, indent=1), encoding="utf-8")
    return 0 if good == len(rows) else 1


def _passed(options: argparse.Namespace, peak: float) -> list[str]:
    small = ["--small"] if options.small else []
    return ["--device", options.device, "--peak-tflops", str(peak), *small]


if __name__ == "__main__":
    sys.exit(main())
