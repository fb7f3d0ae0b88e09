"""How the workers of a stage train one network together.

With `ddp` every worker has a whole copy, and gradients are exchanged. With `fsdp` every worker
keeps a share of weights, gradients and moments, and gets the others' while it computes (FSDP2).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tasks.train.objective import Objective


class Loss(nn.Module):
    """The objective's loss as a module, which is what torch's wrappers watch."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.network = objective.network
        self._loss = objective.loss

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(batch)


class Together:
    """One worker, which has the whole network."""

    sharded = False
    """Whether the weights are `DTensor`s: then all workers write a checkpoint together."""
    even = False
    """Whether all workers must compute equally many parts of a step."""

    def __init__(self, objective: Objective) -> None:
        self.module: nn.Module = Loss(objective)

    def holding_back(self) -> AbstractContextManager[None]:
        """Gradients of the block are not exchanged before those of a later one."""
        return nullcontext()

    def agree(self) -> None:
        """Let every worker have the statistics that rank 0's network has gathered; all workers call
        this."""

    @contextmanager
    def whole(self) -> Iterator[None]:
        """During the block the leader's network is whole; all workers call this."""
        yield

    def make_whole(self) -> None:
        """From here on every worker's network is whole; all workers call this."""


class Copies(Together):
    """Each worker has a copy."""

    def __init__(self, objective: Objective) -> None:
        super().__init__(objective)
        # Gradients are exchanged while the backward pass still runs. A stage may leave some
        # weights out of a step. Statistics are those of rank 0, which writes them.
        self.copies = DistributedDataParallel(
            self.module, find_unused_parameters=True, gradient_as_bucket_view=True
        )
        self.module = self.copies

    def holding_back(self) -> AbstractContextManager[None]:
        found: AbstractContextManager[None] = self.copies.no_sync()
        return found
