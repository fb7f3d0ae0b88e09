"""What a training stage shows while it runs: its curve file and its lines of progress."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

METRICS = "metrics.jsonl"
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
        for name, value in values.items():
            detached = value.detach().float()
            self.sums[name] = self.sums[name] + detached if name in self.sums else detached
        self.count += 1

    def point(self) -> dict[str, float]:
        """Means since the last point."""
        self.recent = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return dict(self.recent)

    def write(self, step: int, values: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


class Clock:
    """Reports every few seconds how far the stage is and how long it will take."""

    def __init__(self, stage: str, steps: int, start: int) -> None:
        self.stage, self.steps, self.start = stage, steps, start
        self.began = self.spoken = time.monotonic()

    def line(self, step: int, curve: Curve) -> str:
        now = time.monotonic()
        if now - self.spoken < PROGRESS_SECONDS and step < self.steps:
            return ""
        self.spoken = now
        rate = (step - self.start) / max(1e-9, now - self.began)
        left = (self.steps - step) / rate
        loss = f"  loss {curve.recent['loss']:.4g}" if curve.recent else ""
        return (
            f"{self.stage}  {step}/{self.steps} steps{loss}  {rate:.2g} steps/s  "
            f"{int(left) // 60} min {int(left) % 60:02d} s left"
        )
