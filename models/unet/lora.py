"""Low-rank adapters of a U-Net's attention (LoRA, arXiv 2106.09685).

An adapter adds B A * alpha / rank to the weights of attention's projections. Its file has peft's
names, so that other tools can read it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The projections that an adapter changes."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


@torch.no_grad()
def merge_adapter(unet: nn.Module, state: Mapping[str, Tensor], alpha: float) -> None:
    """Add an adapter to a U-Net's own weights.

    Args:
        unet: without adapters.
        state: for each changed projection `NAME.lora_A.weight` (rank, in) and
            `NAME.lora_B.weight` (out, rank).
        alpha: strength; the change is B A * alpha / rank.

    Raises:
        ValueError: an entry belongs to no projection of this U-Net, or has another size.
    """
    names = sorted({name.removesuffix(DOWN).removesuffix(UP) for name in state})
    for name in names:
        down, up = state.get(name + DOWN), state.get(name + UP)
        if down is None or up is None:
            raise ValueError(f"{name} has only one of {DOWN} and {UP}")
        try:
            weight = unet.get_submodule(name).weight
        except AttributeError as error:
            raise ValueError(f"this U-Net has no {name}") from error
        assert isinstance(weight, Tensor)
        change = (up.double() @ down.double()) * (alpha / len(down))
        if change.shape != weight.shape:
            raise ValueError(f"{name} is {tuple(weight.shape)}, not {tuple(change.shape)}")
        weight.add_(change.to(weight))
