"""SyncNet of Chung & Zisserman ("Out of time", ACCV 2016): what Sync-C and Sync-D are by.

Keys and shapes of the weights are those of `syncnet_v2.model`. Only the first
convolution over the lips reaches over time, and exactly over the 5 frames of a window, so
all of them run as 2-D convolutions with time folded into the channels: the same numbers
at a fraction of the time of 3-D convolutions.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.checkpoint_files import load_weights, read_state_dict
from models.files import ModelFileError
from models.mel import Audio
from models.mfcc import mfcc

WINDOW_FRAMES = 5
WINDOW_STEPS = 20
"""MFCC steps per window: 5 frames at 25 fps are 0.2 s at 100 Hz."""
STEPS_PER_FRAME = 4
SAMPLES_PER_FRAME = 640
SIZE = 224
"""Height and width of the frames the network takes."""
EMBEDDING = 1024


class FoldedConv(nn.Conv3d):
    """A 3-D convolution whose kernel spans the whole time axis, done in 2-D.

    (b, c * t, h, w) -> (b, c', h', w').
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stride, padding = self.stride[1:], self.padding[1:]
        return F.conv2d(x, self.weight.flatten(1, 2), self.bias, stride, padding)


def _lip(
    cin: int, cout: int, kernel: tuple[int, int], stride: int, padding: int
) -> list[nn.Module]:
    time, space = kernel
    return [
        FoldedConv(cin, cout, (time, space, space), (1, stride, stride), (0, padding, padding)),
        nn.BatchNorm2d(cout),
        nn.ReLU(),
    ]


def _sound(cin: int, cout: int, kernel: int | tuple[int, int], padding: int) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, kernel, padding=padding), nn.BatchNorm2d(cout), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING)
    )


class SyncNet(nn.Module):
    """Two encoders whose outputs are close where lips and sound belong together."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_sound(1, 64, 3, 1),
            nn.Identity(),
            *_sound(64, 192, 3, 1),
            nn.MaxPool2d(3, stride=(1, 2)),
            *_sound(192, 384, 3, 1),
            *_sound(384, 256, 3, 1),
            *_sound(256, 256, 3, 1),
            nn.MaxPool2d(3, stride=2),
            *_sound(256, 512, (5, 4), 0),
        )
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = nn.Sequential(
            *_lip(3, 96, (WINDOW_FRAMES, 7), 2, 0),
            nn.MaxPool2d(3, stride=2),
            *_lip(96, 256, (1, 5), 2, 1),
            nn.MaxPool2d(3, stride=2, padding=1),
            *_lip(256, 256, (1, 3), 1, 1),
            *_lip(256, 256, (1, 3), 1, 1),
            *_lip(256, 256, (1, 3), 1, 1),
            nn.MaxPool2d(3, stride=2),
            *_lip(256, 512, (1, 6), 1, 0),
        )

    def forward_lip(self, frames: torch.Tensor) -> torch.Tensor:
        """(b, 3, 5, 224, 224), BGR in 0..255 -> (b, 1024)."""
        # Channels last: a third less time on CPUs, mostly in the pooling.
        folded = frames.flatten(1, 2).contiguous(memory_format=torch.channels_last)
        return self.netfclip(self.netcnnlip(folded).flatten(1))

    def forward_audio(self, steps: torch.Tensor) -> torch.Tensor:
        """(b, 1, 13, 20) MFCC -> (b, 1024)."""
        return self.netfcaud(self.netcnnaud(steps).flatten(1))


class _Convolutions:
    """One encoder's convolutions, made ready for many windows: the same numbers in 3/4 of the time.

    Norms are folded into the weights, and ReLU comes after the pooling, which it commutes with:
    passes over the largest maps cost more than half of their convolution.

    Args:
        layers: convolutions, each followed by its norm, ReLU and perhaps a pooling; in eval mode.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        self._steps: list[Any] = []
        step: Any = ()
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                conv: Any = layer
                weight = conv.weight.flatten(1, 2) if isinstance(conv, FoldedConv) else conv.weight
                step = (weight, conv.bias, conv.stride[-2:], conv.padding[-2:], [])
            elif isinstance(layer, nn.BatchNorm2d):
                norm: Any = (
                    layer.running_mean,
                    layer.running_var,
                    layer.eps,
                    layer.weight,
                    layer.bias,
                )
                weight, bias = fuse_conv_bn_weights(*step[:2], *norm)
                weight = weight.contiguous(memory_format=torch.channels_last)
                step = (weight, bias, *step[2:])
                self._steps.append(step)
            elif isinstance(layer, nn.MaxPool2d):
                step[-1].append(layer)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, c')."""
        x = x.contiguous(memory_format=torch.channels_last)
        for weight, bias, stride, padding, pools in self._steps:
            x = F.conv2d(x, weight, bias, stride, padding)
            for pool in pools:
                x = pool(x)
            x = F.relu_(x)
        return x.flatten(1)


def _at_once(device: torch.device) -> int:
    """Windows at a time: on processors so few that the largest maps, 4.5 MB each, stay in the
    cache and are not fetched from the system anew."""
    return 4 if device.type == "cpu" else 64


@torch.no_grad()
def clip_features(
    network: SyncNet, frames: torch.Tensor, wave: Audio, batch: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of every 5-frame window of a clip, one per frame.

    Args:
        network: in eval mode; its device is used.
        frames: (t, 3, h, w) RGB, uint8 or floating point in 0..255, at 25 fps.
        wave: (samples,) mono at 16 kHz from the first frame on.
        batch: windows at a time; memory grows with it, not with the clip. None: what is fast
            on the device.

    Returns:
        lips and sound, (n, 1024) each on the CPU, n = min(t, samples // 640) - 5 as in the
        published program.

    Raises:
        ValueError: the clip is too short for one window.
    """
    device = next(network.parameters()).device
    count = min(len(frames), len(wave) // SAMPLES_PER_FRAME) - WINDOW_FRAMES
    if count < 1:
        raise ValueError(
            f"SyncNet needs more than {WINDOW_FRAMES} frames with sound, got {len(frames)} "
            f"frames and {len(wave)} samples"
        )
    steps = mfcc(wave).to(device=device, dtype=torch.float32).T
    sound_windows = steps.unfold(1, WINDOW_STEPS, STEPS_PER_FRAME)[:, :count].transpose(0, 1)
    see, hear = _Convolutions(network.netcnnlip), _Convolutions(network.netcnnaud)
    batch = batch or _at_once(device)
    lips, sound = [], []
    for start in range(0, count, batch):
        stop = min(start + batch, count)
        part = frames[start : stop + WINDOW_FRAMES - 1].to(device=device, dtype=torch.float32)
        if part.shape[-2:] != (SIZE, SIZE):
            part = F.interpolate(part, (SIZE, SIZE), mode="bilinear", antialias=True)
        windows = part.flip(1).unfold(0, WINDOW_FRAMES, 1).movedim(-1, 2)
        lips.append(network.netfclip(see(windows.flatten(1, 2))).cpu())
        sound.append(network.netfcaud(hear(sound_windows[start:stop, None])).cpu())
    return torch.cat(lips), torch.cat(sound)


def load_syncnet(path: Path) -> SyncNet:
    """The network of `syncnet_v2.model`, in eval mode.

    Raises:
        ModelFileError: the file is not that.
    """
    with torch.device("meta"):
        network = SyncNet()
    weights = read_state_dict(path)
    if "netcnnlip.0.weight" not in weights:
        raise ModelFileError(
            f"model file {path} is no SyncNet: it has no netcnnlip.0.weight, expected the "
            "weights of syncnet_v2.model"
        )
    load_weights(network, weights, path)
    return network.eval()
