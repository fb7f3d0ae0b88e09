"""What sampling a window needs besides the networks: its noise, guidance by audio, precision."""

from collections.abc import Callable
from typing import Any

import torch

from models.unet.deep import DeepFeatures


def bf16_pays(device: torch.device) -> bool:
    """Whether pictures are made in bf16 by default: on CUDA devices that
    have it in hardware.

    Their matrix units are many times faster in it than in float32; training also runs its networks
    in it; and with float32's range nothing overflows, as fp16 does in Stable Diffusion's
    autoencoder. Processors gain little, and float32 keeps their results repeatable.
    """
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def shared_noise(
    like: torch.Tensor, generator: torch.Generator | None, noise: torch.Tensor | None
) -> torch.Tensor:
    """Noise of the shape of `like`, (b, c, f, r, r), the same for all frames.

    Args:
        like: latents; their device and dtype are the noise's.
        generator: draws it on the generator's own device.
        noise: (1 or b, c, 1, r, r) instead.
    """
    batch, channels, _, height, width = like.shape
    if noise is None:
        where = generator.device if generator is not None else like.device
        shape = (batch, channels, 1, height, width)
        noise = torch.randn(shape, generator=generator, device=where)
    return noise.to(like.device, like.dtype).expand(like.shape)


def predict_guided(
    predict: Callable[..., torch.Tensor],
    latents: torch.Tensor,
    step: torch.Tensor,
    tokens: torch.Tensor,
    masked: torch.Tensor,
    reference: torch.Tensor,
    guidance: float,
    pose: torch.Tensor | None = None,
    deep: DeepFeatures | None = None,
) -> torch.Tensor:
    """The U-Net's output with and without audio, the difference scaled by `guidance`.

    Args:
        predict: `LatentSync.predict`, which takes the following arguments.
        step: timestep of the scheduler, a scalar.
        pose: latents (b, c, 1, r, r) of an earlier frame, for a model that is shown one.
        deep: features of an earlier step, see `LipSyncUNet.forward`.
    """
    more: dict[str, Any] = {} if deep is None else {"deep": deep}
    timesteps = step.to(latents.device).expand(len(latents))
    if guidance == 1:
        more |= {} if pose is None else {"pose": pose}
        return predict(latents, timesteps, tokens, masked, reference, **more).to(latents.dtype)
    # One pass over twice the batch: first without audio, then with it.
    latents, timesteps, masked, reference = (
        torch.cat([each, each]) for each in (latents, timesteps, masked, reference)
    )
    tokens = torch.cat([torch.zeros_like(tokens), tokens])
    more |= {} if pose is None else {"pose": torch.cat([pose, pose])}
    output = predict(latents, timesteps, tokens, masked, reference, **more)
    without, with_audio = output.to(latents.dtype).chunk(2)
    return without + guidance * (with_audio - without)
