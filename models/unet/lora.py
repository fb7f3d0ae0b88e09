"""Low-rank adapters (LoRA, arXiv 2106.09685) of a U-Net's attention, or of other networks.

An adapter adds B A * alpha / rank to the weights of projections, or of convolutions. Its file has
peft's names, so that other tools can read it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The projections of a U-Net that an adapter changes."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


@torch.no_grad()
def merge_adapter(network: nn.Module, state: Mapping[str, Tensor], alpha: float) -> None:
    """Add an adapter to a network's own weights.

    Args:
        network: without adapters.
        state: for each changed projection `NAME.lora_A.weight` (rank, in) and
            `NAME.lora_B.weight` (out, rank), or of a convolution (rank, in, h, w) and
            (out, rank, 1, 1).
        alpha: strength; the change is B A * alpha / rank.

    Raises:
        ValueError: an entry belongs to nothing in this network, or has another size.
    """
    names = sorted({name.removesuffix(DOWN).removesuffix(UP) for name in state})
    for name in names:
        down, up = state.get(name + DOWN), state.get(name + UP)
        if down is None or up is None:
            raise ValueError(f"{name} has only one of {DOWN} and {UP}")
        try:
            weight = network.get_submodule(name).weight
        except AttributeError as error:
            raise ValueError(f"this network has no {name}") from error
        assert isinstance(weight, Tensor)
        shape = (len(up), *down.shape[1:])
        if shape != weight.shape or up.shape[1] != len(down):
            raise ValueError(f"{name} is {tuple(weight.shape)}, not {shape}")
        change = (up.flatten(1).double() @ down.flatten(1).double()) * (alpha / len(down))
        weight.add_(change.reshape(shape).to(weight))
