"""Pictures times weights in whole numbers: as near to the true sum as float32 is."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from models.syncnet.pixel_convolution import (
    MOST_PRODUCTS,
    PixelConvolution,
    digits,
    has_matrix_units,
)

needs_units = pytest.mark.skipif(not has_matrix_units(), reason="no matrix units")


def test_digits_add_up_to_the_weights() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 64, 64) * torch.tensor([1e-6, 1.0, 1e4, 0.0])[:, None, None, None]
    # The carry: a half between the largest digit and the next value.
    weight[1] = torch.arange(weight[1].numel()).view(3, 64, 64) / 256 * weight[1].sign()
    weight[1, 0, 0, :2] = torch.tensor([127.0, 10.5])
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


@needs_units
def test_units_that_would_overflow_are_not_used() -> None:
    code = (
        "from models.syncnet.pixel_convolution import has_matrix_units; print(has_matrix_units())"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_sums_that_could_overflow_are_refused() -> None:
    weight = torch.zeros(1, MOST_PRODUCTS + 1, 1, 1)
    with pytest.raises(ValueError, match="weights per output channel"):
        PixelConvolution(weight, torch.zeros(1), (1, 1))
