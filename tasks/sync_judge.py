"""Sync-C, Sync-D and offset of generated faces, by whichever sync network is at hand.

The published numbers are by syncnet_v2.model. Without it the bundle's own sync network
judges: the same search over +-15 frames, but distances of other embeddings, so such
numbers only compare with each other, and their label says whose they are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F

from datasets.media import SAMPLES_PER_FRAME

MAX_SHIFT = 15
BATCH = 64


@dataclass(frozen=True)
class SyncCurve:
    """What a search over shifts of the sound finds for one clip."""

    distances: np.ndarray
    """(31,) mean distance for the sound taken -15 to +15 frames later; NaN when the clip is
    too short for the search."""
    agreement: float
    """Share of windows that the network calls in sync; NaN where it has no such verdict."""

    @property
    def offset(self) -> float:
        """Frames at 25 fps by which the audio is late, as in the ledger."""
        if np.isnan(self.distances).any():
            return float("nan")
        return float(np.argmin(self.distances)) - MAX_SHIFT

    @property
    def distance(self) -> float:
        """Sync-D."""
        return float(self.distances.min())

    @property
    def confidence(self) -> float:
        """Sync-C."""
        return float(np.median(self.distances) - self.distances.min())


class SyncJudge(Protocol):
    """A sync network that looks at whole clips."""

    label: str
    """Whose numbers these are."""

    def curve(self, frames: np.ndarray, audio: np.ndarray) -> SyncCurve:
        """Aligned faces uint8 (t, R, R, 3) and float32 (samples,) at 16 kHz."""
        ...


class SyncNetJudge:
    """Chung & Zisserman's SyncNet, whose numbers the papers give."""

    label = "syncnet_v2"

    def __init__(self, weights: Path, device: torch.device) -> None:
        from models.syncnet import load_syncnet

        self.network = load_syncnet(weights).to(device)

    def curve(self, frames: np.ndarray, audio: np.ndarray) -> SyncCurve:
        from models.sync_distance import mean_distances
        from models.syncnet import WINDOW_FRAMES, clip_features

        if min(len(frames), len(audio) // SAMPLES_PER_FRAME) <= MAX_SHIFT + WINDOW_FRAMES:
            return SyncCurve(np.full(2 * MAX_SHIFT + 1, np.nan), float("nan"))
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        lips, sound = clip_features(self.network, pixels, torch.from_numpy(audio))
        return SyncCurve(mean_distances(lips, sound, MAX_SHIFT).numpy(), float("nan"))


class BundleJudge:
    """The sync network that was trained with the model."""

    def __init__(self, bundle: Path, device: torch.device) -> None:
        from tasks.train_syncnet import load_syncnet

        self.loaded = load_syncnet(bundle / "syncnet", device)
        self.device = device
        self.label = f"the bundle's own {type(self.loaded.network).__name__} (not syncnet_v2)"

    @torch.inference_mode()
    def curve(self, frames: np.ndarray, audio: np.ndarray) -> SyncCurve:
        from models.mel import mel_spectrogram, mel_window

        config = self.loaded.config
        count = min(len(frames), len(audio) // SAMPLES_PER_FRAME) - config.num_frames + 1
        if count <= MAX_SHIFT:
            return SyncCurve(np.full(2 * MAX_SHIFT + 1, np.nan), float("nan"))
        half = self._lower_halves(frames)
        mel = mel_spectrogram(torch.from_numpy(audio))
        vision, sound = [], []
        for start in range(0, count, BATCH):
            firsts = range(start, min(start + BATCH, count))
            windows = torch.stack([half[first : first + config.num_frames] for first in firsts])
            columns = torch.stack([mel_window(mel, first) for first in firsts])
            pair = self.loaded.network(windows.to(self.device), columns[:, None].to(self.device))
            vision.append(pair[0].float().cpu())
            sound.append(pair[1].float().cpu())
        seen, heard = torch.cat(vision), torch.cat(sound)
        together = F.cosine_similarity(seen, heard) > self.loaded.threshold
        return SyncCurve(_distances(seen, heard), float(together.float().mean()))

    def _lower_halves(self, frames: np.ndarray) -> torch.Tensor:
        """(t, 3, h/2, w) in [-1, 1] at the network's resolution."""
        side = self.loaded.config.resolution
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
        if pixels.shape[-1] != side:
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        return pixels[:, :, side // 2 :] / 127.5 - 1


def _distances(seen: torch.Tensor, heard: torch.Tensor) -> np.ndarray:
    """Mean distance for each shift, over the windows that have a partner at that shift.

    The published program pads with zeros instead, whose distance to a unit vector is a
    constant that would blur the curve of a short clip.
    """
    count = len(seen)
    means = []
    for shift in range(-MAX_SHIFT, MAX_SHIFT + 1):
        first, last = max(0, -shift), min(count, count - shift)
        pairs = F.pairwise_distance(seen[first:last], heard[first + shift : last + shift])
        means.append(float(pairs.mean()))
    return np.array(means)


def sync_judge(weights: str, bundle: Path, device: torch.device) -> SyncJudge:
    """syncnet_v2 where its file is given, else the bundle's own network.

    Raises:
        UserError: the file is not there.
        ModelFileError: it is damaged or of another network.
    """
    if not weights:
        return BundleJudge(bundle, device)
    from tasks.published import weight_file

    return SyncNetJudge(weight_file(weights), device)
