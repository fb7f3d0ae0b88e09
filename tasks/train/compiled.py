"""torch.compile for the blocks of which a network has many.

Blocks of one kind share their compiled code, so the start takes a minute where whole networks take
many. Names and numbers of weights stay, and so do checkpoints.
"""

import torch
from torch import nn

REPEATED = ("ResnetBlock", "AttentionBlock", "SpatialTransformer", "MotionModule")
"""Classes of U-Net and StableSyncNet; a network without them is compiled as a whole."""
SHAPES = 64
"""Shapes and modes of one kind of block for which there may be code; more run uncompiled."""


def compile_blocks(network: nn.Module, backend: str = "inductor") -> int:
    """Compile a network in place; returns how many parts of it."""
    torch._dynamo.config.recompile_limit = SHAPES
    blocks = [part for part in network.modules() if type(part).__name__ in REPEATED]
    for part in blocks or [network]:
        part.compile(backend=backend)
    return len(blocks) or 1
