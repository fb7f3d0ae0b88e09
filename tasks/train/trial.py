"""Real steps of a stage with drawn weights and windows: does it work, how fast, in what memory?"""

import resource
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tasks.recipes.adapt import AdaptConfig
from tasks.recipes.config import Recipe
from tasks.train.compiled import compile_blocks
from tasks.train.drawn import DrawnStage, drawn_stage
from tasks.train.objective import Objective, Rank
from tasks.train.update import Updates, prepare


@dataclass(frozen=True)
class Trial:
    """What some steps showed."""

    samples_per_s: float
    """Of the steps after the first."""
    losses: tuple[float, ...]
    """One per step."""
    memory_gb: float
    """Peak of this process on a processor, of the device's allocations on a GPU; 1e9 bytes."""
    moved: float
    """Largest change of a weight."""
    flops: float
    """Floating-point operations of one step; 0 where they were not counted."""
    seconds: float
    """Of one step."""


class _DrawnObjective(Objective):
    """The loss of a drawn stage; a batch is one number for each sample."""

    def __init__(self, stage: DrawnStage) -> None:
        self.network, self._stage = stage.network, stage

    def batch(self, step: int, share: int = 0) -> Tensor:
        return torch.zeros(self._stage.config.batch_size)

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self._stage.loss(len(batch)), {}


def try_stage(
    recipe: Recipe,
    name: str,
    device: torch.device,
    steps: int = 2,
    count_flops: bool = False,
    adapter: AdaptConfig | None = None,
) -> Trial:
    """Do some optimizer steps of a stage as training does them.

    Args:
        recipe: what is trained.
        name: one of its stages.
        device: where.
        steps: at least 1; with more, the first one is not counted in the speed.
        count_flops: count the operations of the first step, which slows it.
        adapter: how the model is adapted instead.

    Raises:
        torch.OutOfMemoryError: it does not fit on the GPU.
    """
    torch.manual_seed(0)
    stage = drawn_stage(recipe, name, device, adapter)
    if stage.config.compile:
        compile_blocks(stage.network)
    objective, worker = _DrawnObjective(stage), Rank(device)
    state = prepare(objective, stage.config, worker)
    updates = Updates(stage.config, state, worker, name)
    weight = max(stage.learned, key=lambda each: each.numel())
    before = weight.detach().clone()
    counter = FlopCounterMode(display=False)
    losses, times, flops = [], [], 0.0
    for step in range(steps):
        began = _now(device)
        if count_flops and step == 0:
            with counter:
                values = updates.step(objective.batch(step))
            flops = float(counter.get_total_flops())
        else:
            values = updates.step(objective.batch(step))
        losses.append(float(values["loss"]) if values else float("nan"))
        updates.state.step += 1
        times.append(_now(device) - began)
    counted = times[1:] or times
    seconds = sum(counted) / len(counted)
    return Trial(
        stage.config.batch_size / seconds,
        tuple(losses),
        peak_memory_gb(device),
        float((weight.detach() - before).abs().max()),
        flops,
        seconds,
    )


def peak_memory_gb(device: torch.device) -> float:
    """The most that this process, or a GPU's allocator, has held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
