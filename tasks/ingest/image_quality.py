"""How good a clip's picture looks, by HyperIQA, if its weights are available.

The reference pipeline keeps clips of 40 or more (LatentSync, section 4.1). Without the weights
nothing is measured and the ledger's `quality` stays NaN; no other score replaces it.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from datasets.errors import UserError
from models.judges.hyperiqa import HyperIQA, load_hyperiqa
from tasks.weights.by_name import weight_file

WEIGHTS = "hyperiqa"
"""Name in the weights table."""
FRAMES_PER_CLIP = 5
"""Frames judged per clip, evenly spread: quality hardly changes within a track."""
BATCH = 32


class QualityScorer(Protocol):
    """Judges the pictures of clips."""

    name: str

    def score(self, clips: Sequence[np.ndarray]) -> list[float]:
        """One score per clip of aligned faces, uint8 (t, R, R, 3); NaN for one without frames."""
        ...


class HyperIQAScorer:
    """HyperIQA's score, 0 to 100, mean over some frames of each clip.

    Args:
        network: the network in eval mode, on its device.
    """

    name = WEIGHTS

    def __init__(self, network: HyperIQA) -> None:
        self.network = network

    def score(self, clips: Sequence[np.ndarray]) -> list[float]:
        """Score clips of any lengths and sizes; their frames go through the network together."""
        frames: list[np.ndarray] = []
        owner: list[int] = []
        for index, clip in enumerate(clips):
            for at in choose_frames(len(clip)):
                frames.append(clip[at])
                owner.append(index)
        values = np.full(len(frames), np.nan)
        for size in {frame.shape for frame in frames}:
            same = [at for at, frame in enumerate(frames) if frame.shape == size]
            for begin in range(0, len(same), BATCH):
                part = same[begin : begin + BATCH]
                values[part] = self.network.score(np.stack([frames[at] for at in part]))
        owners = np.array(owner, int)
        return [
            float(values[owners == index].mean()) if len(clip) else float("nan")
            for index, clip in enumerate(clips)
        ]


def choose_frames(count: int) -> list[int]:
    """Indices of the frames of a clip to judge: the middles of equal parts."""
    parts = min(FRAMES_PER_CLIP, count)
    return [int((part + 0.5) * count / parts) for part in range(parts)]


def get_quality_scorer(weights: str = "", device: str = "cpu") -> QualityScorer | None:
    """HyperIQA, or None if its weights are not in the weights folder and none are named.

    Args:
        weights: koniq_pretrained.pkl or a name in the weights table; empty: the table's, if it
            has been fetched.
        device: cpu, cuda or mps.

    Raises:
        UserError: weights are named but missing.
        ModelFileError: they are damaged or belong to another network.
    """

    try:
        path = weight_file(weights or WEIGHTS)
    except UserError:
        if weights:
            raise
        return None
    return HyperIQAScorer(load_hyperiqa(path).to(torch.device(device)))
