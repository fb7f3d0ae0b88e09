"""The state of a training stage: what its checkpoint holds, how it is kept and taken up."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn

from datasets.errors import UserError
from tasks.train.checkpoints import load_state, save_state
from tasks.train.kept import forget, newest, set_aside, sharded_name
from tasks.train.objective import Rank
from tasks.train.sharded_files import SHARDED, Writer, read_facts, read_tensors, shapes
from tasks.train.shards import like, local
from tasks.train.together import Together


class Facts(TypedDict):
    """What a checkpoint of a stage says of itself."""

    version: int
    digest: str
    """Digest of everything that the stage depends on."""
    seed: int
    step: int
    scaler: dict[str, Any]
    best: float | None
    """Best held-out score so far, less is better; None before the first."""
    skipped: int
    """Steps without an update, since something was not finite."""


class TrainingState(Facts):
    """What a checkpoint in one file holds; in a sharded one tensors are named `network.NAME`,
    `average.NAME` and `moments.NAME.MOMENT`."""

    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor]


@dataclass
class State:
    """Everything that changes while a stage is trained."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor]
    """Averaged weights, by name; empty without averaging."""
    together: Together
    """What this worker has of the network."""
    worker: Rank
    """This process."""
    step: int = 0
    """Steps done."""
    best: float | None = None
    skipped: int = 0
    _writer: Writer | None = field(default=None, repr=False)

    def save(self, path: Path, digest: str, seed: int, keep: int = 1) -> None:
        """Write a checkpoint; the leader calls this, or all workers if weights are sharded.

        A sharded one is complete when the next is written, or `finish` has been called.

        Args:
            path: its file, of which the name of a sharded one is made.
            keep: how many of the latest checkpoints are there afterwards; those before are named
                after their steps.

        Raises:
            UserError: a number is not finite; what was written before is untouched.
            OSError: the disk is full or not writable; the previous file is untouched.
        """
        facts: Facts = {
            "version": 1,
            "digest": digest,
            "seed": seed,
            "step": self.step,
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "skipped": self.skipped,
        }
        if self.together.sharded:
            self._save_shards(path, facts, keep)
            return
        if keep > 1:
            set_aside(path)
        state: TrainingState = {
            **facts,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
        }
        save_state(path, state)
        forget(path, keep - 1)

    def _save_shards(self, path: Path, facts: Facts, keep: int) -> None:
        if self._writer is None:
            self._writer = Writer(self.worker)

        def then() -> None:
            # One that a run without shards has left.
            set_aside(path)
            path.unlink(missing_ok=True)
            forget(path, keep)

        self.together.agree()
        named = sharded_name(path, self.step)
        self._writer.write(named, self._tensors(self._moments()), facts, then)

    def finish(self) -> None:
        """Wait until what is written in the background is complete.

        Raises:
            OSError: it cannot be written.
        """
        if self._writer is not None:
            self._writer.close()

    def restore(self, folder: Path, accepted: Collection[str], seed: int) -> None:
        """Go on from the newest checkpoint if there is one, whoever has written it.

        Args:
            folder: the stage's.
            accepted: digests of the trainings that this one may go on from.

        Raises:
            UserError: it is a checkpoint of another training, which would be lost.
            ModelFileError: it is damaged.
        """
        path = newest(folder)
        if path is None:
            return
        sharded = path.suffix == SHARDED
        state = cast(TrainingState, read_facts(path) if sharded else load_state(path))
        if state.get("digest") not in accepted or state.get("seed") != seed:
            raise UserError(
                f"{path} is a checkpoint of another training, which would be lost: choose another "
                "output folder, or give --restart to keep it aside"
            )
        if sharded:
            self._read_shards(path)
        else:
            self._take(state)
        self.scaler.load_state_dict(state["scaler"])
        self.step = int(state["step"])
        self.best = state.get("best")
        self.skipped = int(state.get("skipped", 0))

    @torch.no_grad()
    def _take(self, state: TrainingState) -> None:
        """Take up whole tensors, of which this worker may need a part only."""
        if not self.together.sharded:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
        else:
            for name, value in self.network.state_dict().items():
                local(value).copy_(local(like(state["network"][name], value)))
            moments: Mapping[int, dict[str, Tensor]] = state["optimizer"]["state"]
            for number, weight in enumerate(self.learned.values()):
                for moment, value in moments.get(number, {}).items():
                    goal = weight if value.shape == weight.shape else value
                    self.optimizer.state[weight][moment] = like(value, goal.detach())
        for name, value in state["average"].items():
            local(self.average[name]).copy_(local(like(value, self.average[name])))

    def _read_shards(self, path: Path) -> None:
        known = shapes(path)
        moments: dict[str, dict[str, Tensor]] = {}
        for name, weight in self.learned.items():
            first = f"moments.{name}."
            moments[name] = {
                key.removeprefix(first): torch.zeros((), dtype=dtype)
                if size != weight.shape
                else torch.zeros_like(weight, dtype=dtype, requires_grad=False)
                for key, (size, dtype) in known.items()
                if key.startswith(first)
            }
        read_tensors(path, self._tensors(moments))
        for name, weight in self.learned.items():
            if moments[name]:
                self.optimizer.state[weight] = moments[name]

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """The weights that learn, by name, in the optimiser's order."""
        return {name: each for name, each in self.network.named_parameters() if each.requires_grad}

    def _moments(self) -> dict[str, dict[str, Tensor]]:
        """What the optimiser keeps of each weight; nothing before the first step."""
        state = self.optimizer.state
        return {name: state[each] for name, each in self.learned.items() if each in state}

    def _tensors(self, moments: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """All tensors of the state by the names that they have in a sharded checkpoint."""
        found = {f"network.{name}": each for name, each in self.network.state_dict().items()}
        found |= {f"average.{name}": each for name, each in self.average.items()}
        for name, parts in moments.items():
            found |= {f"moments.{name}.{part}": each for part, each in parts.items()}
        return found

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the averaged weights towards the current ones, faster in the first steps."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        current = dict(self.network.named_parameters())
        for name, value in self.average.items():
            own = local(value)
            own.lerp_(local(current[name].detach()).to(own.dtype), 1 - decay)

    @torch.no_grad()
    def hand_on(self) -> None:
        """Leave in the network what the stage hands on: the averaged weights if there are any."""
        current = dict(self.network.named_parameters())
        for name, value in self.average.items():
            local(current[name]).copy_(local(value))
        self.network.eval()
        self.together.make_whole()
