"""Deep features that a sampler uses again (DeepCache, arXiv 2312.00858).

From one step of a sampler to the next, what a U-Net's deep layers give changes little. Between two
whole passes only its first convolution, its last layer and its last convolution run, on the deep
features of the latest whole pass.
"""

import torch


class DeepFeatures:
    """The deep features of one window's sampler.

    Args:
        every: every how manieth step is a whole pass; 1: all.

    Raises:
        ValueError: it is less than 1.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.every = every
        self.kept: torch.Tensor | None = None
        """What goes into the last layer, (b * f, c, h, w); None: the next pass is a whole one."""

    def begin(self, step: int) -> None:
        """Begin a step of the sampler, the first of which is 0."""
        if step % self.every == 0:
            self.kept = None
