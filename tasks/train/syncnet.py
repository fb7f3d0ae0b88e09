"""Training the sync network, and measuring it on speakers it has never seen.

LatentSync's section 3.3: binary cross-entropy on the cosine of two embeddings, positives
and negatives from the same clip. `FrameSyncNet` learns within minutes on a CPU;
`StableSyncNet` is the paper's. Both go through this file.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from datasets.shards.clips import ClipStore
from models.files.state_dict import load_weights, read_state_dict
from models.syncnet.loss import calibrate_threshold, cosine_loss, sync_accuracy
from tasks.recipes.config import SyncNetConfig
from tasks.sync.network_files import PAPER_THRESHOLD, build_syncnet
from tasks.train.assemble import load_autoencoder
from tasks.train.batches import SyncBatch, SyncWindows, sync_batch
from tasks.train.compiled import compile_blocks
from tasks.train.context import StageContext
from tasks.train.cutters import SyncCutter
from tasks.train.flat import FlatLoss, flat_note
from tasks.train.loop import train
from tasks.train.objective import Objective, Rank
from tasks.train.stream import Batches
from tasks.weights.by_name import weight_file

CURVE_WINDOWS = 128
"""Held-out windows per point of the curve."""


@dataclass(frozen=True)
class SyncScores:
    """How well a sync network separates pairs."""

    accuracy: float
    """Share of pairs on the right side of the threshold."""
    loss: float
    """Mean binary cross-entropy; ln 2 = 0.693 is chance."""


class SyncObjective(Objective):
    """Cosine loss of windows with their own and with other sound."""

    score = "heldout_loss"

    def __init__(
        self,
        network: nn.Module,
        config: SyncNetConfig,
        store: ClipStore,
        held_out: ClipStore,
        seed: int,
        worker: Rank,
        stream: Callable[[int, int], Batches] | None = None,
        judge: nn.Module | None = None,
    ) -> None:
        self.network = network
        self.judge = network if judge is None else judge
        """What computes: `network`, or a whole of which that is the part that learns."""
        self.config, self.store, self.held_out = config, store, held_out
        self.seed, self.worker, self.stream = seed, worker, stream
        self.measure_every = config.test_every
        self.is_flat = FlatLoss()

    def batch(self, step: int, share: int = 0) -> SyncWindows:
        return sync_batch(self.store, self.config, self.seed, step, share)

    def streamed(self, step: int, share: int = 0) -> Batches | None:
        return self.stream(step, share) if self.stream else None

    def loss(self, batch: SyncWindows) -> tuple[Tensor, dict[str, Tensor]]:
        return pairs_loss(self.judge, batch.to(self.worker.device))[0], {}

    def notice(self, step: int, loss: float, since: int) -> str:
        if not self.is_flat(step, loss, since):
            return ""
        return flat_note(self.store, self.config, self.worker.all_shares)

    def measure(self) -> dict[str, float]:
        cosine, labels = similarities(
            self.judge, self.held_out, self.config, CURVE_WINDOWS, self.worker.device
        )
        threshold = PAPER_THRESHOLD
        if self.config.calibrate:
            threshold = calibrate_threshold(
                *similarities(
                    self.judge, self.store, self.config, CURVE_WINDOWS, self.worker.device
                )
            )
        scores = _scores(cosine, labels, threshold)
        return {"heldout_accuracy": scores.accuracy, "heldout_loss": scores.loss}


class LatentSight(nn.Module):
    """A sync network for latents that is shown pictures.

    Args:
        autoencoder: frozen.
        network: takes (b, f, c, r, r).
    """

    def __init__(self, autoencoder: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.autoencoder, self.network = autoencoder, network

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (b, d) of faces (b, f, 3, R, R) in [-1, 1] and of their sound."""
        coder: Any = self.autoencoder.eval()
        with torch.no_grad():
            latents = coder.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        found: tuple[Tensor, Tensor] = self.network(latents, mel)
        return found


def pairs_loss(network: nn.Module, batch: SyncBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of a batch, and its embeddings of faces and of sounds, (b, d) each."""
    vision, audio = network(batch.frames, batch.mel)
    return cosine_loss(vision, audio, batch.labels), vision, audio


@torch.no_grad()
def similarities(
    network: nn.Module,
    store: ClipStore,
    config: SyncNetConfig,
    windows: int,
    device: torch.device,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Cosines (n,) and labels (n,) of unchanged windows of a dataset, half of them in sync."""
    plain = replace(
        config, augment=0.0, shift=0.0, time_warp=0.0, sound_augment=0.0, windows_per_clip=4,
        batch_size=min(windows, 32),
    )  # fmt: skip
    network.eval()
    cosines, labels = [], []
    for step in range(-(-windows // plain.batch_size)):
        batch = sync_batch(store, plain, seed, step).to(device)
        vision, audio = network(batch.frames, batch.mel)
        cosines.append(nn.functional.cosine_similarity(vision.float(), audio.float()).cpu())
        labels.append(batch.labels.cpu())
    return torch.cat(cosines)[:windows], torch.cat(labels)[:windows]


def _scores(cosine: Tensor, labels: Tensor, threshold: float) -> SyncScores:
    loss = nn.functional.binary_cross_entropy(cosine.clamp(0, 1), labels)
    return SyncScores(sync_accuracy(cosine, labels, threshold), float(loss))


def run(stage: StageContext) -> dict[str, float]:
    """Train the recipe's sync network and measure it on held-out speakers.

    Returns:
        accuracy, loss, threshold, train_accuracy, heldout_speakers.
    """
    config = stage.recipe.stage(stage.name)
    assert isinstance(config, SyncNetConfig)
    worker = stage.worker
    torch.manual_seed(stage.seed)
    network = build_syncnet(config.network, config.options)
    if config.weights:
        _load_third_party(network, config.weights)
    network.to(worker.device)
    if config.compile:
        compile_blocks(network)
    store = stage.stores.train(config.resolution)
    held_out, speakers = stage.stores.held_out(config.resolution)
    stream = stage.stream(SyncCutter(config), config, config.resolution)
    judge = network
    if config.sees == "latents":
        autoencoder = load_autoencoder(stage.recipe, stage.output, worker.device)
        judge = LatentSight(autoencoder, network)
    objective = SyncObjective(network, config, store, held_out, stage.seed, worker, stream, judge)
    train(objective, config, stage.run)
    seen = similarities(judge, store, config, config.test_windows, worker.device)
    threshold = calibrate_threshold(*seen) if config.calibrate else PAPER_THRESHOLD
    unseen = similarities(judge, held_out, config, config.test_windows, worker.device, seed=1)
    scores = _scores(*unseen, threshold)
    if worker.leads:
        where = f"{speakers} held-out speakers" if speakers else "TRAINING clips (none held out)"
        stage.reporter.progress(
            f"{stage.name}: accuracy {scores.accuracy:.3f}, loss {scores.loss:.3f} on {where}, "
            f"cosine threshold {threshold:.3f}"
        )
    return {
        "accuracy": scores.accuracy,
        "loss": scores.loss,
        "threshold": threshold,
        "train_accuracy": _scores(*seen, threshold).accuracy,
        "heldout_speakers": speakers,
    }


def _load_third_party(network: nn.Module, weights: str) -> None:
    path = weight_file(weights)
    load_weights(network, read_state_dict(path), path)
