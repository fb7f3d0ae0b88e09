"""Training the tiny recipe's autoencoder on the dataset's own frames.

The full-size recipes use a frozen published autoencoder and skip this stage. The
number that matters is the PSNR on held-out clips: no lip-synced frame
can be better than that.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from datasets.shards.clips import ClipStore
from models.autoencoder import build_autoencoder
from tasks.recipes.config import AutoencoderConfig
from tasks.train.augment import PLAIN
from tasks.train.batches import autoencoder_batch
from tasks.train.compiled import compile_blocks
from tasks.train.context import StageContext
from tasks.train.loop import train
from tasks.train.objective import Objective, Rank
from tasks.train.windows import rng_for

CHUNK = 16
"""Frames that are encoded at once when measuring."""


class AutoencoderObjective(Objective):
    """Mean squared error, which is what PSNR measures, on frames with changed colours."""

    def __init__(
        self,
        network: nn.Module,
        config: AutoencoderConfig,
        store: ClipStore,
        seed: int,
        worker: Rank,
    ) -> None:
        self.network, self.config, self.store = network, config, store
        self.coder: Any = network
        self.seed, self.worker = seed, worker

    def batch(self, step: int, share: int = 0) -> Tensor:
        return autoencoder_batch(self.store, self.config, self.seed, step, share)

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        pixels = batch.to(self.worker.device)
        error = (self.coder.decode(self.coder.encode(pixels)) - pixels).float()
        loss = error.square().mean()
        return loss, {"psnr_db": -10 * torch.log10(loss.detach() / 4)}


def some_frames(store: ClipStore, count: int, seed: int) -> Tensor:
    """`count` unchanged frames (n, 3, R, R) in [-1, 1], spread evenly over the clips."""
    frames = []
    for index in range(count):
        rng = rng_for(seed, 0, index)
        clip = store.clips[index * len(store.clips) // count % len(store.clips)]
        frames.append(store.frames(clip.clip_id)[int(rng.integers(clip.num_frames))])
    return torch.stack([torch.from_numpy(PLAIN.apply(frame)) for frame in frames])


@torch.no_grad()
def coding_psnr(network: Any, pixels: Tensor, device: torch.device) -> float:
    """Peak signal-to-noise ratio in decibels of coded frames (n, 3, R, R), as 8-bit pictures."""
    total = 0.0
    for part in pixels.split(CHUNK):
        part = part.to(device)
        coded = network.decode(network.encode(part)).clamp(-1, 1)
        as_grey = [torch.round((each.double() + 1) * 127.5) for each in (coded, part)]
        total += float((as_grey[0] - as_grey[1]).square().sum())
    return 10 * math.log10(255**2 / max(1e-12, total / pixels.numel()))


def run(stage: StageContext) -> dict[str, float]:
    """Train the autoencoder and measure it on held-out clips.

    Returns:
        psnr_db, train_psnr_db, heldout_speakers.
    """
    recipe, worker = stage.recipe, stage.worker
    config = recipe.autoencoder
    if config is None:
        raise ValueError(f"the recipe {recipe.name} does not train an autoencoder")
    torch.manual_seed(stage.seed)
    model = recipe.model
    network = build_autoencoder(model.autoencoder, model.latent_channels, model.scaling_factor)
    network.to(worker.device)
    if config.compile:
        compile_blocks(network)
    store = stage.stores.train(recipe.resolution)
    objective = AutoencoderObjective(network, config, store, stage.seed, worker)
    train(objective, config, stage.run)
    held_out, speakers = stage.stores.held_out(recipe.resolution)
    seen = some_frames(store, config.test_frames, 0)
    quality = coding_psnr(network, some_frames(held_out, config.test_frames, 0), worker.device)
    if worker.leads:
        where = f"clips of {speakers} held-out speakers" if speakers else "TRAINING clips"
        stage.reporter.progress(f"{stage.name}: {quality:.1f} dB PSNR on {where}")
    return {
        "psnr_db": quality,
        "train_psnr_db": coding_psnr(network, seen, worker.device),
        "heldout_speakers": speakers,
    }
