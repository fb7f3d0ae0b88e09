"""Pictures as they travel to the device: a byte per value, and the change of colours beside them.

Converting them on the device costs the processor nothing, and a quarter of the bytes is moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.train.augment import Colours


@dataclass(frozen=True)
class Pictures:
    """Frames of windows, each window with its own colours."""

    grey: Tensor
    """uint8 (b, f, h, w, 3)."""
    channels: Tensor
    """int64 (b, 3): which stored channel each channel of the result shows."""
    curves: Tensor
    """float32 (b, 3, 256): values in [-1, 1] of the stored levels."""

    @classmethod
    def of(cls, windows: Sequence[NDArray[np.uint8]], colours: Sequence[Colours]) -> "Pictures":
        """Windows (f, h, w, 3) together."""
        return cls(
            torch.from_numpy(np.stack(windows)),
            torch.tensor([each.channels for each in colours]),
            torch.from_numpy(np.stack([each.curves for each in colours])),
        )

    def __len__(self) -> int:
        return len(self.grey)

    def part(self, start: int, stop: int) -> "Pictures":
        """The windows from `start` to before `stop`."""
        parts = (each[start:stop] for each in (self.grey, self.channels, self.curves))
        return Pictures(*parts)

    def pin_memory(self) -> "Pictures":
        """A copy in memory that a GPU reads directly."""
        pinned = (each.pin_memory() for each in (self.grey, self.channels, self.curves))
        return Pictures(*pinned)

    def to(self, device: torch.device) -> Tensor:
        """(b, f, 3, h, w) float32 in [-1, 1] on a device."""
        grey = self.grey.to(device, non_blocking=True)
        curves = self.curves.to(device, non_blocking=True)
        batch, frames, height, width, _ = grey.shape
        pixels = torch.empty((batch, frames, 3, height, width), device=device)
        for window, order in enumerate(self.channels.tolist()):
            for channel, stored in enumerate(order):
                # One plane at a time: indices are eight times as large as what they choose from.
                levels = grey[window, ..., stored].long()
                pixels[window, :, channel] = curves[window, channel][levels]
        return pixels
