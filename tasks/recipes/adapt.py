"""How a finished model, or its sync network, is adapted to one person or language."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from datasets.errors import UserError
from tasks.recipes.config import LossWeights, Precision, SyncNetConfig, UNetConfig


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


@dataclass(frozen=True, kw_only=True)
class SyncAdaptConfig(SyncNetConfig):
    """Settings of an adaptation of a StableSyncNet; windows are those that it was trained on."""

    network: Literal["frame", "stable"] = "stable"
    steps: int = 1000
    batch_size: int = 16
    lr: float = 1e-4
    warmup: int = 10
    precision: Precision = "bf16"
    checkpoint_every: int = 100
    log_every: int = 20
    test_every: int = 100
    windows_per_clip: int = 4
    reader: Literal["auto", "memory", "stream"] = "memory"
    rank: int = 16
    """Rank of the change of each convolution and projection."""
    alpha: int = 16
    """Strength of the adapter; the change is B A * alpha / rank."""


ADAPTATIONS: Mapping[str, AdaptConfig | SyncAdaptConfig] = {
    "lora-syncnet": SyncAdaptConfig(),
    "lora": AdaptConfig(),
    "lora-256": AdaptConfig(
        steps=2000,
        batch_size=2,
        rank=32,
        alpha=32,
        gradient_checkpointing=True,
        losses=LossWeights(sync=0.05, lpips=0.1),
        lpips_weights="vgg16-lpips",
        checkpoint_every=200,
        test_every=200,
        sample_every=500,
        log_every=50,
    ),
}
"""Recipes by name: `lora` for the tiny recipe's models, `lora-256` for those of the published size,
with the losses of the paper's stage 2; `lora-syncnet` for the StableSyncNet of a bundle."""


def adaptation(name: str, **changes: Any) -> AdaptConfig | SyncAdaptConfig:
    """A recipe of an adaptation.

    Args:
        name: one of `ADAPTATIONS`.
        changes: values of fields; None leaves the recipe's.

    Raises:
        UserError: there is no such recipe.
    """
    if name not in ADAPTATIONS:
        raise UserError(f"there is no adaptation {name!r}: choose one of {', '.join(ADAPTATIONS)}")
    return replace(
        ADAPTATIONS[name], **{key: value for key, value in changes.items() if value is not None}
    )
