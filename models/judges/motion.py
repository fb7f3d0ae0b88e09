"""Features that see motion: FVD's hardly change when the frames of a video are shuffled.

cd-FVD (arXiv 2404.12391) is the Frechet distance of features of VideoMAE-v2, the network that TREPA
compares with. JEDi (arXiv 2410.05203) shows that a polynomial kernel tells sets of videos apart
from far fewer of them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from models.judges.extractors import Batched, FeatureExtractor
from models.judges.frechet import GaussianStatistics
from models.judges.videomae import VideoMAE, VideoMAEConfig, load_videomae

SMALL = VideoMAEConfig(
    img_size=64, patch_size=16, embed_dim=48, depth=2, num_heads=4, mlp_ratio=2.0
)
"""Of the stand-in, and"""
GAIN = 2.0
"""how much its layers amplify."""


class VideoMAEFeatures(Batched):
    """A VideoMAE, fed with windows of 16 frames in [0, 1] at its own size."""

    dims = 5

    def __init__(self, network: VideoMAE, name: str, label: str, device: torch.device) -> None:
        super().__init__(name, label, network.dim, device, batch=4)
        self.network = network.to(device)

    def features(self, part: torch.Tensor) -> torch.Tensor:
        frames = part.transpose(1, 2).float() / 255
        count, length = frames.shape[:2]
        size = (self.network.config.img_size,) * 2
        resized = F.interpolate(frames.flatten(0, 1), size, mode="bilinear", align_corners=False)
        return self.network.features(resized.unflatten(0, (count, length)).transpose(1, 2))


def motion_extractor(path: Path | None, device: torch.device) -> FeatureExtractor:
    """VideoMAE from a file, or a small seeded one when `path` is None.

    Raises:
        ModelFileError: the file is damaged, or is another network.
    """
    if path is not None:
        return VideoMAEFeatures(load_videomae(path), "videomae", f"VideoMAE {path.stem}", device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = VideoMAE(SMALL)
        _strengthen(network)
    label = "seeded-videomae (not the official weights)"
    return VideoMAEFeatures(network, "seeded-videomae", label, device)


@torch.no_grad()
def _strengthen(network: torch.nn.Module) -> None:
    """Draw weights with which a network that has learned nothing tells one moment from another:
    those to begin a training with make all tokens nearly alike."""
    for part in network.modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Conv3d):
            fan_in = part.weight[0].numel()
            part.weight.normal_(std=GAIN / fan_in**0.5)


def polynomial_mmd(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """Squared maximum mean discrepancy of two sets with the kernel (x y / d)^2, times 100, as
    published for JEDi.

    For this kernel it is the squared distance of the second moments, so it needs no pairs, and
    statistics of parts can be merged.

    Raises:
        ValueError: the dimensions differ or a set is empty.
    """
    if a.dim != b.dim or not a.count or not b.count:
        raise ValueError(
            f"sets of {a.count} and {b.count} samples of {a.dim} and {b.dim} dimensions cannot be "
            "compared"
        )
    difference: Any = a.second_moment - b.second_moment
    return float(100 * np.square(difference / a.dim).sum())
