"""Workers that train together, as processes of their own."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tasks.train.loop import Rank, share_gradients


def _in_process(rank: int, port: int, results: Any) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    first, unused = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4))
    first.grad = torch.full((2, 3), float(rank))
    if rank == 1:
        unused.grad = torch.full((4,), 6.0)
    share_gradients([first, unused], Rank(torch.device("cpu"), rank, 2))
    assert first.grad is not None
    assert unused.grad is not None
    results.put((rank, first.grad.tolist(), unused.grad.tolist()))
    torch.distributed.destroy_process_group()


def test_workers_average_their_gradients(free_port: Callable[[], int]) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    port = free_port()
    workers = [context.Process(target=_in_process, args=(rank, port, results)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    found = sorted(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(30)
    for _, first, unused in found:
        assert first == [[0.5] * 3] * 2
        assert unused == [3.0] * 4


@pytest.fixture
def free_port() -> Callable[[], int]:
    import socket

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
