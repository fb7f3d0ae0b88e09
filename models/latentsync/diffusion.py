"""The diffusion process: scheduler, noise and the one-step estimate of the clean latents.

Values are Stable Diffusion's; the mixed noise is PYoCo's (arXiv 2305.10474), used with
alpha = 1 by LatentSync (section 3.4), where the one-step estimate is equation 3's.
"""

from collections.abc import Callable
from typing import Any, get_args

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from models.latentsync.config import PredictionType

TRAIN_STEPS = 1000
DDIM = "ddim"
SAMPLERS = (DDIM, "dpm-solver++", "unipc")
"""DDIM (arXiv 2010.02502) as published, DPM-Solver++ (arXiv 2211.01095) and UniPC (arXiv
2302.04867). The latter two are of second order, with noise levels after Karras et al. (arXiv
2206.00364): for a normal distribution, 10 of their steps end nearer to the exact path than 20 of
DDIM's (a test)."""
MAX_STEPS = TRAIN_STEPS // 2
"""Most steps of the sampler. With more, "leading" timesteps start far below the last one, although
from pure noise, and with 1000 outside the table."""


def make_scheduler(prediction_type: PredictionType = "epsilon") -> DDIMScheduler:
    """DDIM as the published checkpoints are trained and sampled.

    "epsilon" is the paper's. A network that predicts the "sample" itself is small and
    sampled in few steps: its timesteps start at the last one, where there is only
    noise.

    Raises:
        ValueError: the prediction type is unknown.
    """
    if prediction_type not in get_args(PredictionType):
        raise ValueError(
            f"unknown prediction type {prediction_type!r}, expected one of "
            f"{get_args(PredictionType)}"
        )
    own = prediction_type == "sample"
    return DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=own,
        steps_offset=0 if own else 1,
        timestep_spacing="trailing" if own else "leading",
        prediction_type=prediction_type,
    )


def make_sampler(name: str, prediction_type: PredictionType = "epsilon") -> Any:
    """What turns noise into latents step by step: a scheduler of diffusers with the same noise
    levels as `make_scheduler`'s, for one window. Those other than DDIM end without any noise.

    Raises:
        ValueError: the name or the prediction type is unknown.
    """
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}, expected one of {', '.join(SAMPLERS)}")
    scheduler = make_scheduler(prediction_type)
    if name == DDIM:
        return scheduler
    kinds: dict[str, Callable[..., Any]] = {
        "dpm-solver++": DPMSolverMultistepScheduler,
        "unipc": UniPCMultistepScheduler,
    }
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    alike = {each: scheduler.config[each] for each in names}
    return kinds[name](solver_order=2, final_sigmas_type="zero", use_karras_sigmas=True, **alike)


def mix_noise(shared: torch.Tensor, own: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Unit-variance noise (b, c, f, h, w) that the frames of a window partly share.

    The shared part has variance a^2 / (1 + a^2), each frame's own 1 / (1 + a^2).

    Args:
        shared: (b, c, 1, h, w), normal.
        own: (b, c, f, h, w), normal.
        alpha: 0 for independent frames.
    """
    scale = (1 + alpha**2) ** -0.5
    return (alpha * shared + own) * scale


def mixed_noise(
    shape: tuple[int, ...],
    alpha: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Freshly drawn noise as `mix_noise` mixes it.

    Args:
        shape: (b, c, f, h, w).
        alpha: 0 for independent frames.

    Returns:
        Noise of that shape.
    """
    where = generator.device if generator is not None else torch.device(device)
    kind = {"generator": generator, "device": where, "dtype": dtype}
    batch, channels, _, height, width = shape
    shared = torch.randn((batch, channels, 1, height, width), **kind)  # type: ignore[arg-type]
    own = torch.randn(shape, **kind)  # type: ignore[arg-type]
    return mix_noise(shared, own, alpha).to(device)


def signal_and_noise(
    timesteps: torch.Tensor, scheduler: DDIMScheduler, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """sqrt(a) and sqrt(1 - a) of each timestep, shaped (b, 1, ...) to go with `like`."""
    cumulative = scheduler.alphas_cumprod.to(like.device, torch.float32)[timesteps.to(like.device)]
    cumulative = cumulative.reshape(-1, *[1] * (like.ndim - 1))
    return cumulative.sqrt().to(like.dtype), (1 - cumulative).sqrt().to(like.dtype)


def one_step_x0(
    noisy: torch.Tensor,
    prediction: torch.Tensor,
    timesteps: torch.Tensor,
    scheduler: DDIMScheduler,
) -> torch.Tensor:
    """The clean latents implied by a single prediction.

    (x_t - sqrt(1 - a) * epsilon) / sqrt(a), or the prediction itself when the network
    predicts the sample.

    Args:
        noisy: (b, ...) x_t.
        prediction: the network's output, of the same shape.
        timesteps: (b,).
    """
    if scheduler.config.prediction_type == "sample":
        return prediction
    signal, noise = signal_and_noise(timesteps, scheduler, noisy)
    return (noisy - noise * prediction) / signal
