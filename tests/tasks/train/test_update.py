"""Steps of workers that train together, as processes of their own."""

import json
import multiprocessing
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.recipes.config import StageConfig
from tasks.train.kept import load_trained_weights
from tasks.train.loop import train
from tasks.train.objective import Objective, Rank, StageRun
from tests.support.pulled_weight import Lines

CONFIG: dict[str, Any] = {"lr": 1e-2, "steps": 6, "log_every": 1, "checkpoint_every": 3}


class Shared(Objective):
    """Random regression of which each worker has its own rows; one weight is only used in some."""

    def __init__(self, rank: int, rows: int) -> None:
        torch.manual_seed(0)
        self.body, self.head, self.rare = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(6, 1)
        self.network = nn.ModuleList([self.body, self.head, self.rare])
        self.rank, self.rows = rank, rows

    def batch(self, step: int, share: int = 0) -> Tensor:
        rng = np.random.default_rng(step)
        rows = torch.from_numpy(rng.standard_normal((8, 6)).astype(np.float32))
        return rows[self.rank * self.rows :][: self.rows]

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        found = self.head(torch.tanh(self.body(batch)))[:, 0]
        if self.rank == 0:
            # Only the first rows pass here, so the second worker has no gradient for it.
            rare = self.rare(batch[:4])[:, 0]
            found = torch.cat([found[:4] + rare, found[4:]])
        return (found - batch.sum(1)).square().mean(), {}


def _work(rank: int, port: int, folder: str, micro_batch: int) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    config = StageConfig(batch_size=4, micro_batch=micro_batch, **CONFIG)
    run = StageRun("toy", Path(folder), "d", 7, Rank(torch.device("cpu"), rank, 2), Lines())
    train(Shared(rank, 4), config, run)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("micro_batch", [0, 3])
def test_two_workers_are_one_with_twice_the_batch(tmp_path: Path, micro_batch: int) -> None:
    run = StageRun("toy", tmp_path / "one", "d", 7, Rank(torch.device("cpu")), Lines())
    train(Shared(0, 8), StageConfig(batch_size=8, **CONFIG), run)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    arguments = (port, str(tmp_path / "two"), micro_batch)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(rank, *arguments)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    one = load_trained_weights(tmp_path / "one" / "checkpoint.pt")
    two = load_trained_weights(tmp_path / "two" / "checkpoint.pt")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-6)
    norms: list[Any] = [
        [json.loads(line)["grad_norm"] for line in (tmp_path / each / "metrics.jsonl").open()]
        for each in ("one", "two")
    ]
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-5)
