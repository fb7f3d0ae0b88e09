"""Compiled networks compute the same and keep their names."""

import copy

import pytest
import torch
from torch import nn

from tasks.recipes.recipe import recipe
from tasks.train.compiled import REPEATED, compile_blocks
from tasks.train.drawn import drawn_stage

CPU = torch.device("cpu")
# torch's compiler looks at gradients of tensors that have none, and is warned by torch.
pytestmark = pytest.mark.filterwarnings("ignore:.*grad attribute of a Tensor that is not a leaf")


@pytest.mark.parametrize("stage", ["syncnet", "stage1", "stage2"])
def test_losses_and_gradients_are_the_same(stage: str) -> None:
    torch.manual_seed(0)
    drawn = drawn_stage(recipe("debug"), stage, CPU)
    names = set(drawn.network.state_dict())

    def gradients() -> tuple[float, list[torch.Tensor]]:
        torch.manual_seed(1)
        drawn.network.zero_grad()
        loss = drawn.loss(2)
        loss.backward()
        return float(loss.detach()), [
            each.grad.clone() for each in drawn.learned if each.grad is not None
        ]

    loss, before = gradients()
    parts = compile_blocks(drawn.network, backend="aot_eager")
    compiled_loss, after = gradients()
    blocks = [each for each in drawn.network.modules() if type(each).__name__ in REPEATED]
    assert parts == max(1, len(blocks))
    assert parts > 1 or stage == "syncnet"
    assert compiled_loss == pytest.approx(loss, rel=1e-5)
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        assert torch.allclose(old, new, rtol=1e-4, atol=1e-6)
    assert set(drawn.network.state_dict()) == names


def test_compiled_weights_load_into_plain_networks() -> None:
    plain = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    compiled = copy.deepcopy(plain)
    assert compile_blocks(compiled, backend="eager") == 1
    plain.load_state_dict(compiled.state_dict())
    given = torch.randn(2, 3)
    assert torch.allclose(plain(given), compiled(given))
