"""What a chain costs beside windows: network passes and seconds per frame, shots side by side.

    python -m benchmarks.chain_cost
    python -m benchmarks.chain_cost --full --device cuda --json cost.json

SyncDiff's variant paints one frame after the other, LatentSync 16 at once, of which neighbours
share 4. Both do the same steps of the sampler with guidance and decode what they made; weights are
drawn. A chain of one shot cannot be batched in time, so the batch is several shots side by side.
`passes` are runs of the U-Net for one frame of each shot, whatever the batch; `s/frame` is for a
frame of one shot: the time of all shots together over their number.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.latentsync.chain import PoseChain
from models.latentsync.model import LatentSync
from tasks.lipsync.generator import OVERLAP
from tasks.recipes.recipe import recipe
from tasks.train.assemble import model_config
from tests.support.small_models import count_runs

SHOTS = (1, 8, 32)
STEPS = 4
"""Of the sampler: both kinds do as many, so only the seconds grow with them."""
GUIDANCE = 1.5
CHAINED = 8
"""Frames of a chain that are timed, after one that is not."""
SMALL, FULL = ("syncdiff-tiny", "tiny"), ("syncdiff-256", "paper-256")
"""The recipe of the chain, and of the windows."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chain_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--full", action="store_true", help="networks of the published size")
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS))
    parser.add_argument("--steps", type=int, default=STEPS, help="of the sampler")
    parser.add_argument("--frames", type=int, default=CHAINED, help="of a chain that are timed")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU: leave --device out to measure the processor")
    if min(*options.shots, options.steps, options.frames) < 1:
        parser.error("--shots, --steps and --frames must be at least 1")
    rows = measure(FULL if options.full else SMALL, device, options)
    if options.json:
        text = json.dumps(
            {"device": options.device, "steps": options.steps, "rows": rows}, indent=1
        )
        options.json.write_text(text + "\n", encoding="utf-8")
    # For `benchmarks.gpu`, which reads the last line.
    print(json.dumps({"cost": rows}))
    return 0 if any("failed" not in row for row in rows) else 1


def measure(
    recipes: tuple[str, str], device: torch.device, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each kind and number of shots; what does not fit is a row with the reason."""
    print(HEAD, flush=True)
    rows = []
    for kind, name in zip(("chain", "windows"), recipes, strict=True):
        chosen = recipe(name)
        torch.manual_seed(0)
        config = model_config(chosen, "stage1" if chosen.stage2 is None else "stage2")
        model = LatentSync(config).to(device).channels_last().eval()
        for shots in options.shots:
            row: dict[str, Any] = {"kind": kind, "recipe": name, "shots": shots}
            try:
                row |= cost_of(model, shots, options.steps, options.frames)
            except torch.OutOfMemoryError:
                row["failed"] = f"{shots} shots do not fit into the GPU"
            rows.append(row)
            print(line_of(row), flush=True)
        del model
    return rows


@torch.no_grad()
def cost_of(model: LatentSync, shots: int, steps: int, frames: int) -> dict[str, Any]:
    """Passes and seconds of a frame, and the most memory on a GPU.

    Args:
        model: painted with as a chain if it is shown earlier frames, otherwise in windows.
        shots: side by side.
        steps: of the sampler.
        frames: of a chain that are timed.
    """
    device, length = model.device, model.config.num_frames
    chained = model.config.pose is not None
    pixels = torch.rand(2, shots, length, 3, *[model.config.resolution] * 2, device=device) * 2 - 1
    audio = model.audio_encoder
    tokens = torch.randn(shots, length, audio.tokens_per_frame, audio.width, device=device)
    paint = PoseChain(model).paint if chained else model.generate

    def once() -> Tensor:
        return paint(pixels[0], pixels[1], tokens, steps=steps, guidance=GUIDANCE)

    once()
    _wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    counts = count_runs([model.unet])
    times, began = (frames if chained else 2), time.perf_counter()
    for _ in range(times):
        once()
    _wait(device)
    seconds = time.perf_counter() - began
    # Of a window the frames that the next one shares with it are made twice.
    new = length if chained else length - OVERLAP
    row = {
        "passes": counts[0] / times / new,
        "seconds": seconds / times / new / shots,
        "launches_per_s": counts[0] / seconds,
    }
    if device.type == "cuda":
        row["memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return row


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


HEAD = f"{'kind':8s} {'recipe':14s} {'shots':>5s} {'passes':>7s} {'s/frame':>9s} {'memory GB':>10s}"


def line_of(row: dict[str, Any]) -> str:
    """A line of the table."""
    first = f"{row['kind']:8s} {row['recipe']:14s} {row['shots']:5d}"
    if "failed" in row:
        return f"{first} FAILED: {row['failed']}"
    memory = f"{row['memory_gb']:10.2f}" if "memory_gb" in row else f"{'–':>10s}"
    return f"{first} {row['passes']:7.2f} {row['seconds']:9.4f} {memory}"


if __name__ == "__main__":
    sys.exit(main())
