"""What of an earlier frame reaches the U-Net: the pose frame through a bottleneck (SyncDiff, arXiv
2503.13371).

The paper shows the network the frame before, so that the head moves smoothly, through a layer that
compresses it, so that the lips cannot simply be copied. Its form and width are not public: these
are ours. `python -m benchmarks.shortcut` measures which of them let lips be copied.
"""

import torch
from torch import nn
from torch.nn import functional as F

POSES = ("none", "full", "channel", "vector", "outside")
"""What passes: nothing; the latents as they are; a few channels of them; a few numbers per frame;
the latents outside the repainted part, so no lips at all."""
POOLED = 4
"""Side to which latents are pooled before they become a vector."""
HIDDEN = 64
"""Width of the layer between pooled latents and vector."""


def pose_channels(kind: str, width: int, channels: int) -> int:
    """Input channels of the U-Net that a bottleneck gives.

    Args:
        kind: one of `POSES`.
        width: channels of `channel`, numbers of `vector`; the others have none of their own.
        channels: of the latents.

    Raises:
        ValueError: the kind is unknown, or the width is not positive where one is needed.
    """
    if kind not in POSES:
        raise ValueError(f"unknown pose {kind!r}, expected one of {POSES}")
    if kind in ("channel", "vector"):
        if width < 1:
            raise ValueError(f"a pose of kind {kind!r} needs a width of at least 1, got {width}")
        return width
    return 0 if kind == "none" else channels


class PoseBottleneck(nn.Module):
    """Compresses the latents of an earlier frame.

    A vector becomes constant maps, one for each number: the input convolution's weights for them
    are the linear layer back.

    Args:
        kind: one of `POSES` but "none".
        width: as in `pose_channels`.
        channels: of the latents.
    """

    def __init__(self, kind: str, width: int, channels: int) -> None:
        super().__init__()
        self.kind = kind
        self.channels = pose_channels(kind, width, channels)
        layers: list[nn.Module] = []
        if kind == "channel":
            layers = [nn.Conv2d(channels, width, 1)]
        elif kind == "vector":
            layers = [
                nn.AdaptiveAvgPool2d(POOLED),
                nn.Flatten(),
                nn.Linear(channels * POOLED**2, HIDDEN),
                nn.SiLU(),
                nn.Linear(HIDDEN, width),
                nn.Tanh(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, pose: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """What the U-Net is shown.

        Args:
            pose: latents (n, c, h, w).
            keep: (n, 1, h, w), 1 where the picture is kept.

        Returns:
            (n, `channels`, h, w).
        """
        if self.kind == "outside":
            return pose * (keep == 1)
        passed = self.layers(pose)
        if self.kind == "vector":
            passed = passed[..., None, None].expand(-1, -1, *pose.shape[-2:])
        return passed


def add_inputs(conv: nn.Conv2d, count: int) -> None:
    """Give a convolution further input channels, last and with weights of zero: what it returns
    does not depend on them until they are trained."""
    weight = conv.weight
    more = torch.zeros_like(weight[:, :1]).expand(-1, count, -1, -1)
    conv.weight = nn.Parameter(torch.cat([weight.detach(), more], dim=1))
    conv.in_channels += count


def convolve_apart(conv: nn.Conv2d, first: torch.Tensor, further: torch.Tensor) -> torch.Tensor:
    """A convolution of inputs side by side, as a sum of one over each part.

    With weights of zero for the further inputs it is the first part's to the last bit, which a
    sum over all channels at once need not be.
    """
    count = first.shape[1]
    parts = _columns(conv.weight, 0, count), _columns(conv.weight, count, conv.in_channels)
    return F.conv2d(first, parts[0], conv.bias, padding=conv.padding) + F.conv2d(
        further,
        parts[1],
        padding=conv.padding,
    )


def _columns(weight: torch.Tensor, first: int, stop: int) -> torch.Tensor:
    """Some input channels of a convolution's weight, in the memory order of the whole."""
    last = weight.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    return weight[:, first:stop].contiguous(memory_format=order)
