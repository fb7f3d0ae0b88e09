"""Sync networks that look at whole clips: the distance of lips and sound at every shift.

`SyncNetV2` is syncnet_v2.model by Chung & Zisserman, whose numbers the papers report;
`WindowSyncNet` is a StableSyncNet, published or our own. Evaluation (`tasks.evaluate.judge`) and
the offset scorers of ingestion (`tasks.sync.scorers`) both read their curves from here.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from datasets.errors import UserError
from datasets.media import SAMPLES_PER_FRAME
from models.audio.mel import mel_spectrogram, mel_window, window_columns
from models.files.errors import ModelFileError
from models.syncnet.distance import mean_distances
from models.syncnet.loss import sync_accuracy
from models.syncnet.stable import Config, load_stable_syncnet, pixel_config
from models.syncnet.syncnet_v2 import WINDOW_FRAMES
from models.syncnet.syncnet_v2 import load_syncnet as load_syncnet_v2
from models.syncnet.syncnet_v2_clips import ClipFeatures
from tasks.sync.network_files import PAPER_THRESHOLD, load_syncnet
from tasks.sync.signals import ClipSignals, OffsetScore
from tasks.weights.bundle import ABOUT, read_bundle
from tasks.weights.by_name import weight_file
from tasks.weights.signing import check_folder

MAX_SHIFT = 15
STEP = 0.5
"""Frames; networks are asked at whole frames only."""
BATCH = 32
"""Windows of a clip that go through a network at once; memory grows with this number."""


@dataclass(frozen=True)
class SyncCurve:
    """What a search over shifts of the sound finds for one clip."""

    distances: np.ndarray
    """(31,) mean distance for the sound taken -15 to +15 frames later; NaN if the clip is
    too short for the search."""
    in_sync_share: float = math.nan
    """Share of windows that the network calls in sync; NaN if it gives no such verdict."""
    accuracy: float = math.nan
    """Share of windows that it judges correctly, half of them with their own sound and half with
    that of another part of the clip; NaN if it gives no verdict or the clip is too short."""

    @property
    def offset(self) -> float:
        """Frames at 25 fps by which the audio is late, as in the ledger; the published program
        has the opposite sign."""
        if np.isnan(self.distances).any():
            return float("nan")
        return float(np.argmin(self.distances)) - MAX_SHIFT

    @property
    def distance(self) -> float:
        """Sync-D: the smallest mean distance."""
        return float(self.distances.min())

    @property
    def confidence(self) -> float:
        """Sync-C: the median over the shifts minus the minimum."""
        return float(np.median(self.distances) - self.distances.min())


NO_CURVE = SyncCurve(np.full(2 * MAX_SHIFT + 1, np.nan))


class SyncNetwork(Protocol):
    """A sync network that looks at whole clips."""

    label: str
    """Label that names the network."""
    min_frames: int
    """Frames at 25 fps below which a clip is too short for the search."""

    def curve(self, frames: np.ndarray, audio: np.ndarray) -> SyncCurve:
        """Search a clip: aligned faces uint8 (t, R, R, 3) and sound float32 (samples,) at 16
        kHz."""
        ...


class SyncNetV2:
    """Chung & Zisserman's SyncNet.

    Args:
        weights: syncnet_v2.model.
        device: device to run on.

    Raises:
        ModelFileError: the file is not syncnet_v2.model.
    """

    # The published program crops by its own detector, wider than the aligned face.
    label = "syncnet_v2 on aligned crops"

    def __init__(self, weights: Path, device: torch.device) -> None:
        self.min_frames = MAX_SHIFT + WINDOW_FRAMES + 1
        self._features = ClipFeatures(load_syncnet_v2(weights).to(device))

    def curve(self, frames: np.ndarray, audio: np.ndarray) -> SyncCurve:
        """Outside the clip the sound's features are zero, as in the published program."""

        if min(len(frames), len(audio) // SAMPLES_PER_FRAME) < self.min_frames:
            return NO_CURVE
        pixels = _as_tensor(frames)
        lips, sound = self._features(pixels, torch.tensor(audio))
        return SyncCurve(mean_distances(lips, sound, MAX_SHIFT).numpy())


class WindowSyncNet:
    """A network of the StableSyncNet kind: windows of lower face halves against their mel.

    Args:
        network: (b, frames, 3, h/2, w) in [-1, 1] and (b, 1, 80, columns) -> unit vectors.
        num_frames: frames per window.
        columns: mel columns per window.
        resolution: side to which faces are scaled before their lower half is cut.
        threshold: cosine above which a window counts as in sync.
        label: names the network.
        device: device to run on.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        num_frames: int,
        columns: int,
        resolution: int,
        threshold: float,
        label: str,
        device: torch.device,
    ) -> None:
        self.network = network.to(device).eval()
        self.num_frames, self.columns, self.resolution = num_frames, columns, resolution
        self.threshold, self.label, self.device = threshold, label, device
        self.min_frames = MAX_SHIFT + num_frames

    @torch.inference_mode()
    def curve(self, frames: np.ndarray, audio: np.ndarray) -> SyncCurve:
        """Mean distance over the windows that have a partner at each shift."""

        length = min(len(frames), len(audio) // SAMPLES_PER_FRAME)
        if length < self.min_frames:
            return NO_CURVE
        count = length - self.num_frames + 1
        half = self._lower_halves(frames)
        mel = mel_spectrogram(torch.tensor(audio))
        vision, sound = [], []
        for start in range(0, count, BATCH):
            firsts = range(start, min(start + BATCH, count))
            windows = torch.stack([half[first : first + self.num_frames] for first in firsts])
            columns = torch.stack([mel_window(mel, first, self.columns) for first in firsts])
            pair = self.network(windows, columns[:, None].to(self.device))
            vision.append(pair[0].float().cpu())
            sound.append(pair[1].float().cpu())
        seen, heard = torch.cat(vision), torch.cat(sound)
        together = F.cosine_similarity(seen, heard) > self.threshold
        return SyncCurve(
            _distances(seen, heard),
            float(together.float().mean()),
            _accuracy(seen, heard, self.num_frames, self.threshold),
        )

    def _lower_halves(self, frames: np.ndarray) -> torch.Tensor:
        """(t, 3, h/2, w) in [-1, 1] at the network's resolution, on its device."""
        side = self.resolution
        pixels = _as_tensor(frames).to(self.device).float()
        if pixels.shape[-1] != side:
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        return pixels[:, :, side // 2 :] / 127.5 - 1


def _as_tensor(frames: np.ndarray) -> torch.Tensor:
    """uint8 (t, h, w, 3) -> (t, 3, h, w); a copy, since torch warns about read-only arrays."""
    return torch.tensor(frames).permute(0, 3, 1, 2)


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


def _accuracy(seen: torch.Tensor, heard: torch.Tensor, apart: int, threshold: float) -> float:
    """Share of pairs on the right side of the threshold (LatentSync, section 3.3).

    Every window is paired with its own sound and with that of a window half a clip away, so
    that each clip has one outcome; windows without another at least `apart` frames away are left
    out.
    """
    count = len(seen)
    away = max(apart, count // 2)
    first = torch.arange(count)
    other = torch.where(first + away < count, first + away, first - away)
    first, other = first[other >= 0], other[other >= 0]
    if not len(first):
        return math.nan
    cosine = [F.cosine_similarity(seen[first], heard[index]) for index in (first, other)]
    labels = torch.cat([torch.ones(len(first)), torch.zeros(len(first))])
    return sync_accuracy(torch.cat(cosine), labels, threshold)


def load_third_party_syncnet(weights: str, device: torch.device) -> SyncNetV2:
    """Load syncnet_v2.model from a path or a name in the weights table.

    Raises:
        UserError: there is no such file.
        ModelFileError: it is damaged or for another network.
    """

    return SyncNetV2(weight_file(weights), device)


def load_own_syncnet(folder: Path, device: torch.device) -> WindowSyncNet:
    """Load what `tasks.sync.network_files.save_syncnet` wrote.

    Raises:
        ModelFileError: a file is missing, damaged or for another network, or it is in a bundle
            with a crop different from this release's, or one that is not signed although
            signatures are asked for.
    """

    if (folder.parent / ABOUT).is_file():
        read_bundle(folder.parent)
        check_folder(folder.parent)
    loaded = load_syncnet(folder, device)
    return WindowSyncNet(
        loaded.network,
        num_frames=loaded.config.num_frames,
        columns=window_columns(loaded.config.num_frames),
        resolution=loaded.config.resolution,
        threshold=loaded.threshold,
        label=f"the bundle's own {type(loaded.network).__name__} (not syncnet_v2)",
        device=device,
    )


def load_window_syncnet(weights: str, device: torch.device) -> WindowSyncNet:
    """Load a StableSyncNet, or the sync network that a bundle has in its place.

    Args:
        weights: a bundle, its `syncnet` folder, a folder that `python -m models.convert` made
            from a published checkpoint, such a checkpoint, or a name in the weights table.
        device: where it runs.

    Raises:
        UserError: nothing has that name.
        ModelFileError: it is damaged, for another network, or from a bundle with a
            crop different from this release's.
    """

    if not weights:
        raise UserError(
            "the scorer stable-syncnet needs a network: give a trained bundle, a checkpoint "
            "stable_syncnet.pt, or latentsync-1.5-syncnet from the weights table"
        )
    path = Path(weights).expanduser()
    if not path.is_dir():
        return _load_stable(weight_file(weights), None, device)
    if (path / "syncnet").is_dir():
        return load_own_syncnet(path / "syncnet", device)
    config = _read_converted_config(path)
    if config is None:
        return load_own_syncnet(path, device)
    return _load_stable(path / "model.safetensors", config, device)


def _read_converted_config(folder: Path) -> Config | None:
    """The network's configuration in a folder that `models.convert.command` made."""
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{folder} does not hold a sync network: config.json {error}"
        ) from error
    if not isinstance(about, dict):
        raise ModelFileError(
            f"{folder} does not hold a sync network: config.json is not a JSON object"
        )
    if about.pop("kind", None) != "stable_syncnet":
        return None
    return cast(Config, about)


def _load_stable(path: Path, config: Config | None, device: torch.device) -> WindowSyncNet:
    channels = (config or pixel_config())["visual_encoder"]["in_channels"]
    if not isinstance(channels, int) or channels not in (48, 75):
        raise ModelFileError(
            f"model file {path} looks at {channels} channels: the scorer takes networks that "
            "see 16 or 25 RGB frames, not latents"
        )
    num_frames = channels // 3
    return WindowSyncNet(
        load_stable_syncnet(path, config),
        num_frames=num_frames,
        columns=window_columns(num_frames),
        resolution=256,
        threshold=PAPER_THRESHOLD,
        label=f"StableSyncNet of {path.name}",
        device=device,
    )


class NetworkScorer:
    """The offset found by a sync network: an `OffsetScorer` that needs the aligned faces.

    Args:
        name: name of the scorer.
        min_confidence: its default threshold.
        network: the network whose curve is searched.
    """

    needs_frames = True

    def __init__(self, name: str, min_confidence: float, network: SyncNetwork) -> None:
        self.name, self.min_confidence, self.network = name, min_confidence, network

    def score(self, clips: Sequence[ClipSignals]) -> list[OffsetScore]:
        """Offset, Sync-C and Sync-D of each clip.

        Raises:
            ValueError: a clip has no faces.
        """
        return [self._score(clip) for clip in clips]

    def _score(self, clip: ClipSignals) -> OffsetScore:
        if clip.frames is None:
            raise ValueError(f"the scorer {self.name} needs the aligned faces of a clip")
        curve = self.network.curve(clip.frames, clip.audio)
        if np.isnan(curve.offset):
            return OffsetScore(0.0, 0.0)
        return OffsetScore(
            curve.offset,
            curve.confidence,
            curve.distance,
            uncertainty=STEP,
            curve=np.median(curve.distances) - curve.distances,
        )
