"""A convolution over 8-bit pictures in whole numbers, where the processor has units for them.

Pixels are whole numbers of 8 bits, so only the weights need to be taken apart: each becomes three
digits of 8 bits with one scale per output channel. Products and sums of digits and pixels are
exact in 32 bits, and what the third digit leaves is below float32's own rounding. Matrix units
(AMX) take 16 such products in the time of one in float32, so three digits still take less than
half of its time.
"""

from functools import reduce

import torch

DIGITS = 3
BASE = 256
LARGEST = 127
"""Largest leading digit; the following ones are in -128..127."""
MOST_PRODUCTS = 2**31 // (255 * 128)
"""How many products of a pixel and a digit surely fit into the 32 bits of their sum."""


def has_matrix_units() -> bool:
    """Whether this processor multiplies 8-bit matrices, and PyTorch can ask it to."""
    wanted = all(hasattr(torch.ops.onednn, name) for name in ("qconv_prepack", "qconv_pointwise"))
    return wanted and bool(torch.cpu.get_capabilities().get("amx_int8"))


def digits(weight: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(c', c, h, w) -> int8 digits and their (c',) scales, coarsest first; their sum is it."""
    scale = weight.double().abs().amax((1, 2, 3)) / LARGEST
    scale[scale == 0] = 1.0
    rest = weight.double() / scale[:, None, None, None]
    found = []
    for _ in range(DIGITS):
        digit = rest.round().clamp(-128, LARGEST)
        found.append((digit.to(torch.int8), scale.float()))
        rest, scale = (rest - digit) * BASE, scale / BASE
    return found


class PixelConvolution:
    """`F.conv2d` of uint8 pictures by float32 weights.

    Args:
        weight: (c', c, kh, kw).
        bias: (c',).
        stride: of rows and columns; there is no padding.

    Raises:
        ValueError: so many weights per output that their sum could overflow.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, stride: tuple[int, int]) -> None:
        if weight[0].numel() > MOST_PRODUCTS:
            raise ValueError(
                f"expected at most {MOST_PRODUCTS} weights per output channel, got "
                f"{weight[0].numel()}"
            )
        self._stride = list(stride)
        self._no_offset = torch.zeros(len(weight), dtype=torch.int64)
        self._digits: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = []
        for digit, scale in digits(weight):
            packed = torch.ops.onednn.qconv_prepack(
                digit, scale, 1.0, 0, self._stride, [0, 0], [1, 1], 1
            )
            self._digits.append((packed, scale, None if self._digits else bias))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) uint8, channels last -> (b, c', h', w') float32, channels last."""
        parts = (
            torch.ops.onednn.qconv_pointwise(
                pixels, 1.0, 0, weight, scale, self._no_offset, bias,
                self._stride, [0, 0], [1, 1], 1, 1.0, 0, torch.float32, "none", [], "",
            )
            for weight, scale, bias in self._digits
        )  # fmt: skip
        return reduce(torch.Tensor.add_, parts)
