"""StableSyncNet's blocks: sizes, and exactness where little is left to normalise."""

import copy

import pytest
import torch

from models.syncnet.stable_blocks import AttentionBlock, DownEncoder, GroupNorm, ResnetBlock
from tests.support.small_models import count_runs


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(1, (12, 20)), (2, (6, 10)), ([1, 2], (12, 10)), ([2, 1], (6, 20)), ([4, 5], (3, 4))],
)
def test_factors_shrink_as_told(factor: object, expected: tuple[int, int]) -> None:
    block = ResnetBlock(32, 64, factor, groups=32, dropout=0.0)  # type: ignore[arg-type]
    assert block(torch.randn(1, 32, 12, 20)).shape == (1, 64, *expected)


def test_attention_sees_all_positions() -> None:
    block = AttentionBlock(32, groups=32, dropout=0.0).eval()
    first = torch.randn(1, 32, 4, 4)
    second = first.clone()
    second[..., 3, 3] += 1
    change = (block(first) - block(second)).abs().amax(dim=(0, 1))
    assert (change > 0).all()


@torch.no_grad()
def test_norm_is_exact_on_single_pixels() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 64, 1, 1) + 30
    features = torch.empty_strided((2, 64, 1, 1), (64, 1, 64, 64)).copy_(features)
    norm, plain = GroupNorm(32, 64, eps=1e-6), torch.nn.GroupNorm(32, 64, eps=1e-6)
    exact = copy.deepcopy(plain).double()(features.double())
    error = float((norm(features) - exact).abs().max())
    assert error < 1e-3
    assert error < float((plain(features) - exact).abs().max())


def test_checkpointing_changes_no_gradient() -> None:
    torch.manual_seed(0)
    plain = DownEncoder(4, [32, 32], [2, 2], [0, 1])
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing = True
    inputs = torch.randn(2, 4, 8, 8)
    for encoder, recomputed in ((plain, 0), (saving, 1)):
        runs = count_runs(encoder.down_blocks)
        output = encoder(inputs)
        assert runs == [1, 1, 1]
        output.square().sum().backward()
        assert runs == [1 + recomputed] * 3
    for first, second in zip(plain.parameters(), saving.parameters(), strict=True):
        assert first.grad is not None
        assert second.grad is not None
        assert torch.allclose(first.grad, second.grad)


def test_unequal_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long, got 2, 1 and 2"):
        DownEncoder(4, [32, 32], [2], [0, 0])
