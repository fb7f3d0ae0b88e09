"""One step of the optimiser: gradients over parts of a batch and over workers, and the update.

A step whose loss or gradient is not finite changes nothing: neither weights nor what networks
gather meanwhile. It is counted, and too many in a row end the training with a diagnosis.
"""

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from datasets.errors import UserError
from tasks.recipes.config import StageConfig
from tasks.train.objective import Objective, Rank, parts_of
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
    learned = {name: each for name, each in network.named_parameters() if each.requires_grad}
    if not learned:
        raise ValueError(f"{type(objective).__name__} has no weights to train")
    optimizer = torch.optim.AdamW(learned.values(), lr=config.lr, weight_decay=config.weight_decay)
    uses_scaler = config.precision == "fp16" and worker.device.type == "cuda"
    scaler = torch.amp.GradScaler(worker.device.type, enabled=uses_scaler)
    average = {name: each.detach().clone().float() for name, each in learned.items() if config.ema}
    return State(network, optimizer, scaler, average)


class _Loss(nn.Module):
    """The objective's loss as a module, which is what DistributedDataParallel watches."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.network = objective.network
        self._loss = objective.loss

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(batch)


class Updates:
    """Does the steps of one stage.

    Args:
        stage: its name, for messages.
        state: its network and optimiser, see `prepare`.
    """

    def __init__(
        self, objective: Objective, config: StageConfig, state: State, worker: Rank, stage: str
    ) -> None:
        self.config, self.state, self.worker, self.stage = config, state, worker, stage
        self.learned = [each for group in state.optimizer.param_groups for each in group["params"]]
        self.module: nn.Module = _Loss(objective)
        if worker.world_size > 1:
            # Gradients are exchanged while the backward pass still runs. A stage may leave some
            # weights out of a step. Statistics are those of rank 0, which writes them.
            self.module = DistributedDataParallel(
                self.module,
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
            )
        self.in_a_row = 0
        """Latest steps without an update."""

    def step(self, batch: Any) -> dict[str, Tensor]:
        """Do one step.

        Returns:
            The loss, its parts and the gradient's norm before it was clipped; nothing if they were
            not finite and nothing was changed.

        Raises:
            UserError: too many steps in a row were not finite.
        """
        state = self.state
        rate = learning_rate(self.config, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        statistics = _statistics(state.network)
        values = self._gradients(batch)
        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.clip_grad_norm_(self.learned, self.config.clip)
        values["grad_norm"] = norm.detach()
        if self._all_finite(values["loss"], norm):
            state.scaler.step(state.optimizer)
            state.scaler.update()
            self.in_a_row = 0
            return values
        with torch.no_grad():
            for buffer, kept in statistics:
                buffer.copy_(kept)
        if state.scaler.is_enabled():
            state.scaler.update(state.scaler.get_scale() * state.scaler.get_backoff_factor())
        state.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= self.config.patience + SCALER_STEPS * state.scaler.is_enabled():
            raise UserError(self._diagnosis(values))
        return {}

    def _gradients(self, batch: Any) -> dict[str, Tensor]:
        """Leave the gradient over all samples of all workers; returns the loss and its parts."""
        lower = self.worker.device.type == "cuda" and self.config.precision != "fp32"
        self.state.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        parts = list(parts_of(batch, self.config.micro_batch))
        for number, (part, share) in enumerate(parts, 1):
            waits = number < len(parts) and isinstance(self.module, DistributedDataParallel)
            with self.module.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with torch.autocast(
                    self.worker.device.type, DTYPES[self.config.precision], enabled=lower
                ):
                    loss, values = self.module(part)
                self.state.scaler.scale(loss * share).backward()
            for name, value in {"loss": loss, **values}.items():
                scaled = value.detach().float() * share
                sums[name] = sums[name] + scaled if name in sums else scaled
        return sums

    def _all_finite(self, *values: Tensor) -> bool:
        """Whether they are finite in every worker: all must leave out the same steps."""
        finite = torch.stack([torch.isfinite(each.float()).all() for each in values]).all()
        if self.worker.world_size > 1:
            flag = finite.to(torch.int32)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
            return bool(flag)
        return bool(finite)

    def _diagnosis(self, values: dict[str, Tensor]) -> str:
        config, name = self.config, self.stage
        bad = [part for part, value in values.items() if not bool(torch.isfinite(value).all())]
        where = next(
            (
                f", first in {each}"
                for each, weight in self.state.network.named_parameters()
                if weight.grad is not None and not bool(torch.isfinite(weight.grad).all())
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
