"""SyncNet of Chung & Zisserman ("Out of time", ACCV 2016), which defines Sync-C and Sync-D.

Keys and shapes of the weights are those of `syncnet_v2.model`. Only the first
convolution over the lips reaches over time, and exactly over the 5 frames of a window, so
all of them run as 2-D convolutions with time folded into the channels: the same numbers
at a fraction of the time of 3-D convolutions.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from models.files.errors import ModelFileError
from models.files.state_dict import load_weights, read_state_dict

WINDOW_FRAMES = 5
WINDOW_STEPS = 20
"""MFCC steps per window: 5 frames at 25 fps are 0.2 s at 100 Hz."""
STEPS_PER_FRAME = 4
SIZE = 224
"""Height and width of the network's input frames."""
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


def load_syncnet(path: Path) -> SyncNet:
    """The network of `syncnet_v2.model`, in eval mode.

    Raises:
        ModelFileError: the file is not syncnet_v2.model.
    """
    with torch.device("meta"):
        network = SyncNet()
    weights = read_state_dict(path)
    if "netcnnlip.0.weight" not in weights:
        raise ModelFileError(
            f"model file {path} is not a SyncNet: it has no netcnnlip.0.weight, expected the "
            "weights of syncnet_v2.model"
        )
    load_weights(network, weights, path)
    return network.eval()
