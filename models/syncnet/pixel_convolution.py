"""A convolution over 8-bit pictures in whole numbers, where the processor has units for them.

Pixels are whole numbers of 8 bits, so only the weights need to be taken apart: each becomes three
digits of 8 bits with one scale per output channel. Products and sums of digits and pixels are
exact in 32 bits, and what the third digit leaves is below float32's own rounding. Matrix units
(AMX) take 16 such products in the time of one in float32, so three digits still take less than
half of its time.
"""

from functools import cache, reduce

import torch

DIGITS = 3
BASE = 256
LARGEST = 127
"""Largest leading digit; the following ones are in -128..127."""
MOST_PRODUCTS = 2**31 // (255 * 128)
"""How many products of a pixel and a digit surely fit into the 32 bits of their sum."""


@cache
def has_matrix_units() -> bool:
    """Whether this processor multiplies 8-bit matrices, and PyTorch lets it.

    Told to do without newer instructions, oneDNN adds such products in 16 bits, which overflow:
    so a sum that would is tried.
    """
    if not torch.cpu.get_capabilities().get("amx_int8"):
        return False
    if not all(hasattr(torch.ops.onednn, name) for name in ("qconv_prepack", "qconv_pointwise")):
        return False
    pixels = torch.full((1, 16, 7, 7), 255, dtype=torch.uint8)
    weight = torch.full((16, 16, 7, 7), float(LARGEST))
    found = PixelConvolution(weight, torch.zeros(16), (1, 1))(
        pixels.contiguous(memory_format=torch.channels_last)
    )
    return bool((found == 255 * LARGEST * pixels.numel()).all())


def digits(weight: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(c', c, h, w) -> int8 digits and their (c',) scales, coarsest first; their sum is it."""
    finest = weight.double().abs().amax((1, 2, 3)) / (LARGEST * BASE ** (DIGITS - 1))
    finest[finest == 0] = 1.0
    rest = (weight.double() / finest[:, None, None, None]).round()
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for power in range(DIGITS):
        # The last digit, in -128..127; what is left without it is a whole multiple of the base.
        digit = (rest + BASE // 2).remainder(BASE) - BASE // 2
        found.insert(0, (digit.to(torch.int8), (finest * BASE**power).float()))
        rest = (rest - digit) / BASE
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
