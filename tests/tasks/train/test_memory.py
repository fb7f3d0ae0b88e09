"""What a training will need, said before it begins."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from models.audio.avhubert_tokens import AVHubertTokens
from models.latentsync.config import PoseConfig
from tasks.recipes.config import STAGES, Recipe
from tasks.recipes.recipe import parse_overrides, recipe
from tasks.train.drawn import drawn_stage
from tasks.train.memory import GB, MemoryEstimate, _peak, estimate_memory, what_would_fit
from tasks.train.trial import try_stage
from tests.support.small_models import shaken

CPU = torch.device("cpu")


def changed(name: str, *overrides: str) -> MemoryEstimate:
    base, _, stage = name.partition(" ")
    return estimate_memory(recipe(base, parse_overrides(overrides)), stage, CPU)


def with_stage(stage: str) -> Recipe:
    """The smallest recipe that has it."""
    on_latents = ["stage2.losses.sync_on=latents"] * (stage == "syncnet_latents")
    return recipe("debug", parse_overrides(on_latents))


@pytest.mark.parametrize("stage", STAGES)
def test_weights_gradients_and_moments_are_counted_exactly(stage: str) -> None:
    chosen = with_stage(stage)
    estimate = estimate_memory(chosen, stage, CPU)
    drawn = drawn_stage(chosen, stage, CPU)
    learned = sum(4 * each.numel() for each in drawn.network.parameters() if each.requires_grad)
    networks = {
        id(each): each.numel() * each.element_size()
        for module in (drawn.network, *drawn.frozen)
        for each in (*module.parameters(), *module.buffers())
    }
    average = learned if drawn.config.ema else 0
    assert estimate.gradients == pytest.approx(learned / GB)
    assert estimate.optimizer == pytest.approx((2 * learned + average) / GB)
    assert estimate.weights == pytest.approx(sum(networks.values()) / GB)


@pytest.mark.parametrize(("step", "frames"), [(1, 16), (4, 4), (5, 4)])
def test_drawn_windows_have_the_frames_of_real_ones(step: int, frames: int) -> None:
    base = recipe("debug")
    drawn = drawn_stage(replace(base, stage1=replace(base.stage1, frame_step=step)), "stage1", CPU)
    seen: list[int] = []
    drawn.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2]))
    drawn.loss(1)
    assert seen == [frames]


def hearing(blocks: int, windows: int = 4) -> Recipe:
    """A chain of the debug recipe's size whose encoder's last blocks learn."""
    base = recipe("debug")
    sizes = {"width": 32, "layers": 4, "heads": 2, "inner": 64}
    model = replace(
        base.model, num_frames=1, pose=PoseConfig(), audio="avhubert", audio_encoder=sizes
    )
    stage = replace(
        base.stage1, batch_size=8, windows_per_clip=windows, frame_step=1, audio_blocks=blocks
    )
    return replace(base, model=model, stage1=stage, stage2=None)


def test_blocks_of_the_audio_encoder_that_learn_are_counted() -> None:
    frozen, learning = (estimate_memory(hearing(blocks), "stage1", CPU) for blocks in (0, 2))
    encoder = AVHubertTokens(**hearing(2).model.audio_encoder)
    learned = sum(4 * each.numel() for each in encoder.learning(2).values())
    assert learning.gradients - frozen.gradients == pytest.approx(learned / GB)
    assert learning.weights == pytest.approx(frozen.weights)
    assert learning.optimizer - frozen.optimizer == pytest.approx(3 * learned / GB)
    # Each clip of a batch is heard as a whole, once.
    more = estimate_memory(hearing(2, windows=1), "stage1", CPU)
    kept = [each.activations - frozen.activations for each in (learning, more)]
    assert kept[0] > 0
    assert kept[1] == pytest.approx(4 * kept[0], rel=0.3)


def test_a_trial_moves_the_blocks_that_learn() -> None:
    trial = try_stage(hearing(2), "stage1", CPU, steps=2)
    assert all(loss == loss and abs(loss) < 100 for loss in trial.losses)
    drawn = drawn_stage(hearing(2), "stage1", CPU)
    # A fresh U-Net gives 0 whatever it hears.
    shaken(drawn.network)
    drawn.loss(8).backward()
    grown = {name: weight.grad for name, weight in drawn.network.named_parameters()}
    heard = {name: each for name, each in grown.items() if name.startswith("audio_encoder.")}
    assert len(heard) > 8
    assert all(each is not None and each.abs().sum() > 0 for each in heard.values())


def test_what_a_pass_keeps_is_added_up() -> None:
    """Three layers of which the outputs of two are kept for the backward pass of a third."""
    side, samples = 256, 1000

    class Stage:
        config = recipe("debug").syncnet
        part = samples
        network = nn.Sequential(*(nn.Linear(side, side, bias=False) for _ in range(3)))

        def loss(self, count: int) -> torch.Tensor:
            found: torch.Tensor = self.network(torch.ones(count, side)).sum()
            return found

    stage = Stage()
    peak = _peak(stage, (stage.network,), CPU)  # type: ignore[arg-type]
    activation, weight = 4 * samples * side, 4 * side * side
    # The input and two outputs, then gradients of outputs and weights on the way back.
    assert 4 * activation <= peak <= 6 * activation + 3 * weight


def test_nothing_is_allocated() -> None:
    """The full networks of the paper, of which stage 2 has more than 10 GB."""
    before = torch.get_default_device()
    estimate = changed("paper-256 stage2", "stage2.batch_size=1")
    assert estimate.weights > 8
    assert estimate.gradients > 1
    assert torch.get_default_device() == before
    # And nothing that is kept for later was made without content.
    assert drawn_stage(recipe("debug"), "stage1", CPU).loss(1).isfinite()


@pytest.mark.parametrize("stage", ["syncnet", "stage1", "stage2"])
def test_parts_of_a_batch_need_less(stage: str) -> None:
    whole = changed(f"tiny {stage}", f"{stage}.batch_size=8")
    parts = changed(f"tiny {stage}", f"{stage}.batch_size=8", f"{stage}.micro_batch=2")
    twice = changed(f"tiny {stage}", f"{stage}.batch_size=16")
    assert parts.activations < 0.5 * whole.activations
    assert twice.activations == pytest.approx(2 * whole.activations, rel=0.2)
    assert twice.weights == whole.weights


def test_recomputing_activations_needs_less() -> None:
    kept, again = (
        changed("paper-256 stage1", "stage1.batch_size=1", f"stage1.gradient_checkpointing={on}")
        for on in ("false", "true")
    )
    assert again.activations < 0.5 * kept.activations


def test_lower_precision_needs_less_on_a_gpu_only() -> None:
    base = recipe("tiny", {"syncnet.batch_size": "64"})
    lower = replace(base, syncnet=replace(base.syncnet, precision="bf16"))
    cuda = torch.device("cuda")
    assert (
        estimate_memory(lower, "syncnet", cuda).activations
        < estimate_memory(base, "syncnet", cuda).activations
    )
    assert estimate_memory(lower, "syncnet", CPU) == estimate_memory(base, "syncnet", CPU)


def test_the_first_setting_that_fits_is_named() -> None:
    chosen = recipe("tiny", {"stage1.batch_size": "16"})
    needed = estimate_memory(
        replace(chosen, stage1=replace(chosen.stage1, micro_batch=4)), "stage1", CPU
    )
    assert what_would_fit(chosen, "stage1", CPU, needed.total + 0.01) == ["stage1.micro_batch=4"]
    assert what_would_fit(chosen, "stage1", CPU, 0.1) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_trial_does_real_steps(stage: str) -> None:
    trial = try_stage(with_stage(stage), stage, CPU, steps=2)
    assert len(trial.losses) == 2
    assert all(loss == loss and abs(loss) < 100 for loss in trial.losses)
    assert trial.moved > 0
    assert trial.memory_gb > 0.1
    assert trial.samples_per_s > 0


def test_operations_are_counted() -> None:
    chosen = recipe("debug")
    trial = try_stage(chosen, "syncnet", CPU, steps=1, count_flops=True)
    drawn = drawn_stage(chosen, "syncnet", CPU)
    weights = sum(each.numel() for each in drawn.learned)
    # A multiplication and an addition per weight at least, forwards and twice backwards.
    assert trial.flops > 2 * weights * chosen.syncnet.batch_size
