"""Convolutions on processors with fewer multiplications (Winograd; Lavin & Gray, CVPR 2016).

F(m x m, 3 x 3): a tile of m x m outputs costs (m + 2)^2 products per pair of channels instead of
9 m^2, as so many matrix products over all tiles. Evaluation at small numbers keeps the error
near 2e-6 of the largest output in float32, a few times that of the direct sum. A stride of 2
takes even and odd rows and columns for channels of their own, so that kernels up to 6 x 6
have three taps each way too.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

TAPS = 3
POINTS = {
    2: (0.0, 1.0, -1.0),
    3: (0.0, 1.0, -1.0, 2.0),
    4: (0.0, 1.0, -1.0, 0.5, -2.0),
}
"""Where polynomials are evaluated, besides infinity, by the side of the tile."""


def _values(tile: int, terms: int) -> np.ndarray:
    """(tile + 2, terms): what polynomials of so many coefficients are at the points."""
    points = np.vander(POINTS[tile], terms, increasing=True)
    return np.vstack([points, np.eye(terms)[-1]])


@dataclass(frozen=True)
class _Axis:
    """How one axis of a map is cut into tiles."""

    outputs: int
    tiles: int
    spread: torch.Tensor
    """(tiles * (tile + 2) * stride, inputs): from inputs to the values of each tile, per phase."""


def _axis(inputs: int, kernel: int, stride: int, padding: int, tile: int) -> _Axis:
    outputs = (inputs + 2 * padding - kernel) // stride + 1
    tiles = -(-outputs // tile)
    values = tile + TAPS - 1
    spread = np.zeros((tiles, values, stride, inputs))
    to_values = np.linalg.inv(_values(tile, values)).T
    for index in range(tiles):
        for phase in range(stride):
            for step in range(values):
                at = (index * tile + step) * stride + phase - padding
                if 0 <= at < inputs:
                    spread[index, :, phase, at] = to_values[:, step]
    return _Axis(outputs, tiles, torch.tensor(spread.reshape(-1, inputs)).float())


@dataclass(frozen=True)
class _Plan:
    """A convolution made ready for maps of one size."""

    tile: int
    rows: _Axis
    columns: _Axis
    weight: torch.Tensor
    """((tile + 2)^2, stride^2 * c, c')"""
    gather: torch.Tensor
    """(tile^2, (tile + 2)^2)"""


class WinogradConvolution:
    """`F.conv2d` in float32 on processors.

    Args:
        weight: (c', c, k, k) with k at most three times the stride.
        bias: (c',).
        stride: of rows and columns.
        padding: on all four sides.

    Raises:
        ValueError: the kernel is larger or not square.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, stride: int = 1, padding: int = 0
    ) -> None:
        if not self.takes(weight, stride):
            raise ValueError(
                f"expected a square kernel of at most {TAPS * stride} at stride {stride}, got "
                f"{tuple(weight.shape[2:])}"
            )
        self._weight, self._bias = weight, bias
        self._stride, self._padding = stride, padding
        self._plans: dict[tuple[int, int], _Plan] = {}

    @staticmethod
    def takes(weight: torch.Tensor, stride: int) -> bool:
        """Whether this convolution can be done so."""
        height, width = weight.shape[2:]
        return height == width <= TAPS * stride

    def _plan(self, height: int, width: int) -> _Plan:
        """The tiles that need the fewest products for such maps."""
        kernel, stride = self._weight.shape[-1], self._stride

        def axes(tile: int) -> tuple[_Axis, _Axis]:
            rows = _axis(height, kernel, stride, self._padding, tile)
            return rows, _axis(width, kernel, stride, self._padding, tile)

        def products(tile: int) -> int:
            rows, columns = axes(tile)
            return rows.tiles * columns.tiles * (tile + TAPS - 1) ** 2

        tile = min(POINTS, key=products)
        missing = TAPS * stride - kernel
        whole = F.pad(self._weight.double(), (0, missing, 0, missing))
        taps = whole.unflatten(2, (TAPS, stride)).unflatten(4, (TAPS, stride))
        at = torch.tensor(_values(tile, TAPS))
        weight = torch.einsum("xi,yj,ocipjq->xypqco", at, at, taps).flatten(2, 4).flatten(0, 1)
        gather = _values(tile, tile).T
        rows, columns = axes(tile)
        return _Plan(
            tile,
            rows,
            columns,
            weight.float().contiguous(),
            torch.tensor(np.kron(gather, gather)).float(),
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, c', h', w'), both channels last."""
        batch, channels, height, width = x.shape
        if (height, width) not in self._plans:
            self._plans[height, width] = self._plan(height, width)
        plan = self._plans[height, width]
        tile, values = plan.tile, plan.tile + TAPS - 1
        down, across = plan.rows.tiles, plan.columns.tiles
        spread = plan.rows.spread @ x.permute(0, 2, 3, 1).reshape(batch, height, -1)
        spread = plan.columns.spread @ spread.view(-1, width, channels)
        phases = (values, self._stride)
        by_value = spread.view(batch, down, *phases, across, *phases, channels)
        by_value = by_value.permute(2, 5, 0, 1, 4, 3, 6, 7).reshape(
            values**2, batch * down * across, -1
        )
        products = torch.bmm(by_value, plan.weight)
        tiles = (plan.gather @ products.flatten(1)).view(tile, tile, batch, down, across, -1)
        whole = tiles.permute(2, 3, 0, 4, 1, 5).reshape(batch, down * tile, across * tile, -1)
        outputs = whole[:, : plan.rows.outputs, : plan.columns.outputs] + self._bias
        return outputs.permute(0, 3, 1, 2)
