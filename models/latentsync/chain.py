"""Windows painted one after the other, each shown a frame that was painted before it (SyncDiff's
generation, a variant that is ours).

Its whole state is the latents of the last few frames, so a chain can stop anywhere and go on.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch

from models.latentsync.model import LatentSync


class PoseChain:
    """The windows of one shot, or of several shots of equal length side by side.

    Args:
        model: its configuration has a pose.
        past: latents (b, c, r, r) of the frames painted last, oldest first, of a chain that is gone
            on with; empty at the beginning of a shot.
    """

    def __init__(self, model: LatentSync, past: Iterable[torch.Tensor] = ()) -> None:
        pose = model.config.pose
        if pose is None:
            raise ValueError("this model is shown no earlier frame: its windows overlap instead")
        self.model = model
        self._past = deque(past, maxlen=pose.lag)

    @property
    def past(self) -> list[torch.Tensor]:
        """What the chain can be gone on with."""
        return list(self._past)

    def paint(
        self, pixels: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor, **options: Any
    ) -> torch.Tensor:
        """Paint the next window; arguments and result are those of `LatentSync.generate`."""
        full = len(self._past) == self._past.maxlen
        made: list[torch.Tensor] = []

        def keep(done: int, steps: int, latents: torch.Tensor) -> None:
            if done == steps:
                made.append(latents)

        painted = self.model.generate(
            pixels,
            reference,
            tokens,
            pose=self._past[0] if full else None,
            on_step=keep,
            **options,
        )
        self._past.extend(made[-1].float().unbind(dim=2))
        return painted
