"""An adapter adds B A alpha / rank to the projections that it names, and to nothing else."""

import pytest
import torch
from torch import Tensor, nn

from models.unet.lora import merge_adapter


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.ModuleDict({"to_q": nn.Linear(4, 6, bias=False)})})


def adapter(rank: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "a.to_q.lora_A.weight": torch.randn(rank, 4),
        "a.to_q.lora_B.weight": torch.randn(6, rank),
    }


def test_the_change_is_the_product_times_alpha_over_rank() -> None:
    net, state = network(), adapter()
    before = net["a"]["to_q"].weight.detach().clone()  # type: ignore[index]
    merge_adapter(net, state, alpha=6.0)
    expected = before + 3.0 * state["a.to_q.lora_B.weight"] @ state["a.to_q.lora_A.weight"]
    torch.testing.assert_close(net["a"]["to_q"].weight.detach(), expected)  # type: ignore[index]


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"has no b\.to_q"):
        merge_adapter(network(), {k.replace("a.", "b.", 1): v for k, v in adapter().items()}, 1.0)
    only = {"a.to_q.lora_A.weight": torch.zeros(2, 4)}
    with pytest.raises(ValueError, match=r"a\.to_q has only one of"):
        merge_adapter(network(), only, 1.0)
    wrong = adapter() | {"a.to_q.lora_A.weight": torch.zeros(2, 5)}
    with pytest.raises(ValueError, match=r"is \(6, 4\), not \(6, 5\)"):
        merge_adapter(network(), wrong, 1.0)
