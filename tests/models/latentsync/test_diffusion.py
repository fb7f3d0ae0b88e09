"""The diffusion process: scheduler values, mixed noise, the one-step estimate."""

import pytest
import torch

from models.latentsync.config import PredictionType
from models.latentsync.diffusion import (
    DDIM,
    SAMPLERS,
    make_sampler,
    make_scheduler,
    mixed_noise,
    one_step_x0,
    signal_and_noise,
)


def test_epsilon_scheduler_has_the_published_values() -> None:
    scheduler = make_scheduler()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = (1 - betas).cumprod(0)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), expected, rtol=1e-4, atol=0)
    assert scheduler.config.clip_sample is False
    assert float(scheduler.final_alpha_cumprod) == float(scheduler.alphas_cumprod[0])
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == [1 + 50 * k for k in reversed(range(20))]


def test_sample_scheduler_starts_in_pure_noise_and_ends_in_the_prediction() -> None:
    scheduler = make_scheduler("sample")
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]
    latents, prediction = torch.randn(2, 4), torch.randn(2, 4)
    last = scheduler.step(prediction, scheduler.timesteps[-1], latents).prev_sample
    torch.testing.assert_close(last, prediction)


def test_unknown_prediction_type() -> None:
    with pytest.raises(ValueError, match="'velocity'"):
        make_scheduler("velocity")  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_mixed_noise_has_unit_variance_and_the_right_share(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = mixed_noise((4, 4, 3, 64, 64), alpha, generator)
    flat = noise.transpose(0, 2).flatten(1)
    assert flat.std(1).tolist() == pytest.approx([1.0] * 3, abs=0.02)
    shared = torch.corrcoef(flat)[0, 1]
    assert float(shared) == pytest.approx(alpha**2 / (1 + alpha**2), abs=0.02)


def test_mixed_noise_repeats_with_its_generator() -> None:
    first, second = (
        mixed_noise((1, 2, 3, 4, 4), 1.0, torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_one_step_estimate_undoes_the_noise() -> None:
    scheduler = make_scheduler()
    clean, noise = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 4, 3, 8, 8)
    timesteps = torch.tensor([10, 900])
    noisy = scheduler.add_noise(clean, noise, timesteps)
    estimate = one_step_x0(noisy, noise, timesteps, scheduler)
    torch.testing.assert_close(estimate, clean, rtol=1e-3, atol=1e-4)
    own = one_step_x0(noisy, clean, timesteps, make_scheduler("sample"))
    assert torch.equal(own, clean)


def test_signal_and_noise_are_shaped_for_what_they_scale() -> None:
    signal, noise = signal_and_noise(
        torch.tensor([0, 999]), make_scheduler(), torch.zeros(2, 4, 3, 8, 8)
    )
    assert signal.shape == (2, 1, 1, 1, 1)
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(2, 1, 1, 1, 1))
    assert signal[0] > 0.99
    assert signal[1] < 0.1


MEAN, SPREAD = 0.7, 0.4


def distance_from_the_exact_path(name: str, kind: PredictionType, steps: int) -> float:
    """Of samples of a normal distribution by its exact denoiser: their mean distance from where the
    probability flow ends, which is known for it."""
    sampler = make_sampler(name, kind)
    sampler.set_timesteps(steps)
    levels = sampler.alphas_cumprod.double()
    noise = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    latents, stepped = noise, None
    for step in sampler.timesteps:
        level = levels[int(step)]
        variance = level * SPREAD**2 + 1 - level
        clean = MEAN + level**0.5 * SPREAD**2 / variance * (latents - level**0.5 * MEAN)
        if stepped is None:
            scale = SPREAD / variance**0.5
            exact = MEAN + scale * (noise - level**0.5 * MEAN)
        added = (latents - level**0.5 * clean) / (1 - level) ** 0.5
        stepped = sampler.step(clean if kind == "sample" else added, step, latents)
        latents = stepped.prev_sample
    return float((latents - exact).abs().mean())


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
@pytest.mark.parametrize("name", [each for each in SAMPLERS if each != DDIM])
def test_the_other_samplers_come_closer_in_fewer_steps(name: str, kind: PredictionType) -> None:
    usual = distance_from_the_exact_path(DDIM, kind, 20)
    assert distance_from_the_exact_path(name, kind, 10) < 0.6 * usual
    assert distance_from_the_exact_path(name, kind, 20) < 0.2 * usual


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
@pytest.mark.parametrize("steps", [2, 5, 20])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_ends_at_the_only_picture_there_is(
    name: str, steps: int, kind: PredictionType
) -> None:
    """Where a network knows the picture, that is what comes out, whatever the noise."""
    sampler = make_sampler(name, kind)
    sampler.set_timesteps(steps)
    assert len(sampler.timesteps) == steps
    clean = torch.full((1, 2, 3, 4, 4), 0.3)
    latents = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    for step in sampler.timesteps:
        level = sampler.alphas_cumprod[int(step)]
        added = (latents - level**0.5 * clean) / (1 - level) ** 0.5
        stepped = sampler.step(clean if kind == "sample" else added, step, latents)
        latents = stepped.prev_sample
    # DDIM as published leaves the noise of the first level.
    left = 0.0 if kind == "sample" or name != DDIM else 0.12
    assert float((latents - clean).abs().max()) < 1e-3 + left


def test_ddim_is_the_scheduler_of_training() -> None:
    assert make_sampler(DDIM, "sample").config == make_scheduler("sample").config
    with pytest.raises(ValueError, match="unknown sampler 'euler', expected one of ddim, dpm-sol"):
        make_sampler("euler")
