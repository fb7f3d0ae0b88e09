"""Training LatentSync's U-Net: stage 1 on noise alone, stage 2 with motion and pixels.

Both stages are the same objective (LatentSync, section 3.4): a squared error in latents,
and, where the recipe asks for it, losses on the picture that is decoded from the clean
latents as estimated in one step. The U-Net learns, and the last blocks of AV-HuBERT where a recipe
says so; everything else is frozen.
"""

import json
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.audio.avhubert_tokens import AVHubertTokens
from models.latentsync.diffusion import TRAIN_STEPS, mixed_noise, one_step_x0
from models.latentsync.model import LatentSync
from tasks.recipes.config import LossWeights, UNetConfig
from tasks.train.assemble import build_model, load_trained_syncnet, start_weights
from tasks.train.batches import UNetBatch, UNetWindows, unet_batch
from tasks.train.compiled import compile_blocks
from tasks.train.context import StageContext
from tasks.train.curves import METRICS
from tasks.train.cutters import UNetCutter
from tasks.train.hearing import AUDIO, KEPT, LearnedTokens, Learners
from tasks.train.loop import step_seed, train
from tasks.train.objective import Objective
from tasks.train.pixel_losses import PixelLosses
from tasks.train.samples import FOLDER, Samples
from tasks.train.stream import Batches
from tasks.train.tokens import TokenCache
from tasks.train.unet_windows import unet_reach

POSE_DRAWS = 0x504F5345
"""What tells the seeds of a pose frame's noise from those of the target's."""
NOT_LOSSES = ("step", "lr", "grad_norm", "skipped")
"""Values of the curve that do not say what was learned."""


@dataclass(frozen=True)
class NoisyBatch:
    """Windows with what is drawn for each of them."""

    windows: UNetWindows
    noise: Tensor
    """(b, c, f, r, r)."""
    timesteps: Tensor
    """(b,) integers below 1000."""
    pose_noise: Tensor
    """(b, c, 1, r, r) what is added to the latents of the pose frame; (b, 0) without a pose."""


TIMESTEP_BINS = 4
"""Parts of the timesteps for which the held-out loss is shown on its own."""


class UNetObjective(Objective):
    """The U-Net's loss on windows of the training clips."""

    score = "heldout_loss"

    def __init__(
        self,
        model: LatentSync,
        config: UNetConfig,
        stage: StageContext,
        losses: PixelLosses,
    ) -> None:
        self.network: nn.Module = model.unet
        self.model, self.config, self.losses = model, config, losses
        self.worker, self.seed = stage.worker, stage.seed
        self.store = stage.stores.train(model.config.resolution)
        self.tokens = TokenCache(model.audio_encoder)
        if config.audio_blocks:
            encoder = model.audio_encoder
            assert isinstance(encoder, AVHubertTokens)
            self.network = Learners(model.unet, encoder, config.audio_blocks)
            self.slower = {AUDIO: config.audio_lr / config.lr if config.lr else 0.0}
            self.tokens = LearnedTokens(encoder, config.audio_blocks, stage.output / KEPT)
        self.lag = pose_lag(model)
        cutter = UNetCutter(config, model.config.num_frames, model.config.resolution, self.lag)
        self.stream = stage.stream(cutter, config, model.config.resolution)
        held_out, speakers = stage.stores.held_out(model.config.resolution)
        # The same without augmentation; clips that are too short to train on cannot be measured on.
        self.held_out = held_out
        self.plain = replace(
            config,
            augment=0.0,
            sound_augment=0.0,
            swap_surroundings=0.0,
            audio_dropout=0.0,
            pose_noise=0.0,
            pose_dropout=0.0,
            windows_per_clip=1,
            batch_size=min(config.test_windows, config.micro_batch or config.batch_size),
        )
        usable = held_out.clips.long_enough(unet_reach(config, model.config.num_frames))
        self.measure_every = config.test_every if speakers and len(usable) else 0
        self.sample_every = config.sample_every
        if config.sample_every and stage.worker.leads:
            self.samples = Samples(model, held_out, stage.folder / FOLDER, losses.syncnet)

    def batch(self, step: int, share: int = 0) -> NoisyBatch:
        frames = self.model.config.num_frames
        windows = unet_batch(self.store, self.config, frames, self.seed, step, share, self.lag)
        return self._with_noise(windows, step, share)

    def streamed(self, step: int, share: int = 0) -> Batches | None:
        return self._noisy(self.stream(step, share), step, share) if self.stream else None

    def _noisy(self, batches: Batches, step: int, share: int) -> Batches:
        with closing(batches):
            for number, windows in enumerate(batches, step):
                yield self._with_noise(windows, number, share)

    def _with_noise(
        self, windows: UNetWindows, step: int, share: int = 0, seed: int | None = None
    ) -> NoisyBatch:
        seed = self.seed if seed is None else seed
        frames = windows.target.grey.shape[1]
        cells = tuple(self.model.latent_mask.shape[-2:])
        shape = (self.model.config.latent_channels, frames, *cells)
        first = share * self.config.batch_size
        seeds = [step_seed(seed, step, first + index) for index in range(len(windows))]
        noise, timesteps = zip(
            *(draw_noise(self.config, shape, each) for each in seeds), strict=True
        )
        pose_noise = torch.zeros(len(windows), 0)
        if self.lag:
            shape = (shape[0], 1, *cells)
            drawn = [draw_pose_noise(self.config, shape, each) for each in seeds]
            pose_noise = torch.stack(drawn)
        return NoisyBatch(windows, torch.stack(noise), torch.stack(timesteps), pose_noise)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The squared error of latents on held-out speakers: over all timesteps, which are spread
        evenly, and for each quarter of them (0 has the least noise)."""
        if not self.measure_every:
            return {}
        self.network.eval()
        count = self.config.test_windows
        losses: list[float] = []
        timesteps = ((torch.arange(count) + 0.5) * TRAIN_STEPS / count).long()
        for step in range(-(-count // self.plain.batch_size)):
            first = step * self.plain.batch_size
            windows = unet_batch(
                self.held_out, self.plain, self.model.config.num_frames, 0, step, lag=self.lag
            )
            noisy = self._with_noise(windows, step, seed=0)
            for index in range(min(len(windows), count - first)):
                at = timesteps[first + index][None]
                part = windows.part(index, index + 1).to(self.worker.device, self.tokens)
                parts = self.loss_on(part, noisy.noise[index : index + 1], at)[1]
                losses.append(float(parts["noise"]))
        bins = np.array_split(np.array(losses), TIMESTEP_BINS)
        found = {f"heldout_loss_{number}": float(np.mean(each)) for number, each in enumerate(bins)}
        return {"heldout_loss": float(np.mean(losses)), **found}

    def sample(self, step: int) -> dict[str, float]:
        return self.samples.write(step)

    def loss(self, batch: NoisyBatch) -> tuple[Tensor, dict[str, Tensor]]:
        windows = batch.windows.to(self.worker.device, self.tokens)
        return self.loss_on(windows, batch.noise, batch.timesteps, batch.pose_noise)

    def loss_on(
        self,
        windows: UNetBatch,
        noise: Tensor,
        timesteps: Tensor,
        pose_noise: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of windows that are on the model's device, and its parts."""
        device = self.worker.device
        latents = encode_batch(self.model, windows, pose_noise)
        noise = noise.to(device, latents.clean.dtype)
        timesteps = timesteps.to(device)
        found = denoise(self.model, self.losses, windows, latents, noise, timesteps)
        return found.total, {name: each.detach() for name, each in found.parts.items()}


def draw_noise(config: UNetConfig, shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """The noise and the timestep of one sample, the same on every device and in every worker.

    Args:
        shape: (c, f, r, r) of its latents.

    Returns:
        Noise of that shape, and T * u^power with u uniform in [0, 1), an integer.
    """
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand((), generator=generator) ** config.timestep_power
    timestep = (share * TRAIN_STEPS).long().clamp_max(TRAIN_STEPS - 1)
    return mixed_noise((1, *shape), config.noise_alpha, generator)[0], timestep


def draw_pose_noise(config: UNetConfig, shape: tuple[int, ...], seed: int) -> Tensor:
    """What is added to the latents of a pose frame, of their shape: noise whose standard deviation
    is uniform between 0 and `pose_noise`."""
    # Other numbers than those of `draw_noise`.
    generator = torch.Generator().manual_seed(seed ^ POSE_DRAWS)
    strength = config.pose_noise * torch.rand((), generator=generator)
    return strength * torch.randn(shape, generator=generator)


def pose_lag(model: LatentSync) -> int:
    """How many frames before a window a model is shown one; 0: it is not."""
    pose = model.config.pose
    return pose.lag if pose is not None and model.unet.bottleneck is not None else 0


@dataclass(frozen=True)
class BatchLatents:
    """A batch's windows as latents (b, c, f, r, r), without gradient."""

    clean: Tensor
    """Of the target."""
    masked: Tensor
    """Of the surroundings where the mask keeps them."""
    reference: Tensor
    """Of the reference window."""
    pose: Tensor | None = None
    """Of the earlier frame, (b, c, 1, r, r), disturbed; None where the model is shown none."""


@torch.no_grad()
def encode_batch(
    model: LatentSync, batch: UNetBatch, pose_noise: Tensor | None = None
) -> BatchLatents:
    """The U-Net's inputs for a batch that is on the model's device.

    Args:
        pose_noise: (b, c, 1, r, r), added to the earlier frame.
    """
    clean = model.encode_window(batch.target)
    masked = model.encode_window(model.masked(batch.surroundings))
    reference = model.encode_window(batch.reference)
    if batch.pose is None or batch.pose_shown is None:
        return BatchLatents(clean, masked, reference)
    pose = model.encode_window(batch.pose)
    if pose_noise is not None and pose_noise.numel():
        pose = pose + pose_noise.to(pose)
    pose = pose * batch.pose_shown[:, None, None, None, None]
    return BatchLatents(clean, masked, reference, pose)


@dataclass(frozen=True)
class Denoised:
    """The U-Net's prediction for a batch, with gradient."""

    parts: dict[str, Tensor]
    """The loss's parts by name, each with its weight applied."""
    prediction: Tensor
    """(b, c, f, r, r) noise or sample, as the model predicts."""
    generated: Tensor | None
    """(b, f, 3, R, R) decoded one-step estimate; None if no part needs it."""

    @property
    def total(self) -> Tensor:
        """The loss to minimise."""
        return torch.stack([each.float() for each in self.parts.values()]).sum()


def denoise(
    model: LatentSync,
    losses: PixelLosses,
    batch: UNetBatch,
    latents: BatchLatents,
    noise: Tensor,
    timesteps: Tensor,
) -> Denoised:
    """Add noise to the target, let the U-Net predict it, and measure the loss.

    Args:
        noise: (b, c, f, r, r).
        timesteps: (b,) integers below 1000.
    """
    weights = losses.weights
    clean, masked, reference = latents.clean, latents.masked, latents.reference
    noisy = model.scheduler.add_noise(clean, noise, timesteps)
    # torch 2.13 on a CPU crashes in the backward of a channels-last GroupNorm whose
    # weights learn but whose input does not come from a weight that learns.
    noisy.requires_grad_()
    more: dict[str, Any] = {} if latents.pose is None else {"pose": latents.pose}
    prediction = model.predict(noisy, timesteps, batch.tokens, masked, reference, **more)
    goal = clean if model.config.prediction_type == "sample" else noise
    error = (prediction.float() - goal.float()).square()
    cells = latent_weights(weights, model.latent_mask, batch)
    parts = {"noise": weights.noise * (error * cells).mean()}
    generated = None
    if weights.decodes or weights.judges_latents:
        estimate = one_step_x0(noisy, prediction, timesteps, model.scheduler)
        if weights.judges_latents:
            parts |= losses.of_latents(estimate, batch.mel)
    if weights.decodes:
        generated = model.decode_window(estimate)
        parts |= losses(generated, batch.target, batch.mel, 1 - model.mask)
    return Denoised(parts, prediction, generated)


def latent_weights(losses: LossWeights, keep: Tensor, batch: UNetBatch) -> Tensor:
    """How much each latent cell counts, (b, 1, f, h, w) with a mean of 1.

    Kept cells count 1, or 0 where the surroundings are from another moment and cannot be
    known; repainted cells count `inside`, those around the mouth `mouth`.

    Args:
        keep: (1, 1, h, w), 1 where the picture is kept.
    """
    height, width = keep.shape[-2:]
    known = (1 - batch.swapped)[:, None, None, None, None]
    mouth = mouth_cells(batch.mouth, height, width)[:, None]
    repainted = losses.inside + (losses.mouth - losses.inside) * mouth
    # Cells on the mask's edge are partly kept.
    weights = keep[:, :, None] * known + (1 - keep[:, :, None]) * repainted
    return weights / weights.mean(dim=(1, 2, 3, 4), keepdim=True)


def mouth_cells(boxes: Tensor, height: int, width: int) -> Tensor:
    """The cells (b, f, h, w) that boxes (b, f, 4) x0 y0 x1 y1, shares of the side, overlap."""
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    x0, y0, x1, y1 = (each[..., None] for each in boxes.unbind(-1))
    across = (x > x0 - 0.5 / width) & (x < x1 + 0.5 / width)
    down = (y > y0 - 0.5 / height) & (y < y1 + 0.5 / height)
    return (down[..., :, None] & across[..., None, :]).float()


def choose_trained(unet: nn.Module, what: str) -> int:
    """Make only the weights trainable that a recipe names; returns how many numbers they hold.

    Args:
        what: a value of `UNetConfig.trains`.
    """
    marks = {
        "all": ("",),
        "motion+attention": ("motion_modules.", "attentions."),
        "motion+attn2": ("motion_modules.", ".attn2."),
    }[what]
    count = 0
    for name, weight in unet.named_parameters():
        weight.requires_grad_(any(mark in name for mark in marks))
        count += weight.numel() * weight.requires_grad
    return count


def spare_activations(model: LatentSync, config: UNetConfig) -> None:
    """Recompute activations where the recipe says so."""
    if not config.gradient_checkpointing:
        return
    model.unet.enable_gradient_checkpointing()
    autoencoder: Any = model.autoencoder
    if config.losses.decodes and hasattr(autoencoder, "enable_gradient_checkpointing"):
        autoencoder.enable_gradient_checkpointing()


def run(stage: StageContext) -> dict[str, float]:
    """Train one of the two U-Net stages.

    Returns:
        loss and its parts at the end, and how many million weights were trained.
    """
    config: UNetConfig = getattr(stage.recipe, stage.name)
    device = stage.worker.device
    torch.manual_seed(stage.seed)
    model = build_model(stage.recipe, stage.name, stage.output)
    notes = start_weights(stage, config, model)
    model.to(device).channels_last().eval()
    model.requires_grad_(False)
    choose_trained(model.unet, config.trains)
    spare_activations(model, config)
    if config.compile:
        compile_blocks(model.unet)
    syncnet = None
    if config.losses.sync:
        trained = "syncnet_latents" if config.losses.judges_latents else "syncnet"
        syncnet = load_trained_syncnet(stage.recipe, stage.output, device, trained)
    losses = PixelLosses.load(config, syncnet, device)
    if stage.worker.leads:
        for note in [*notes, *losses.notes]:
            stage.reporter.progress(f"{stage.name}: {note}")
    objective = UNetObjective(model, config, stage, losses)
    learned = [each for each in objective.network.parameters() if each.requires_grad]
    count = sum(each.numel() for each in learned)
    train(objective, config, stage.run)
    return {"trained_millions": count / 1e6, **_last_point(stage.folder)}


def _last_point(folder: Path) -> dict[str, float]:
    """Means over the last tenth of the stage's curve."""
    try:
        lines = (folder / METRICS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    points = [json.loads(line) for line in lines[-max(1, len(lines) // 10) :]]
    points = [point for point in points if "loss" in point]
    names = [name for name in points[-1] if name not in NOT_LOSSES] if points else []
    names = [name for name in names if not name.startswith(("heldout", "sample"))]
    return {name: sum(point[name] for point in points) / len(points) for name in names}
