"""The whole model in one place: U-Net, autoencoder, audio encoder, scheduler and mask.

`LatentSync` is what training trains piece by piece, what a bundle on disk holds, and what
repaints faces (arXiv 2412.09262, section 3.1): the masked picture, a reference window and
the audio go in, the part that the mask covers comes out. It knows nothing about videos: a
window of aligned faces goes in, a window of aligned faces comes out.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Self, cast

import torch
from torch import nn

from models.audio.encoders import build_audio_encoder
from models.autoencoder import KLAutoencoder, build_autoencoder
from models.files.errors import ModelFileError
from models.latentsync.config import LatentSyncConfig, config_values
from models.latentsync.diffusion import DDIM, MAX_STEPS, make_sampler, make_scheduler
from models.latentsync.folder import CONFIG, read_config, read_part, write_model
from models.latentsync.mask import face_mask, latent_mask, soft_edge, whole_cells
from models.latentsync.sampling import bf16_pays, predict_guided, shared_noise
from models.unet import LipSyncUNet
from models.unet.deep import DeepFeatures
from models.unet.network import UNetOptions
from models.unet.pose import pose_channels

PARTS = ("unet", "autoencoder", "audio_encoder")
"""The networks of a bundle, each a safetensors file of its name."""
PART_PIXELS = 2 * 512 * 512
"""Pixels that the autoencoder takes at once if gradients are off. Stable Diffusion's holds
more than 1 GiB for a 512-pixel frame, so a whole window would not fit next to the weights in
16 GiB; two frames keep a GPU busy."""
EDGE = 64
"""The soft edge's radius is the resolution over this: 2 pixels at 128, 4 at 256."""


class LatentSync(nn.Module):
    """Repaints the mouths of a window of aligned faces so that they fit the audio.

    Shapes: pixels (b, f, 3, R, R) in [-1, 1], latents (b, c, f, r, r), tokens (b, f, n, w).

    Args:
        config: what to build; the weights are fresh.
        empty: no storage for U-Net and autoencoder, for `load` to fill.

    Raises:
        ValueError: the parts do not fit together.
    """

    mask: torch.Tensor
    alpha: torch.Tensor
    latent_mask: torch.Tensor

    def __init__(self, config: LatentSyncConfig, *, empty: bool = False) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder = build_audio_encoder(config.audio, config.audio_encoder)
        with torch.device("meta") if empty else nullcontext():
            self.autoencoder = build_autoencoder(
                config.autoencoder, config.latent_channels, config.scaling_factor
            )
            self.unet = LipSyncUNet(**self.unet_options())
        if config.resolution % self.autoencoder.factor:
            raise ValueError(
                f"resolution {config.resolution} is not a multiple of {self.autoencoder.factor}"
            )
        self.scheduler = make_scheduler(config.prediction_type)
        mask = face_mask(config.resolution)
        side = config.resolution // self.autoencoder.factor
        self.register_buffer("mask", mask, persistent=False)
        edge = soft_edge(mask, config.resolution // EDGE)
        self.register_buffer("alpha", edge, persistent=False)
        cells = whole_cells if config.unet.get("residual") else latent_mask
        self.register_buffer("latent_mask", cells(mask, (side, side)), persistent=False)
        self.channels_last()

    def channels_last(self) -> Self:
        """Put convolution weights in the memory order that is best on the model's device; to be
        called again after the model is moved.

        It is the one that the U-Net's states have. On a processor, Stable Diffusion's autoencoder
        has the other one, which is as fast and exact: torch's GroupNorm of a channels-last picture
        adds up its pixels one by one, and the latents of a picture with a flat area, as every
        masked one has, are off by 4e-4 of the largest.
        """
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device.type == "cpu" and isinstance(self.autoencoder, KLAutoencoder):
            self.autoencoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return self

    def unet_options(self) -> UNetOptions:
        """All arguments of the U-Net: the configuration's, and those implied by the other parts."""
        channels, pose = self.config.latent_channels, self.config.pose
        implied: UNetOptions = {
            "in_channels": 3 * channels + 1,
            "out_channels": channels,
            "cross_attention_dim": self.audio_encoder.width,
        }
        if pose is not None:
            posed = pose_channels(pose.kind, pose.width, channels)
            implied["in_channels"] = 3 * channels + 1 + posed
            implied |= {"pose": pose.kind, "pose_width": pose.width}
        return cast(UNetOptions, {**implied, **self.config.unet})

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.mask.device

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, R, R) -> latents (n, c, r, r)."""
        return self._in_parts(self.autoencoder.encode, pixels)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (n, c, r, r) -> (n, 3, R, R), which may leave [-1, 1] a little."""
        return self._in_parts(self.autoencoder.decode, latents)

    def _in_parts(
        self, code: Callable[[torch.Tensor], torch.Tensor], frames: torch.Tensor
    ) -> torch.Tensor:
        """Apply `code` to a few frames at a time; to all of them if gradients are kept, since
        their activations are then kept anyway."""
        if torch.is_grad_enabled():
            return code(frames)
        count = max(1, PART_PIXELS // self.config.resolution**2)
        return torch.cat([code(part) for part in frames.split(count)])

    def encode_window(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, f, 3, R, R) -> latents (b, c, f, r, r)."""
        latents = self.encode(pixels.flatten(0, 1))
        return latents.unflatten(0, pixels.shape[:2]).transpose(1, 2)

    def decode_window(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (b, c, f, r, r) -> (b, f, 3, R, R)."""
        frames = latents.transpose(1, 2)
        return self.decode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def masked(self, pixels: torch.Tensor) -> torch.Tensor:
        """(..., 3, R, R) with mid-grey (0) where the mask covers, as the published weights know."""
        return pixels * self.mask[0]

    def tokens(self, wave: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(samples,) at 16 kHz -> (num_frames, n, w)."""
        return self.audio_encoder.encode(wave, num_frames).to(self.device)

    def predict(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        tokens: torch.Tensor,
        masked: torch.Tensor,
        reference: torch.Tensor,
        mask: torch.Tensor | None = None,
        pose: torch.Tensor | None = None,
        deep: DeepFeatures | None = None,
    ) -> torch.Tensor:
        """The U-Net's output: noise or sample, as `config.prediction_type` says.

        Args:
            noisy: latents with noise.
            timesteps: (b,) integers below 1000.
            tokens: (b, f, n, w); zeros for no audio.
            masked: latents of the masked picture.
            reference: latents of the reference window.
            mask: (1 or b, 1, 1 or f, r, r), 1 = kept; the model's own when not given.
            pose: latents (b, c, 1 or f, r, r) of an earlier frame, for a model that is shown one.
            deep: features of an earlier step, see `LipSyncUNet.forward`.

        Returns:
            (b, c, f, r, r).

        Raises:
            ValueError: a pose is missing.
        """
        keep = self.latent_mask[:, :, None] if mask is None else mask
        batch, _, frames, height, width = noisy.shape
        keep = keep.to(noisy.dtype).expand(batch, 1, frames, height, width)
        shown = [noisy, keep, masked, reference]
        if self.unet.bottleneck is not None:
            if pose is None:
                raise ValueError("this model is shown an earlier frame: give its latents as pose")
            shown.append(pose.expand_as(noisy))
        inputs = torch.cat(shown, dim=1), timesteps, tokens
        return self.unet(*inputs) if deep is None else self.unet(*inputs, deep)

    def blend(self, pixels: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
        """The generated part in the given picture, with a soft edge inside the mask.

        Pixels that the mask keeps are returned unchanged, bit for bit.

        Args:
            pixels: (..., 3, R, R).
            generated: the same shape; clipped to [-1, 1].
        """
        alpha = self.alpha[0].to(pixels.dtype)
        mixed = pixels + alpha * (generated.clamp(-1, 1).to(pixels.dtype) - pixels)
        return torch.where(alpha > 0, mixed, pixels)

    @torch.no_grad()
    def generate(
        self,
        pixels: torch.Tensor,
        reference: torch.Tensor,
        tokens: torch.Tensor,
        *,
        steps: int = 20,
        guidance: float = 1.5,
        generator: torch.Generator | None = None,
        noise: torch.Tensor | None = None,
        on_step: Callable[[int, int, torch.Tensor], None] | None = None,
        bf16: bool | None = None,
        pose: torch.Tensor | None = None,
        sampler: str = DDIM,
        reuse: int = 1,
    ) -> torch.Tensor:
        """Repaint the masked part of a window with guidance on the audio.

        All frames start from the same noise.

        Args:
            pixels: (b, f, 3, R, R), of which only the part that the mask keeps is used, except for
                the soft edge.
            reference: (b, f, 3, R, R) of the same person.
            tokens: (b, f, n, w).
            steps: denoising steps, at most `MAX_STEPS`.
            guidance: 1 follows the audio as trained; more exaggerates what it changes.
            generator: generator of the noise.
            noise: (1 or b, c, 1, r, r) instead, for windows that are to share it.
            on_step: called with steps done, steps in all and the present latents (b, c, f, r, r).
            bf16: networks run under bf16 autocast, the sampler in float32; None: where
                `bf16_pays`.
            pose: latents (b, c, r, r) of an earlier frame, for a model that is shown one; None: at
                the beginning of a shot, where the reference's first frame takes its place.
            sampler: one of `models.latentsync.diffusion.SAMPLERS`; DDIM as published.
            reuse: every how manieth step runs all of the U-Net, see `models.unet.deep`; 1 as
                published.

        Returns:
            (b, f, 3, R, R) in [-1, 1] on the pixels' device.

        Raises:
            ValueError: steps is out of range, the sampler is unknown, or shapes do not fit.
        """
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"steps must be between 1 and {MAX_STEPS}, got {steps}")
        self._check(pixels, reference, tokens)
        dtype = next(self.unet.parameters()).dtype
        source, other = (each.to(self.device, dtype) for each in (pixels, reference))
        tokens = tokens.to(self.device, dtype)
        lower = bf16_pays(self.device) if bf16 is None else bf16
        scheduler = make_sampler(sampler, self.config.prediction_type)
        scheduler.set_timesteps(steps)
        # One context for all steps, so that the weights are converted once.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=lower):
            masked = self.encode_window(self.masked(source)).to(dtype)
            shown = self.encode_window(other).to(dtype)
            latents = shared_noise(masked, generator, noise)
            shown_pose = None
            if self.unet.bottleneck is not None:
                shown_pose = shown[:, :, :1] if pose is None else pose.to(masked)[:, :, None]
            deep = DeepFeatures(reuse) if reuse != 1 else None
            for done, step in enumerate(scheduler.timesteps, 1):
                if deep is not None:
                    deep.begin(done - 1)
                output = predict_guided(
                    self.predict, latents, step, tokens, masked, shown, guidance, shown_pose, deep
                )
                stepped = scheduler.step(output, step, latents)
                latents = stepped.prev_sample
                if done == steps and sampler == DDIM and self.config.prediction_type == "sample":
                    # If the steps do not divide 1000, DDIM would put some noise back.
                    latents = stepped.pred_original_sample
                if on_step is not None:
                    on_step(done, steps, latents)
            painted = self.decode_window(latents)
        return self.blend(pixels.to(self.device), painted).to(pixels.device)

    def _check(self, pixels: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor) -> None:
        side = self.config.resolution
        if pixels.ndim != 5 or pixels.shape[2:] != (3, side, side):
            raise ValueError(f"pixels must be (b, f, 3, {side}, {side}), got {tuple(pixels.shape)}")
        if reference.shape != pixels.shape:
            raise ValueError(
                f"pixels {tuple(pixels.shape)} and reference {tuple(reference.shape)} differ"
            )
        if tokens.shape[:2] != pixels.shape[:2]:
            raise ValueError(
                f"tokens must be for {tuple(pixels.shape[:2])} windows and frames, got "
                f"{tuple(tokens.shape)}"
            )

    def save(self, folder: Path | str) -> None:
        """Write `config.json` and a safetensors file per network; the configuration last."""
        write_model(
            Path(folder), config_values(self.config), {name: getattr(self, name) for name in PARTS}
        )

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> Self:
        """Load a model that `save` wrote, in evaluation mode.

        Raises:
            ModelFileError: a file is missing, damaged, or does not fit the configuration.
        """
        folder = Path(folder)
        config = read_config(folder)
        try:
            model = cls(config, empty=True)
        except (TypeError, ValueError) as error:
            raise ModelFileError(f"{folder / CONFIG} does not describe a model: {error}") from error
        for name in PARTS:
            read_part(folder, name, getattr(model, name))
        return model.to(device).channels_last().eval()
