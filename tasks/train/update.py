"""One step of the optimiser: gradients over parts of a step and over workers, and the update.

A step whose loss or gradient is not finite changes nothing: neither weights nor what networks
gather meanwhile. It is counted, and too many in a row end the training with a diagnosis.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from datasets.errors import UserError
from tasks.recipes.config import StageConfig
from tasks.train.objective import Objective, Rank, parts_of
from tasks.train.shards import local, together
from tasks.train.state import State

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SCALER_STEPS = 16
"""Steps that the loss scale of fp16 may need to come down from 65536 to 1."""


def learning_rate(config: StageConfig, step: int) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then as scheduled."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def prepare(objective: Objective, config: StageConfig, worker: Rank) -> State:
    """The state before the first step.

    Raises:
        ValueError: the network has no weights to train.
    """
    network = objective.network
    if not any(each.requires_grad for each in network.parameters()):
        raise ValueError(f"{type(objective).__name__} has no weights to train")
    shared = together(objective, config, worker)
    learned = {name: each for name, each in network.named_parameters() if each.requires_grad}
    groups = _by_rate(learned, objective.slower)
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    uses_scaler = config.precision == "fp16" and worker.device.type == "cuda"
    scaler = torch.amp.GradScaler(worker.device.type, enabled=uses_scaler)
    average = {name: each.detach().clone().float() for name, each in learned.items() if config.ema}
    return State(network, optimizer, scaler, average, shared, worker)


def _by_rate(
    learned: Mapping[str, nn.Parameter], slower: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Groups of weights for the optimiser, in the weights' order.

    Args:
        learned: the weights by name; those that learn slower are the last.
        slower: beginnings of their names, and their share of the learning rate.
    """
    marks = tuple(slower)
    groups: list[dict[str, Any]] = [
        {"params": [each for name, each in learned.items() if not name.startswith(marks)]}
    ]
    for mark, share in slower.items():
        chosen = [each for name, each in learned.items() if name.startswith(mark)]
        groups.append({"params": chosen, "share": share})
    return groups


class Updates:
    """Does the steps of one stage.

    Args:
        stage: its name, for messages.
        state: its network and optimiser, see `prepare`.
        draw: called before a share is computed, with its number: sets the random numbers.
    """

    def __init__(
        self,
        config: StageConfig,
        state: State,
        worker: Rank,
        stage: str,
        draw: Callable[[int], None] = lambda share: None,
    ) -> None:
        self.config, self.state, self.worker, self.stage = config, state, worker, stage
        self.draw = draw
        self.learned = [each for group in state.optimizer.param_groups for each in group["params"]]
        self.in_a_row = 0
        """Latest steps without an update."""

    def step(self, *batches: Any) -> dict[str, Tensor]:
        """Do one step.

        Args:
            batches: one for each of this worker's shares.

        Returns:
            The loss, its parts, all of them means over all shares of all workers, and the
            gradient's norm before it was clipped; nothing if they were not finite and nothing was
            changed.

        Raises:
            UserError: too many steps in a row were not finite.
        """
        state = self.state
        rate = learning_rate(self.config, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        statistics = _statistics(state.network)
        values = self._gradients(batches)
        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.clip_grad_norm_(self.learned, self.config.clip).detach()
        values["grad_norm"] = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # Both are the same in every worker, so all leave out the same steps.
        if all(bool(torch.isfinite(values[each])) for each in ("loss", "grad_norm")):
            state.scaler.step(state.optimizer)
            state.scaler.update()
            self.in_a_row = 0
            return values
        _put_back(statistics)
        if state.scaler.is_enabled():
            state.scaler.update(state.scaler.get_scale() * state.scaler.get_backoff_factor())
        state.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= self.config.patience + SCALER_STEPS * state.scaler.is_enabled():
            raise UserError(self._diagnosis(values))
        return {}

    def _gradients(self, batches: Sequence[Any]) -> dict[str, Tensor]:
        """Leave the gradient over all samples of all workers; returns the loss and its parts."""
        lower = self.worker.device.type == "cuda" and self.config.precision != "fp32"
        self.state.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        shared, first = self.state.together, list[tuple[Tensor, Tensor]]()
        parts = list(self._parts(batches))
        for number, (part, weight, share) in enumerate(parts, 1):
            if share is not None:
                # What a network gathers is of the first share, as if others were elsewhere.
                if number > 1 and not first:
                    first = _statistics(self.state.network)
                self.draw(share)
            with shared.holding_back() if number < len(parts) else nullcontext():
                with torch.autocast(
                    self.worker.device.type, DTYPES[self.config.precision], enabled=lower
                ):
                    loss, values = shared.module(part)
                self.state.scaler.scale(loss * weight).backward()
            for name, value in {"loss": loss, **values}.items():
                scaled = value.detach().float() * weight
                sums[name] = sums[name] + scaled if name in sums else scaled
        _put_back(first)
        return self._over_workers(sums)

    def _parts(self, batches: Sequence[Any]) -> Iterator[tuple[Any, float, int | None]]:
        """What is computed at once, its weight, and the share that begins with it.

        Gradients are averaged over workers, of which some may have more shares than others.
        """
        worker = self.worker
        each = worker.world_size / worker.all_shares
        for share, batch in zip(worker.own_shares, batches, strict=True):
            for number, (part, weight) in enumerate(parts_of(batch, self.config.micro_batch)):
                yield part, weight * each, None if number else share
        most = -(-worker.all_shares // worker.world_size)
        if self.state.together.even and len(batches) < most:
            # Something that does not count, so that nobody waits for this worker.
            for part, _ in parts_of(batches[-1], self.config.micro_batch):
                yield part, 0.0, None

    def _over_workers(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over all workers."""
        if self.worker.world_size == 1:
            return values
        means = torch.stack(list(values.values()))
        torch.distributed.all_reduce(means)
        return dict(zip(values, means / self.worker.world_size, strict=True))

    def _diagnosis(self, values: dict[str, Tensor]) -> str:
        config, name = self.config, self.stage
        bad = [part for part, value in values.items() if not bool(torch.isfinite(value).all())]
        where = next(
            (
                f", first in {each}"
                for each, weight in self.state.network.named_parameters()
                if weight.grad is not None and not bool(torch.isfinite(local(weight.grad)).all())
            ),
            "",
        )
        lower = f"lower {name}.lr (now {config.lr}), raise {name}.warmup (now {config.warmup})"
        if self.worker.device.type == "cuda" and config.precision == "fp16":
            lower += f", or set {name}.precision=bf16"
        what = ", ".join("the gradient" if each == "grad_norm" else each for each in bad)
        return (
            f"{name} stopped at step {self.state.step + 1}: in {self.in_a_row} steps in a row "
            f"something was not finite ({what}{where}): {lower}. "
            "These steps changed nothing, and the last checkpoint is finite"
        )


def _statistics(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """What a network gathers while it computes, such as means of its inputs, with a copy each."""
    return [(buffer, buffer.detach().clone()) for buffer in network.buffers()]


@torch.no_grad()
def _put_back(statistics: Sequence[tuple[Tensor, Tensor]]) -> None:
    for buffer, kept in statistics:
        buffer.copy_(kept)
