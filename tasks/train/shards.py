"""A network of which each worker keeps a share (torch's fully_shard, FSDP2).

The shares are put together block by block while a step is computed, and taken apart again. Between
steps weights, gradients, moments and averages are `DTensor`s, of which each worker has the rows
that are its own.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tasks.recipes.config import StageConfig
from tasks.train.compiled import REPEATED
from tasks.train.objective import Objective, Rank
from tasks.train.together import Copies, Together

LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Shards(Together):
    """Each worker has a share of every weight; all must compute at the same time.

    Args:
        objective: its network becomes the sharded one.
        config: the stage's settings.
        worker: this process.
    """

    sharded = True
    even = True

    def __init__(self, objective: Objective, config: StageConfig, worker: Rank) -> None:
        super().__init__(objective)
        self.network, self.worker = objective.network, worker
        self._skeleton = _without_weights(self.network)
        _make_contiguous(self.network)
        mesh = init_device_mesh(worker.device.type, (worker.world_size,))
        options: dict[str, Any] = {"mesh": mesh, "mp_policy": mixed_precision(config, worker)}
        blocks = [part for part in self.network.modules() if type(part).__name__ in REPEATED]
        # Inner ones first.
        for block in reversed(blocks):
            fully_shard(block, **options)
        fully_shard(self.module, **options)
        self.module.register_forward_pre_hook(lambda *_: self.agree(), prepend=True)

    def agree(self) -> None:
        for buffer in self.network.buffers():
            torch.distributed.broadcast(buffer, 0)

    @contextmanager
    def whole(self) -> Iterator[None]:
        state = self._gather(self.worker.leads)
        if not self.worker.leads:
            yield
            return
        kind, content = type(self.network), vars(self.network)
        self._become_whole(state)
        try:
            yield
        finally:
            _become(self.network, kind, content)
            _empty(self._skeleton)

    def make_whole(self) -> None:
        self._become_whole(self._gather(True))

    def _become_whole(self, state: dict[str, Tensor]) -> None:
        self._skeleton.load_state_dict(state, assign=True)
        self._skeleton.train(self.network.training)
        # The objective and its parts know this very object.
        _become(self.network, type(self._skeleton), vars(self._skeleton))

    @torch.no_grad()
    def _gather(self, keep: bool) -> dict[str, Tensor]:
        """All weights and statistics, which every worker must ask for and not all keep."""
        self.agree()
        found = {}
        for name, value in self.network.state_dict().items():
            whole = value.full_tensor() if isinstance(value, DTensor) else value.clone()
            if keep:
                found[name] = whole
        return found


def together(objective: Objective, config: StageConfig, worker: Rank) -> Together:
    """What the workers of a stage have of its network.

    With several of them, all must call this, before the optimiser is made.
    """
    if worker.world_size == 1:
        return Together(objective)
    if config.parallel == "fsdp":
        return Shards(objective, config, worker)
    return Copies(objective)


def mixed_precision(config: StageConfig, worker: Rank) -> MixedPrecisionPolicy:
    """Weights travel in the stage's precision; gradients are added up, and kept, in fp32.

    What operations compute in is decided by autocast, as without shards.
    """
    lower = LOWER.get(config.precision) if worker.device.type == "cuda" else None
    return MixedPrecisionPolicy(
        param_dtype=lower, reduce_dtype=torch.float32 if lower else None, cast_forward_inputs=False
    )


def local(tensor: Tensor) -> Tensor:
    """This worker's part of a tensor, which is all of it without shards."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(whole: Tensor, goal: Tensor) -> Tensor:
    """A whole tensor, shared out as another one is; all workers call this.

    Args:
        whole: on any device.
        goal: whose shares, device and type it gets.
    """
    whole = whole.to(goal.device, goal.dtype)
    if isinstance(goal, DTensor):
        return distribute_tensor(whole, goal.device_mesh, goal.placements)
    return whole


def _without_weights(network: nn.Module) -> nn.Module:
    """A copy whose weights have shapes and take no memory."""
    memo: dict[int, Any] = {id(each): _shape(each) for each in network.parameters()}
    return copy.deepcopy(network, memo)


def _shape(weight: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)


def _empty(network: nn.Module) -> None:
    for part in network.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = _shape(weight)


def _make_contiguous(network: nn.Module) -> None:
    """fully_shard takes no channels-last weights; activations keep that layout without them."""
    for weight in network.parameters():
        weight.data = weight.data.contiguous()


def _become(network: nn.Module, kind: type[nn.Module], content: dict[str, Any]) -> None:
    """Let an object be another network, for all who know it."""
    network.__class__ = kind
    object.__setattr__(network, "__dict__", content)
