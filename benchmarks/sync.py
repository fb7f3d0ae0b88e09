"""How fast Sync-C and Sync-D of a whole clip are, as ratios to the plain loop over windows.

    python -m benchmarks.sync                    one clip of 100 frames, about a minute
    python -m benchmarks.sync --device cuda --frames 250

The plain loop is the published program's way: 3-D convolutions on one window of 5 frames and
one of 20 MFCC steps at a time, then for each frame the distances to 31 windows of sound.
"ours" is `ClipFeatures`: 2-D convolutions on batches of windows, then all distances at once.
Weights are random, which does not affect the time, and all ways must give the same three numbers.
Rounds are interleaved; the fastest of each counts.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.audio.mel import SAMPLES_PER_FRAME
from models.audio.mfcc import mfcc
from models.syncnet.distance import MAX_SHIFT, SyncDistance, sync_distance
from models.syncnet.syncnet_v2 import (
    SIZE,
    STEPS_PER_FRAME,
    WINDOW_FRAMES,
    WINDOW_STEPS,
    FoldedConv,
    SyncNet,
)
from models.syncnet.syncnet_v2_clips import ClipFeatures

SAME = 1e-3
"""Largest relative difference between the ways' numbers."""


class PlainLips(nn.Module):
    """The lip encoder in 3-D, as published."""

    def __init__(self, network: SyncNet) -> None:
        super().__init__()
        layers = [_in_3d(layer) for layer in network.netcnnlip]
        self.layers = nn.Sequential(*layers, nn.Flatten(), network.netfclip)

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        """(b, 3, 5, 224, 224) -> (b, 1024)."""
        found: torch.Tensor = self.layers(window)
        return found


def _in_3d(layer: Any) -> Any:
    if isinstance(layer, FoldedConv):
        kernel: Any = layer.kernel_size
        made = nn.Conv3d(layer.in_channels, layer.out_channels, kernel)
        made.stride, made.padding = layer.stride, layer.padding
        made.load_state_dict(layer.state_dict())
        return made
    if isinstance(layer, nn.BatchNorm2d):
        norm = nn.BatchNorm3d(layer.num_features)
        norm.load_state_dict(layer.state_dict())
        return norm
    if isinstance(layer, nn.MaxPool2d):
        kernel, step, edge = (int(str(n)) for n in (layer.kernel_size, layer.stride, layer.padding))
        return nn.MaxPool3d((1, kernel, kernel), (1, step, step), (0, edge, edge))
    return layer


@torch.no_grad()
def plain_loop(
    network: SyncNet, lips: PlainLips, frames: torch.Tensor, wave: np.ndarray, batch: int
) -> SyncDistance:
    """Sync-C and Sync-D, `batch` windows at a time (the published program takes 20)."""
    device = next(network.parameters()).device
    count = min(len(frames), len(wave) // SAMPLES_PER_FRAME) - WINDOW_FRAMES
    steps = mfcc(wave).to(device=device, dtype=torch.float32).T
    seen, heard = [], []
    for start in range(0, count, batch):
        part = range(start, min(start + batch, count))
        windows = [frames[i : i + WINDOW_FRAMES].flip(1).transpose(0, 1) for i in part]
        seen.append(lips(torch.stack(windows).float().to(device)).cpu())
        begins = [STEPS_PER_FRAME * i for i in part]
        sounds = [steps[None, :, begin : begin + WINDOW_STEPS] for begin in begins]
        heard.append(network.forward_audio(torch.stack(sounds)).cpu())
    vision, sound = torch.cat(seen), torch.cat(heard)
    padded = F.pad(sound, (0, 0, MAX_SHIFT, MAX_SHIFT))
    distances = []
    for i in range(count):
        around = padded[i : i + 2 * MAX_SHIFT + 1]
        distances.append(F.pairwise_distance(vision[[i]].repeat(len(around), 1), around))
    means = torch.stack(distances).mean(0)
    best, index = means.min(0)
    return SyncDistance(MAX_SHIFT - int(index), float(best), float(means.median() - best))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync", description=__doc__)
    parser.add_argument("--frames", type=int, default=100, help="length of the clip")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    network = SyncNet().eval().to(options.device)
    features = ClipFeatures(network)
    lips = PlainLips(copy.deepcopy(network)).eval().to(options.device)
    frames = torch.randint(0, 256, (options.frames, 3, SIZE, SIZE), dtype=torch.uint8)
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, options.frames * SAMPLES_PER_FRAME).astype(np.float32)
    ways: dict[str, Callable[[], SyncDistance]] = {
        "plain loop, one window at a time": lambda: plain_loop(network, lips, frames, wave, 1),
        "plain loop, 20 windows at a time": lambda: plain_loop(network, lips, frames, wave, 20),
        "ours": lambda: sync_distance(*features(frames, wave)),
    }
    seconds = dict.fromkeys(ways, float("inf"))
    found: dict[str, SyncDistance] = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            found[name] = way()
            seconds[name] = min(seconds[name], time.perf_counter() - begin)
    first = next(iter(found.values()))
    print(f"{options.frames} frames on {options.device}, {torch.get_num_threads()} threads")
    for name, each in found.items():
        print(
            f"{name:34s} {seconds[name]:8.3f} s {seconds[name] / seconds['ours']:6.2f}x ours   "
            f"offset {each.offset}, distance {each.distance:.5f}, confidence {each.confidence:.5f}"
        )
        same = np.allclose(
            (each.distance, each.confidence), (first.distance, first.confidence), SAME
        )
        if each.offset != first.offset or not same:
            print("the numbers differ: this is a defect")
            return 1
    ratio = next(iter(seconds.values())) / seconds["ours"]
    print(f"one window at a time takes {ratio:.2f} times as long as ours")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"seconds": seconds, "ratio": ratio}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
