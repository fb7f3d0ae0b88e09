"""How a finished model is adapted to one person or language."""

from dataclasses import dataclass, field
from typing import Literal

from tasks.recipes.config import LossWeights, Precision, UNetConfig


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(UNetConfig):
    """Settings of an adaptation: those of a stage of the U-Net, and the adapter's."""

    steps: int = 300
    batch_size: int = 1
    lr: float = 1e-4
    warmup: int = 10
    precision: Precision = "bf16"
    checkpoint_every: int = 50
    test_every: int = 50
    reader: Literal["auto", "memory", "stream"] = "memory"
    losses: LossWeights = field(default_factory=LossWeights)
    rank: int = 16
    """Rank of the change of each projection: larger ones can learn more and make larger files."""
    alpha: int = 16
    """Strength of the adapter; the change is B A * alpha / rank."""
