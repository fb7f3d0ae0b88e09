"""Pictures times weights in whole numbers: as near to the true sum as float32 is."""

import pytest
import torch
from torch.nn import functional as F

from models.pixel_convolution import MOST_PRODUCTS, PixelConvolution, digits, has_matrix_units

needs_units = pytest.mark.skipif(not has_matrix_units(), reason="no matrix units")


def test_digits_add_up_to_the_weights() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 5, 5) * torch.tensor([1e-6, 1.0, 1e4, 0.0])[:, None, None, None]
    total = sum(d.double() * scale.double()[:, None, None, None] for d, scale in digits(weight))
    largest = weight.abs().amax((1, 2, 3), keepdim=True)
    assert ((total - weight.double()).abs() <= 2.0**-23 * largest).all()


@needs_units
def test_as_exact_as_float32() -> None:
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (2, 15, 33, 40), dtype=torch.uint8)
    # Extremes: where 16-bit sums of products would overflow.
    pixels[0, :, :16] = 255
    weight, bias = torch.randn(24, 15, 7, 7), torch.randn(24)
    weight[0], weight[1] = 3.0, -3.0
    expected = F.conv2d(pixels.double(), weight.double(), bias.double(), 2)
    scale = expected.abs().max()
    found = PixelConvolution(weight, bias, (2, 2))(
        pixels.contiguous(memory_format=torch.channels_last)
    )
    error = float((found - expected).abs().max() / scale)
    float32 = F.conv2d(pixels.float(), weight, bias, 2)
    assert error < 1e-6
    assert error < 10 * float((float32 - expected).abs().max() / scale)


def test_sums_that_could_overflow_are_refused() -> None:
    weight = torch.zeros(1, MOST_PRODUCTS + 1, 1, 1)
    with pytest.raises(ValueError, match="weights per output channel"):
        PixelConvolution(weight, torch.zeros(1), (1, 1))
