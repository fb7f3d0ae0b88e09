"""What a training stage shows while it runs: its curve files and its lines of progress."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from torch import Tensor

METRICS = "metrics.jsonl"
RUNTIME = "runtime.jsonl"
"""Speed, waiting and memory: what differs from one run of the same training to the next."""
WAITING = 0.05
"""Share of the time spent waiting for batches above which it is said."""
PROGRESS_SECONDS = 4.0
"""Seconds between two lines of progress."""


@dataclass
class Curve:
    """`metrics.jsonl`: one JSON object per logged step, cut to the checkpoint on resume."""

    path: Path
    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0
    recent: dict[str, float] = field(default_factory=dict)
    """The last point."""
    since: int = 0
    """Steps that it is a mean of."""

    def cut(self, step: int) -> None:
        kept = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    break
                if entry["step"] > step:
                    break
                kept.append(line + "\n")
        self.path.write_text("".join(kept), encoding="utf-8")

    def add(self, values: dict[str, Tensor]) -> None:
        """Add a step to the next point; without values, a step that changed nothing."""
        if not values:
            return
        for name, value in values.items():
            detached = value.detach().float()
            self.sums[name] = self.sums[name] + detached if name in self.sums else detached
        self.count += 1

    def point(self) -> dict[str, float]:
        """Means since the last point; empty without steps."""
        self.recent = {name: float(value) / self.count for name, value in self.sums.items()}
        self.since = self.count
        self.sums, self.count = {}, 0
        return dict(self.recent)

    def write(self, step: int, values: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


class Meter:
    """Speed, waiting and memory since the last point.

    Args:
        samples: in one step of all workers together.
        device: whose memory counts; that of this process on a CPU.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        self.samples, self.device = samples, device
        self.began, self.steps, self.waited_s = time.monotonic(), 0, 0.0
        self.waiting = 0.0
        """Share of the time that was spent waiting for batches, at the last point."""

    def add(self, waited_s: float) -> None:
        """Count a step that began after waiting so long for its batch."""
        self.steps += 1
        self.waited_s += waited_s

    def point(self) -> dict[str, float]:
        """samples_per_s, waiting (share of the time), memory_gb (peak)."""
        now = time.monotonic()
        passed = max(1e-9, now - self.began)
        self.waiting = min(1.0, self.waited_s / passed)
        rate = self.samples * self.steps / passed
        self.began, self.steps, self.waited_s = now, 0, 0.0
        return {
            "samples_per_s": rate,
            "waiting": self.waiting,
            "memory_gb": memory_gb(self.device),
        }


def memory_gb(device: torch.device) -> float:
    """Peak memory of a CUDA device since the process began, or what this process has now, GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


class Clock:
    """Reports every few seconds how far the stage is and how long it will take."""

    def __init__(self, stage: str, steps: int, start: int) -> None:
        self.stage, self.steps, self.start = stage, steps, start
        self.began = self.spoken = time.monotonic()

    def line(self, step: int, curve: Curve, meter: Meter) -> str:
        """The line to show after a step; empty if it is too soon for one."""
        now = time.monotonic()
        if now - self.spoken < PROGRESS_SECONDS and step < self.steps:
            return ""
        self.spoken = now
        rate = (step - self.start) / max(1e-9, now - self.began)
        left = (self.steps - step) / rate
        loss = f"  loss {curve.recent['loss']:.4g}" if "loss" in curve.recent else ""
        waits = f"  waiting for data {meter.waiting:.0%}" if meter.waiting > WAITING else ""
        return (
            f"{self.stage}  {step}/{self.steps} steps{loss}  {rate:.2g} steps/s{waits}  "
            f"{int(left) // 60} min {int(left) % 60:02d} s left"
        )
