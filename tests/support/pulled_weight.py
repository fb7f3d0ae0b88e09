"""What shows the loop's arithmetic: a single weight, what it should be, and who listens."""

from typing import Any

import torch
from torch import Tensor, nn

from tasks.train.objective import Objective


class Lines:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def progress(self, line: str) -> None:
        self.lines.append(line)


class Pulled(Objective):
    """A single weight that is pulled by a given gradient in every step."""

    def __init__(self, pulls: list[float], start: float = 2.0, measure_every: int = 0) -> None:
        self.network = nn.Module()
        self.weight = nn.Parameter(torch.tensor([start], dtype=torch.float64))
        self.network.register_parameter("weight", self.weight)
        self.pulls, self.measure_every = pulls, measure_every
        self.seen: list[float] = []
        self.drawn: list[float] = []
        self.modes: list[bool] = []

    def batch(self, step: int, share: int = 0) -> Any:
        return self.pulls[step]

    def loss(self, batch: float) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen.append(float(self.weight.detach()))
        self.drawn.append(float(torch.rand(())))
        self.modes.append(self.network.training)
        return batch * self.weight.sum(), {}

    def measure(self) -> dict[str, float]:
        self.network.eval()
        return {"score": 1.0}


def adamw(pulls: list[float], rates: list[float], decay: float, clip: float) -> list[float]:
    """The weight of `Pulled` before each step and at the end, by the formulas of AdamW."""
    weight, mean, square = 2.0, 0.0, 0.0
    found = [weight]
    for step, (pull, rate) in enumerate(zip(pulls, rates, strict=True), 1):
        pull *= min(1.0, clip / (abs(pull) + 1e-6))
        mean, square = 0.9 * mean + 0.1 * pull, 0.999 * square + 0.001 * pull**2
        weight *= 1 - rate * decay
        weight -= rate * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)) ** 0.5 + 1e-8)
        found.append(weight)
    return found
