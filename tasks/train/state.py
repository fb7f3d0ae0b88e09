"""The state of a training stage: what its checkpoint holds, how it is kept and taken up."""

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn

from datasets.errors import UserError
from tasks.train.checkpoints import load_state, save_state

BEST = "best.pt"
"""The state with the best held-out score so far."""


class TrainingState(TypedDict):
    """What a checkpoint of a stage holds."""

    version: int
    digest: str
    """Digest of everything that the stage depends on."""
    seed: int
    step: int
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    average: dict[str, Tensor]
    best: float | None
    """Best held-out score so far, less is better; None before the first."""
    skipped: int
    """Steps without an update, since something was not finite."""


@dataclass
class State:
    """Everything that changes while a stage is trained."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor]
    """Averaged weights, by name; empty without averaging."""
    step: int = 0
    """Steps done."""
    best: float | None = None
    skipped: int = 0

    def save(self, path: Path, digest: str, seed: int, keep: int = 1) -> None:
        """Write a checkpoint.

        Args:
            keep: how many of the latest checkpoints are there afterwards; those before are named
                after their steps.

        Raises:
            OSError: the disk is full or not writable; the previous file is untouched.
        """
        if keep > 1:
            _set_aside(path, keep - 1)
        state: TrainingState = {
            "version": 1,
            "digest": digest,
            "seed": seed,
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average,
            "best": self.best,
            "skipped": self.skipped,
        }
        save_state(path, state)

    def restore(self, path: Path, accepted: Collection[str], seed: int) -> None:
        """Go on from `path` if it exists.

        Args:
            accepted: digests of the trainings that this one may go on from.

        Raises:
            UserError: it is a checkpoint of another training, which would be lost.
            ModelFileError: the file is damaged.
        """
        if not path.is_file():
            return
        state = cast(TrainingState, load_state(path))
        if state.get("digest") not in accepted or state.get("seed") != seed:
            raise UserError(
                f"{path} is a checkpoint of another training, which would be lost: choose another "
                "output folder, or give --restart to keep it aside"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self.step = int(state["step"])
        self.best = state.get("best")
        self.skipped = int(state.get("skipped", 0))

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the averaged weights towards the current ones, faster in the first steps."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        current = dict(self.network.named_parameters())
        for name, value in self.average.items():
            value.lerp_(current[name].detach().to(value.dtype), 1 - decay)

    @torch.no_grad()
    def hand_on(self) -> None:
        """Leave in the network what the stage hands on: the averaged weights if there are any."""
        self.network.eval()
        current = dict(self.network.named_parameters())
        for name, value in self.average.items():
            current[name].copy_(value)


def checkpoint_step(path: Path) -> int:
    """How many steps a checkpoint is of.

    Raises:
        ModelFileError: it is missing or damaged.
    """
    return int(load_state(path, lazily=True)["step"])


def _set_aside(path: Path, keep: int) -> None:
    """Give the checkpoint a second name by its step, and forget all but the latest `keep`."""
    if path.is_file():
        named = path.with_name(f"checkpoint-{checkpoint_step(path):08d}.pt")
        named.unlink(missing_ok=True)
        os.link(path, named)
    earlier = sorted(path.parent.glob("checkpoint-*.pt"))
    for old in earlier[: max(0, len(earlier) - keep)]:
        with suppress(FileNotFoundError):
            old.unlink()
