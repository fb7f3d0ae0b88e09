"""Workers that keep a share of the network each: the same training, and checkpoints for all."""

import json
import os
import pickle
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from datasets.errors import UserError
from models.files.errors import ModelFileError
from tasks.recipes.config import StageConfig
from tasks.train.kept import checkpoint_step, load_trained_weights, newest, trained_weights
from tasks.train.loop import train
from tasks.train.objective import Objective, Paused, Rank, StageRun
from tasks.train.shards import local
from tasks.train.update import Updates, prepare
from tests.support.pulled_weight import Lines
from tests.support.workers import DEADLINE_S, run_workers, start_workers

CPU = Rank(torch.device("cpu"))
ALONE: dict[str, Any] = {"batch_size": 8, "parallel": "fsdp"}
PAIR: dict[str, Any] = {"batch_size": 4, "parallel": "fsdp"}


class ResnetBlock(nn.Module):
    """Of a kind that is sharded on its own; its sizes are odd, and some of it does not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm, self.up = nn.Linear(9, 7), nn.BatchNorm1d(7), nn.Linear(7, 9)
        self.up.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        # Statistics are gathered and not used, since they differ with the rows that come together.
        self.norm(self.down(x).detach())
        return x + self.up(torch.tanh(self.down(x)))


class Halves(Objective):
    """Random regression on eight rows, of which each share of two has four."""

    score = "heldout"

    def __init__(self, rows: int) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Linear(6, 9), ResnetBlock(), ResnetBlock(), nn.Conv2d(9, 2, 2)
        )
        # As the U-Net's weights lie.
        last: Any = self.network[3]
        last.to(memory_format=torch.channels_last)
        self.rows, self.measure_every = rows, 2

    def batch(self, step: int, share: int = 0) -> Tensor:
        return self._rows(step)[share * self.rows :][: self.rows]

    def _rows(self, step: int) -> Tensor:
        rng = np.random.default_rng(step)
        return torch.from_numpy(rng.standard_normal((8, 6)).astype(np.float32))

    def _answer(self, batch: Tensor) -> Tensor:
        found = self.network[:3](batch)  # type: ignore[index]
        squares = found[:, :, None, None].expand(-1, -1, 2, 2)
        return self.network[3](squares).sum((1, 2, 3))  # type: ignore[index]

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        error = (self._answer(batch) - batch.sum(1)).square().mean()
        return error, {"doubled": 2 * error}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        self.network.eval()
        batch = self._rows(1000)
        assert all(type(each) is nn.Parameter for each in self.network.parameters())
        return {"heldout": float((self._answer(batch) - batch.sum(1)).square().mean())}


def config(**changes: Any) -> StageConfig:
    values: dict[str, Any] = {
        "lr": 1e-2, "steps": 6, "log_every": 1, "checkpoint_every": 2, "keep_last": 2, "ema": 0.9,
    }  # fmt: skip
    return StageConfig(**(values | changes))


def fit(worker: Rank, folder: Path, **changes: Any) -> Halves:
    chosen = config(**changes)
    goal = Halves(chosen.batch_size)
    train(goal, chosen, StageRun("toy", folder, "d", 7, worker, Lines()))
    return goal


def points(folder: Path, name: str) -> dict[int, float]:
    """Step -> value."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {each["step"]: each[name] for each in found if name in each}


def _all(worker: Rank, folder: Path) -> None:
    """Everything that two workers do in these tests."""
    whole = fit(worker, folder / "whole", **PAIR)
    # In every worker, for what the stage does afterwards.
    torch.save(whole.network.state_dict(), folder / f"handed-{worker.rank}.pt")
    fit(worker, folder / "parts", **PAIR, micro_batch=2)
    fit(worker, folder / "half", **PAIR, steps=3)
    if worker.leads:
        shutil.copytree(folder / "half", folder / "half-for-one")
    torch.distributed.barrier()
    fit(worker, folder / "half", **PAIR)
    # What one worker has begun, in one file.
    fit(worker, folder / "one-began", **PAIR)
    _scaled(worker, folder)
    goal = Halves(4)
    state = prepare(goal, config(**PAIR), worker)
    if worker.rank == 1:
        with torch.no_grad():
            local(next(goal.network.parameters())).fill_(float("inf"))
    try:
        state.save(folder / "bad" / "checkpoint.pt", "d", 7)
    except UserError as error:
        (folder / f"refused-{worker.rank}").write_text(str(error))


def _scaled(worker: Rank, folder: Path) -> None:
    """Two steps with a loss scale, the first of which overflows in one worker only."""
    goal = Halves(4)
    state = prepare(goal, config(**PAIR), worker)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    updates = Updates(config(**PAIR), state, worker, "toy")
    batch = goal.batch(0, worker.rank)
    first = updates.step(batch * (float("inf") if worker.rank else 1.0))
    second = updates.step(batch)
    found = [len(first), float(second["grad_norm"]), state.scaler.get_scale(), state.skipped]
    (folder / f"scaled-{worker.rank}").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After all trainings; `one` is that of one worker with twice the batch."""
    made = tmp_path_factory.mktemp("shards")
    fit(CPU, made / "one", **ALONE)
    fit(CPU, made / "one-began", **ALONE, steps=3)
    run_workers(2, _all, made)
    fit(CPU, made / "half-for-one", **ALONE)
    return made


@pytest.mark.parametrize("name", ["whole", "parts", "half", "half-for-one", "one-began"])
def test_two_with_shares_are_one_with_twice_the_batch(folder: Path, name: str) -> None:
    one, two = trained_weights(folder / "one"), trained_weights(folder / name)
    assert one.keys() == two.keys()
    for each in one:
        if ".norm." not in each:
            torch.testing.assert_close(one[each], two[each], rtol=1e-5, atol=1e-6)
    for value in ("loss", "doubled", "grad_norm", "heldout"):
        before, now = points(folder / "one", value), points(folder / name, value)
        # One that ended in between was measured there, too.
        np.testing.assert_allclose(list(before.values()), [now[step] for step in before], rtol=1e-5)


def test_one_worker_can_compute_the_shares_of_two(folder: Path) -> None:
    """Then even statistics are those of two workers: of the first share, as the first one saves."""
    fit(replace(CPU, shares=2), folder / "both", **PAIR)
    both, two = trained_weights(folder / "both"), trained_weights(folder / "whole")
    for name in both:
        torch.testing.assert_close(both[name], two[name], rtol=1e-5, atol=1e-6)
    assert int(two["1.norm.num_batches_tracked"]) == 6
    losses = [list(points(folder / each, "loss").values()) for each in ("both", "whole")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_loss_scale_is_taken_out_and_lowered_by_all(folder: Path) -> None:
    found = [json.loads((folder / f"scaled-{rank}").read_text()) for rank in (0, 1)]
    assert found[0] == found[1]
    nothing, norm, scale, skipped = found[0]
    assert (nothing, scale, skipped) == (0, 512.0, 1)
    assert norm == pytest.approx(points(folder / "one", "grad_norm")[1], rel=1e-5)


def test_every_worker_hands_on_the_whole_averaged_network(folder: Path) -> None:
    stored = trained_weights(folder / "whole")
    for rank in (0, 1):
        handed = torch.load(folder / f"handed-{rank}.pt")
        assert handed.keys() == stored.keys()
        for name in handed:
            assert torch.equal(handed[name], stored[name]), name


def test_the_latest_and_the_best_are_kept_as_folders(folder: Path) -> None:
    def names(name: str) -> set[str]:
        return {each.name for each in (folder / name).iterdir() if each.suffix != ".jsonl"}

    scores = points(folder / "whole", "heldout")
    best = min(scores, key=scores.__getitem__)
    latest = {"checkpoint-00000004.shards", "checkpoint-00000006.shards"}
    assert names("whole") == latest | {f"best-{best:08d}.shards"}
    assert latest <= names("one-began")
    assert "checkpoint.pt" not in names("one-began")
    # One worker goes on in one file, and what was before counts as before.
    one = {"checkpoint.pt", "checkpoint-00000004.pt"}
    assert one <= names("half-for-one")
    assert not any(each.startswith("checkpoint-0") for each in names("half-for-one") - one)


def test_what_is_not_finite_is_refused_by_all(folder: Path) -> None:
    texts = [(folder / f"refused-{rank}").read_text() for rank in (0, 1)]
    assert texts[0].startswith("a part of the state in another worker holds numbers that are not")
    assert texts[1].startswith("network.0.weight holds numbers that are not finite")
    assert not (folder / "bad").exists() or not list((folder / "bad").iterdir())


def _first(worker: Rank, folder: Path, parallel: str, steps: int) -> None:
    """Train until asked to pause, which is after so many steps."""
    _until(replace(worker, shares=2), folder, parallel, steps)


def _until(worker: Rank, folder: Path, parallel: str, steps: int) -> None:
    asked = iter(range(1, 100))
    run = StageRun("toy", folder, "d", 7, worker, Lines(), must_pause=lambda: next(asked) >= steps)
    with pytest.raises(Paused):
        train(Halves(4), config(**PAIR | {"parallel": parallel, "checkpoint_every": 6}), run)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_workers_that_come_and_go_change_nothing(
    folder: Path, tmp_path: Path, parallel: str
) -> None:
    """One worker, then two, then one: paused where no checkpoint was due."""
    _until(replace(CPU, shares=2), tmp_path, parallel, 1)
    run_workers(2, _first, tmp_path, parallel, 2)
    kept = newest(tmp_path)
    assert kept is not None
    assert checkpoint_step(kept) == 3
    fit(replace(CPU, shares=2), tmp_path, **PAIR)
    both, mixed = trained_weights(folder / "whole"), trained_weights(tmp_path)
    for name in both:
        torch.testing.assert_close(both[name], mixed[name], rtol=1e-5, atol=1e-6)
    losses = [list(points(each, "loss").values()) for each in (folder / "whole", tmp_path)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def _killed(worker: Rank, folder: Path) -> None:
    """The second worker dies when it has written its part of the second checkpoint."""
    real, calls = dcp.FileSystemWriter.write_data, list[int]()

    def write_data(self: Any, plan: Any, planner: Any) -> Any:
        calls.append(1)
        if len(calls) < 2:
            return real(self, plan, planner)
        written = real(self, plan, planner)
        if worker.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    dcp.FileSystemWriter.write_data = write_data  # type: ignore[method-assign]
    chosen = config(**PAIR, keep_last=1)
    goal = Halves(4)
    goal.measure_every = 0
    train(goal, chosen, StageRun("toy", folder, "d", 7, worker, Lines()))


def test_a_kill_in_the_middle_of_a_save_leaves_the_one_before(folder: Path, tmp_path: Path) -> None:
    workers = start_workers(2, _killed, tmp_path)
    workers[1].join(DEADLINE_S)
    assert workers[1].exitcode == -signal.SIGKILL
    # It may wait for the dead one.
    workers[0].kill()
    workers[0].join(DEADLINE_S)
    assert list(tmp_path.glob(".checkpoint-00000004.shards.partial/*.distcp"))
    kept = newest(tmp_path)
    assert kept is not None
    assert checkpoint_step(kept) == 2
    fit(CPU, tmp_path, **ALONE)
    one, on = trained_weights(folder / "one"), trained_weights(tmp_path)
    for each in one:
        if ".norm." not in each:
            torch.testing.assert_close(one[each], on[each], rtol=1e-5, atol=1e-6)


def test_damaged_and_hostile_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    path = newest(folder / "whole")
    assert path is not None
    copied = Path(shutil.copytree(path, tmp_path / path.name))
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple:
            return (Path.touch, (marker,))

    (copied / ".metadata").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ModelFileError, match="does not belong into a checkpoint"):
        load_trained_weights(copied)
    assert not marker.exists()
    shutil.copy(path / ".metadata", copied / ".metadata")
    part = max(copied.glob("*.distcp"), key=lambda each: each.stat().st_size)
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_trained_weights(copied)
