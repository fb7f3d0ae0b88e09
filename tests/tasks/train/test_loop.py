"""The loop: resume is exact, the schedule is as configured, workers share gradients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.errors import UserError
from tasks.recipes.config import StageConfig
from tasks.train.checkpoints import load_state, save_state
from tasks.train.curves import METRICS
from tasks.train.kept import load_trained_weights
from tasks.train.loop import step_seed, train
from tasks.train.objective import Objective, Rank, StageRun
from tasks.train.update import Updates, learning_rate, prepare
from tests.support.pulled_weight import Lines, Pulled, adamw

CPU = Rank(torch.device("cpu"))


class Killed(BaseException):
    """Replaces a signal."""


class Toy(Objective):
    """A small network with dropout and batch norm on random regression."""

    def __init__(self, kill_at: int | None = None, poison_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 1)
        )
        self.kill_at, self.poison_at = kill_at, poison_at
        self.steps = 0

    def batch(self, step: int, share: int = 0) -> Any:
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


def run(
    goal: Objective,
    folder: Path,
    chosen: StageConfig,
    digest: str = "d",
    worker: Rank = CPU,
    goes_on_from: tuple[str, ...] = (),
) -> Lines:
    told = Lines()
    train(goal, chosen, StageRun("toy", folder, digest, 7, worker, told, goes_on_from))
    return told


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


def test_a_checkpoint_of_another_training_is_never_overwritten(tmp_path: Path) -> None:
    run(Toy(), tmp_path, config(), digest="one")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(UserError, match="another training, which would be lost"):
        run(Toy(), tmp_path, config(), digest="two")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert len(curve(tmp_path)) == 12


def test_more_steps_give_what_they_would_have_given_from_the_start(tmp_path: Path) -> None:
    steady = {"schedule": "constant", "checkpoint_every": 4}
    run(Toy(), tmp_path / "whole", config(steps=12, **steady), digest="long")
    run(Toy(), tmp_path / "raised", config(steps=7, **steady), digest="short")
    longer = config(steps=12, **steady)
    reporter = run(Toy(), tmp_path / "raised", longer, digest="long", goes_on_from=("short",))
    assert reporter.lines[0] == "toy: going on from step 7"
    assert curve(tmp_path / "raised") == curve(tmp_path / "whole")
    whole = load_trained_weights(tmp_path / "whole" / "checkpoint.pt")
    raised = load_trained_weights(tmp_path / "raised" / "checkpoint.pt")
    assert all(torch.equal(whole[name], raised[name]) for name in whole)
    with pytest.raises(UserError, match=r"12 steps, more than toy\.steps = 7"):
        run(Toy(), tmp_path / "raised", config(steps=7, **steady), digest="long")


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
    handed = load_trained_weights(tmp_path / "checkpoint.pt")
    raw = load_state(tmp_path / "checkpoint.pt")["network"]
    for name, value in toy.network.state_dict().items():
        assert torch.equal(value, handed[name]), name
    assert not torch.equal(raw["0.weight"], handed["0.weight"])
    assert not toy.network.training


def test_a_stage_of_no_steps_still_hands_on(tmp_path: Path) -> None:
    toy = Toy()
    run(toy, tmp_path, config(steps=0))
    handed = load_trained_weights(tmp_path / "checkpoint.pt")
    assert torch.equal(handed["0.weight"], toy.network[0].weight)  # type: ignore[index]


def test_many_steps_in_a_row_that_are_not_finite_end_in_a_diagnosis(tmp_path: Path) -> None:
    class Broken(Toy):
        def batch(self, step: int, share: int = 0) -> Any:
            return super().batch(step) * (float("nan") if step >= 3 else 1.0)

    expected = (
        r"toy stopped at step 7: in 4 steps in a row something was not finite "
        r"\(loss, the gradient, first in 0\.weight\): lower toy\.lr \(now 0\.01\)"
    )
    with pytest.raises(UserError, match=expected):
        run(Broken(), tmp_path, config(patience=4))
    state = load_state(tmp_path / "checkpoint.pt")
    assert (state["step"], state["skipped"]) == (6, 3)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_changes_nothing_and_is_counted(tmp_path: Path, what: str) -> None:
    """At 20 random steps: the run ends, and every number of every checkpoint is finite."""
    steps = 60
    bad = set(np.random.default_rng(5).choice(steps, 20, replace=False).tolist())

    class Spoilt(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.before: dict[str, Tensor] = {}
            self.step = 0

        def batch(self, step: int, share: int = 0) -> Any:
            return step, super().batch(step)

        def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
            step, given = batch
            now = {name: each.clone() for name, each in self.network.state_dict().items()}
            if step - 1 in bad:
                assert all(torch.equal(self.before[name], now[name]) for name in now)
            self.before = now
            if step in bad and what == "loss":
                given = given * float("nan")
            error, parts = super().loss(given)
            if step in bad and what == "gradient":
                # sqrt has an infinite slope at 0, under a finite value.
                weight = self.network[0].weight  # type: ignore[index]
                error = error + (weight - weight.detach()).abs().sum().sqrt()
            return error, parts

    run(Spoilt(), tmp_path, config(steps=steps, keep_last=100, patience=20))
    files = [tmp_path / "checkpoint.pt", *tmp_path.glob("checkpoint-*.pt")]
    assert len(files) == steps
    for path in files:
        state = load_state(path)
        for part in ("network", "average"):
            assert all(torch.isfinite(each).all() for each in state[part].values()), path
    assert load_state(files[0])["skipped"] == 20
    points = curve(tmp_path)
    assert [point["step"] for point in points if "loss" not in point] == sorted(
        step + 1 for step in bad
    )
    assert points[-1]["skipped"] == 20


def test_a_batch_in_parts_is_the_same_step(tmp_path: Path) -> None:
    class Normed(Toy):
        """Without batch norm and dropout, whose values depend on which samples come together."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 1))

    run(Normed(), tmp_path / "whole", config())
    run(Normed(), tmp_path / "parts", config(micro_batch=3))
    for one, other in zip(curve(tmp_path / "whole"), curve(tmp_path / "parts"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
    whole = load_trained_weights(tmp_path / "whole" / "checkpoint.pt")
    parts = load_trained_weights(tmp_path / "parts" / "checkpoint.pt")
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-5, atol=1e-6)


def test_the_latest_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    class Scored(Pulled):
        score = "heldout"
        scores = iter([0.9, 0.4, 0.6, 0.5, 0.7])

        def measure(self) -> dict[str, float]:
            return {"heldout": next(self.scores)}

    chosen = config(**(PLAIN | {"steps": 10, "checkpoint_every": 2, "keep_last": 3}))
    run(Scored([0.1] * 10, measure_every=2), tmp_path, chosen)
    kept = {path.name: load_state(path)["step"] for path in tmp_path.glob("*.pt")}
    assert kept == {
        "checkpoint.pt": 10,
        "checkpoint-00000008.pt": 8,
        "checkpoint-00000006.pt": 6,
        "best.pt": 4,
    }
    assert load_state(tmp_path / "checkpoint.pt")["best"] == 0.4


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
    assert [point["step"] for point in curve(tmp_path)] == list(range(1, 13))


def test_a_network_without_anything_to_train_is_refused(tmp_path: Path) -> None:
    toy = Toy()
    toy.network.requires_grad_(False)
    with pytest.raises(ValueError, match="no weights to train"):
        run(toy, tmp_path, config())


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    from models.files.errors import ModelFileError

    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(ModelFileError, match="delete it"):
        run(Toy(), tmp_path, config())


def test_a_state_of_another_seed_is_not_used(tmp_path: Path) -> None:
    run(Toy(), tmp_path, config())
    state = load_state(tmp_path / "checkpoint.pt")
    save_state(tmp_path / "checkpoint.pt", state | {"seed": 8})
    with pytest.raises(UserError, match="another training"):
        run(Toy(), tmp_path, config())


PLAIN = {"warmup": 0, "schedule": "constant", "ema": 0.0, "weight_decay": 0.0, "lr": 0.1}


def pulled(folder: Path, pulls: list[float], **changes: Any) -> Pulled:
    """After a training without warm-up, schedule, decay and average but for the changes."""
    goal = Pulled(pulls)
    run(goal, folder, config(**(PLAIN | {"steps": len(pulls)} | changes)))
    return goal


def test_every_step_is_one_of_adamw(tmp_path: Path) -> None:
    pulls = [0.5, -0.2, 0.9, 0.1, -0.6]
    goal = pulled(tmp_path, pulls, weight_decay=0.3)
    expected = adamw(pulls, [0.1] * 5, 0.3, 1.0)
    np.testing.assert_allclose([*goal.seen, goal.weight.item()], expected, rtol=1e-9)


def test_a_huge_gradient_moves_no_more_than_one_of_the_largest_norm(tmp_path: Path) -> None:
    calm = pulled(tmp_path / "calm", [0.5, 0.1, 0.1], clip=0.5)
    wild = pulled(tmp_path / "wild", [5000.0, 0.1, 0.1], clip=0.5)
    np.testing.assert_allclose(wild.seen, calm.seen, rtol=1e-5)
    # Smaller ones are left as they are: without a limit the same comes out.
    free = pulled(tmp_path / "free", [0.5, 0.1, 0.1], clip=100.0)
    np.testing.assert_allclose(free.seen, calm.seen, rtol=1e-5)


def test_the_norm_is_that_of_all_weights_together(tmp_path: Path) -> None:
    class Two(Pulled):
        def __init__(self) -> None:
            super().__init__([])
            self.other = nn.Parameter(torch.zeros(1, dtype=torch.float64))
            self.network.register_parameter("other", self.other)

        def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
            return (30 * self.weight + 40 * self.other).sum(), {}

    goal = Two()
    state = prepare(goal, config(**PLAIN), CPU)
    Updates(config(**PLAIN), state, CPU, "toy").step(None)
    assert goal.weight.grad is not None
    assert goal.other.grad is not None
    assert (goal.weight.grad.item(), goal.other.grad.item()) == pytest.approx((0.6, 0.8))


def test_without_gradient_a_weight_decays_by_rate_times_decay(tmp_path: Path) -> None:
    goal = pulled(tmp_path, [0.0] * 4, weight_decay=0.5)
    assert goal.seen == pytest.approx([2.0, 2 * 0.95, 2 * 0.95**2, 2 * 0.95**3])
    assert goal.weight.item() == pytest.approx(2 * 0.95**4)


def test_each_step_moves_by_its_own_learning_rate(tmp_path: Path) -> None:
    """With one and the same gradient, AdamW moves a weight by just the learning rate."""
    goal = pulled(tmp_path, [1.0] * 6, warmup=2, schedule="cosine")
    moved = -np.diff([*goal.seen, goal.weight.item()])
    half = [0.5 * (1 + np.cos(np.pi * share)) for share in (0, 0.25, 0.5, 0.75)]
    np.testing.assert_allclose(moved, 0.1 * np.array([0.5, 1.0, *half]), rtol=1e-6)
    logged = [point["lr"] for point in curve(tmp_path)]
    np.testing.assert_allclose(logged, moved, rtol=1e-6)


def test_averaged_weights_follow_fast_at_first(tmp_path: Path) -> None:
    goal = Pulled([1.0] * 4)
    run(goal, tmp_path, config(**(PLAIN | {"steps": 4, "ema": 0.25})))
    average = 2.0
    for number, weight in enumerate([1.9, 1.8, 1.7, 1.6], 1):
        # 2/11 and 3/12 come before the decay itself, which 4/13 and 5/14 exceed.
        decay = min(0.25, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * weight
    assert goal.weight.item() == pytest.approx(average, rel=1e-5)
    assert goal.weight.item() == pytest.approx(1.633, abs=1e-3)


def test_without_averaging_the_last_weights_are_handed_on(tmp_path: Path) -> None:
    goal = pulled(tmp_path, [1.0] * 3)
    assert goal.weight.item() == pytest.approx(1.7)
    assert load_trained_weights(tmp_path / "checkpoint.pt")["weight"].item() == goal.weight.item()
    assert load_state(tmp_path / "checkpoint.pt")["average"] == {}


def test_gradients_are_clipped_without_the_scale_of_half_precision() -> None:
    chosen = config(**(PLAIN | {"clip": 0.5}))
    goal = Pulled([])
    state = prepare(goal, chosen, CPU)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    pulls = [0.2, 30.0, 0.4]
    updates = Updates(chosen, state, CPU, "toy")
    for state.step, pull in enumerate(pulls):
        updates.step(pull)
    found = [*goal.seen, goal.weight.item()]
    np.testing.assert_allclose(found, adamw(pulls, [0.1] * 3, 0.0, 0.5), rtol=1e-5)


def test_a_step_whose_scaled_gradient_overflows_is_left_out() -> None:
    chosen = config(**PLAIN)
    goal = Pulled([])
    state = prepare(goal, chosen, CPU)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert Updates(chosen, state, CPU, "toy").step(float("inf")) == {}
    assert goal.weight.item() == 2.0
    assert state.scaler.get_scale() == 512.0


def test_random_numbers_are_those_of_seed_step_and_rank(tmp_path: Path) -> None:
    def drawn(rank: int) -> list[float]:
        goal, worker = Pulled([0.1] * 3), Rank(torch.device("cpu"), rank)
        run(goal, tmp_path / str(rank), config(**(PLAIN | {"steps": 3})), worker=worker)
        return goal.drawn

    for rank in (0, 1):
        expected = []
        for step in range(3):
            generator = torch.Generator().manual_seed(step_seed(7, step, rank))
            expected.append(float(torch.rand((), generator=generator)))
        assert drawn(rank) == expected
    seeds = {step_seed(s, t, r) for s in range(5) for t in range(200) for r in range(8)}
    assert len(seeds) == 5 * 200 * 8


def test_only_the_leader_writes_and_reports(tmp_path: Path) -> None:
    worker = Rank(torch.device("cpu"), 1)
    reporter = run(Pulled([0.1] * 3), tmp_path, config(**(PLAIN | {"steps": 3})), worker=worker)
    assert not list(tmp_path.iterdir())
    assert not reporter.lines


def test_measuring_comes_as_often_as_asked_and_does_not_end_training_mode(tmp_path: Path) -> None:
    goal = Pulled([0.1] * 10, measure_every=4)
    goal.network.eval()
    run(goal, tmp_path, config(**(PLAIN | {"steps": 10, "log_every": 2, "checkpoint_every": 10})))
    points = curve(tmp_path)
    assert [point["step"] for point in points] == [2, 4, 6, 8, 10]
    assert [point["step"] for point in points if "score" in point] == [4, 8, 10]
    assert goal.modes == [True] * 10
    assert not goal.network.training


def test_checkpoints_are_written_as_often_as_asked_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(
        "tasks.train.state.save_state", lambda path, state: written.append(state["step"])
    )
    pulled(tmp_path, [0.1] * 8, checkpoint_every=3)
    assert written == [3, 6, 8]


def test_each_step_gets_its_own_batch_in_order(tmp_path: Path) -> None:
    pulls = [float(number) for number in range(1, 8)]
    asked: list[int] = []

    class Watched(Pulled):
        def batch(self, step: int, share: int = 0) -> Any:
            asked.append(step)
            return super().batch(step)

    goal = Watched(pulls)
    run(goal, tmp_path, config(**(PLAIN | {"steps": 7})))
    assert asked == list(range(7))
    losses = [point["loss"] for point in curve(tmp_path)]
    np.testing.assert_allclose(losses, np.array(pulls) * goal.seen, rtol=1e-6)


def test_processors_compute_in_float32_whatever_the_precision(tmp_path: Path) -> None:
    class Watched(Pulled):
        def loss(self, batch: float) -> tuple[Tensor, dict[str, Tensor]]:
            assert not torch.is_autocast_enabled("cpu")
            return super().loss(batch)

    for precision in ("bf16", "fp16"):
        goal = Watched([0.1])
        run(goal, tmp_path / precision, config(**(PLAIN | {"steps": 1, "precision": precision})))
        assert len(goal.seen) == 1
