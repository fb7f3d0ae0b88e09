"""Winograd convolutions: the numbers of the direct sum, for every size and stride."""

import pytest
import torch
from torch.nn import functional as F

from models.syncnet.winograd import WinogradConvolution


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 1, 0), (2, 1, 0), (5, 2, 1), (6, 2, 2)]
)
@pytest.mark.parametrize("size", [(13, 13), (11, 9), (7, 16)])
def test_equals_the_direct_sum(
    kernel: int, stride: int, padding: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 6, kernel, kernel), torch.randn(5)
    x = torch.randn(3, 6, *size)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), stride, padding)
    found = WinogradConvolution(weight, bias, stride, padding)(x)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_one_convolution_takes_maps_of_several_sizes() -> None:
    weight, bias = torch.randn(2, 3, 3, 3), torch.zeros(2)
    convolution = WinogradConvolution(weight, bias, padding=1)
    for size in (4, 9, 4):
        x = torch.randn(1, 3, size, size)
        assert torch.allclose(convolution(x), F.conv2d(x, weight, bias, 1, 1), atol=1e-4)


@pytest.mark.parametrize(("height", "width", "stride"), [(4, 4, 1), (7, 7, 2), (3, 2, 1)])
def test_other_kernels_are_refused(height: int, width: int, stride: int) -> None:
    with pytest.raises(ValueError, match="square kernel of at most"):
        WinogradConvolution(torch.zeros(1, 1, height, width), torch.zeros(1), stride)
