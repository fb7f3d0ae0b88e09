"""Processes that train together, each with its own rank, by torch's gloo."""

import multiprocessing
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from tasks.train.objective import Rank

DEADLINE_S = 280


def start_workers(count: int, work: Callable[..., None], *arguments: Any) -> list[BaseProcess]:
    """Start `work(rank, *arguments)` in so many processes.

    Args:
        work: a function of a module; it gets a `Rank` first.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    context = multiprocessing.get_context("spawn")
    workers: list[BaseProcess] = [
        context.Process(target=_work, args=(rank, count, port, work, arguments))
        for rank in range(count)
    ]
    for worker in workers:
        worker.start()
    return workers


def run_workers(count: int, work: Callable[..., None], *arguments: Any) -> None:
    """The same, until all have ended well."""
    workers = start_workers(count, work, *arguments)
    for worker in workers:
        worker.join(DEADLINE_S)
    assert [worker.exitcode for worker in workers] == [0] * count


def _work(
    rank: int, count: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=count
    )
    work(Rank(torch.device("cpu"), rank, count), *arguments)
    torch.distributed.destroy_process_group()
