"""The loop: resume is exact, the schedule is as configured, workers share gradients."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.errors import UserError
from tasks.checkpoints import load_state, save_state, trained_weights
from tasks.curves import METRICS
from tasks.recipes import StageConfig
from tasks.train_loop import Objective, Worker, learning_rate, share_gradients, train

CPU = Worker(torch.device("cpu"))


class Lines:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.points: list[tuple[int, dict[str, float]]] = []

    def metrics(self, stage: str, values: dict[str, float], step: int) -> None:
        self.points.append((step, values))

    def progress(self, line: str) -> None:
        self.lines.append(line)

    def finished(self, stage: str) -> None:
        self.lines.append(f"{stage} finished")


class Killed(BaseException):
    """Stands for a signal."""


class Toy(Objective):
    """A small network with dropout and batch norm on random regression."""

    def __init__(self, kill_at: int | None = None, poison_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 1)
        )
        self.kill_at, self.poison_at = kill_at, poison_at
        self.steps = 0

    def batch(self, step: int) -> Any:
        if step == self.kill_at:
            raise Killed
        rng = np.random.default_rng(step)
        x = torch.from_numpy(rng.standard_normal((8, 6)).astype(np.float32))
        return x * (float("nan") if step == self.poison_at else 1.0)

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        error = (self.network(batch)[:, 0] - batch.sum(1)).square().mean()
        noise = torch.randn(())
        return error, {"noise": noise}


def config(**changes: Any) -> StageConfig:
    values: dict[str, Any] = {
        "steps": 12,
        "batch_size": 8,
        "lr": 1e-2,
        "warmup": 3,
        "schedule": "cosine",
        "ema": 0.9,
        "checkpoint_every": 1,
        "log_every": 1,
    }
    return StageConfig(**(values | changes))


def run(toy: Objective, folder: Path, chosen: StageConfig, digest: str = "d") -> Lines:
    reporter = Lines()
    train(toy, chosen, folder, stage="toy", digest=digest, seed=7, worker=CPU, reporter=reporter)
    return reporter


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


@pytest.mark.parametrize("killed_at", [1, 5, 11])
def test_a_killed_and_resumed_run_is_bit_identical(tmp_path: Path, killed_at: int) -> None:
    run(Toy(), tmp_path / "whole", config())
    with pytest.raises(Killed):
        run(Toy(kill_at=killed_at), tmp_path / "killed", config())
    assert not curve(tmp_path / "killed")[killed_at:]
    reporter = run(Toy(), tmp_path / "killed", config())
    assert reporter.lines[0] == f"toy: going on from step {killed_at}"
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    whole = load_state(tmp_path / "whole" / "checkpoint.pt")
    killed = load_state(tmp_path / "killed" / "checkpoint.pt")
    for part in ("network", "average"):
        assert whole[part].keys() == killed[part].keys()
        for name in whole[part]:
            assert torch.equal(whole[part][name], killed[part][name]), name


def test_points_after_the_checkpoint_are_made_again(tmp_path: Path) -> None:
    chosen = config(checkpoint_every=5)
    run(Toy(), tmp_path / "whole", chosen)
    with pytest.raises(Killed):
        run(Toy(kill_at=8), tmp_path / "killed", chosen)
    assert len(curve(tmp_path / "killed")) == 8
    reporter = run(Toy(), tmp_path / "killed", chosen)
    assert reporter.lines[0] == "toy: going on from step 5"
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    run(Toy(), tmp_path, config(), digest="one")
    reporter = run(Toy(), tmp_path, config(), digest="two")
    assert not any("going on" in line for line in reporter.lines)
    assert [point["step"] for point in curve(tmp_path)] == list(range(1, 13))


def test_logged_values_are_means_over_the_interval(tmp_path: Path) -> None:
    run(Toy(), tmp_path / "fine", config())
    run(Toy(), tmp_path / "coarse", config(log_every=4))
    fine = [point["loss"] for point in curve(tmp_path / "fine")]
    coarse = curve(tmp_path / "coarse")
    # A checkpoint closes an interval too; here one is written after each step.
    assert [point["loss"] for point in coarse] == fine
    run(Toy(), tmp_path / "four", config(log_every=4, checkpoint_every=12))
    four = curve(tmp_path / "four")
    assert [point["step"] for point in four] == [4, 8, 12]
    np.testing.assert_allclose(
        [point["loss"] for point in four], np.reshape(fine, (3, 4)).mean(1), rtol=1e-6
    )


def test_averaged_weights_are_handed_on(tmp_path: Path) -> None:
    toy = Toy()
    run(toy, tmp_path, config())
    handed = trained_weights(tmp_path / "checkpoint.pt")
    raw = load_state(tmp_path / "checkpoint.pt")["network"]
    for name, value in toy.network.state_dict().items():
        assert torch.equal(value, handed[name]), name
    assert not torch.equal(raw["0.weight"], handed["0.weight"])
    assert not toy.network.training


def test_a_stage_of_no_steps_still_hands_on(tmp_path: Path) -> None:
    toy = Toy()
    run(toy, tmp_path, config(steps=0))
    handed = trained_weights(tmp_path / "checkpoint.pt")
    assert torch.equal(handed["0.weight"], toy.network[0].weight)  # type: ignore[index]


def test_a_loss_that_is_no_number_ends_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss of toy is nan at step 4: lower toy\.lr"):
        run(Toy(poison_at=3), tmp_path, config())
    assert load_state(tmp_path / "checkpoint.pt")["step"] == 3


def test_the_learning_rate_rises_and_falls() -> None:
    chosen = config(lr=1.0, warmup=4, steps=14)
    rates = [learning_rate(chosen, step) for step in range(15)]
    np.testing.assert_allclose(rates[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    np.testing.assert_allclose(rates[9], 0.5)
    np.testing.assert_allclose(rates[14], 0.0, atol=1e-12)
    constant = config(lr=1.0, schedule="constant", warmup=0)
    assert {learning_rate(constant, step) for step in range(12)} == {1.0}


def test_progress_says_how_far_and_how_long(tmp_path: Path) -> None:
    reporter = run(Toy(), tmp_path, config())
    assert reporter.lines[-1].startswith("toy  12/12 steps  loss ")
    assert reporter.lines[-1].endswith("0 min 00 s left")
    assert [step for step, _ in reporter.points] == list(range(1, 13))


def test_a_network_without_anything_to_train_is_refused(tmp_path: Path) -> None:
    toy = Toy()
    toy.network.requires_grad_(False)
    with pytest.raises(ValueError, match="no weight that may be trained"):
        run(toy, tmp_path, config())


def _in_process(rank: int, port: int, results: Any) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    first, unused = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4))
    first.grad = torch.full((2, 3), float(rank))
    if rank == 1:
        unused.grad = torch.full((4,), 6.0)
    share_gradients([first, unused], Worker(torch.device("cpu"), rank, 2))
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


def test_a_single_worker_keeps_its_gradients() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    share_gradients([weight], CPU)
    assert weight.grad.tolist() == [1, 2]


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    from models.files import ModelFileError

    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(ModelFileError, match="delete it"):
        run(Toy(), tmp_path, config())


def test_a_state_of_another_seed_is_not_used(tmp_path: Path) -> None:
    run(Toy(), tmp_path, config())
    state = load_state(tmp_path / "checkpoint.pt")
    save_state(tmp_path / "checkpoint.pt", state | {"seed": 8})
    assert not any("going on" in line for line in run(Toy(), tmp_path, config()).lines)
