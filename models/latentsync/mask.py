"""Which part of an aligned face the network repaints (LatentSync 1.5 and 1.6).

A fixed shape: both cheeks from below the eyes, around a notch that keeps the nose, then the
full width down to the mouth, and about half an ellipse around the chin. The published weights
know only this shape; every model trained here uses it as well.
"""

from functools import lru_cache

import torch
from torch.nn import functional as F

SIZE = 256
"""Side of the face at which the shape is defined."""
FIRST_ROW = 95
"""The first repainted row at 256; the last is 242."""
NOTCH_ROWS = 33
"""Number of rows, from the first one on, in which the nose is kept,"""
NOTCH_COLUMNS = (78, 177)
"""from this column to that one."""
# First and last repainted column of each row from FIRST_ROW on, as value*number of rows.
_FIRST_COLUMN = (
    "9*41 10*14 11*14 12*7 13*2 14*2 15*2 16*2 17 18*2 19*2 20 21*2 22*2 23 24 25 26*2 27 28 29 "
    "30 31 32 33 34*2 35 36 37 38 39 40 42 43 44 45 47 48 49 51 52 54 56 57 59 60 62 64 66 68 "
    "70 72 74 76 78 80 82 85 87 90 93 95 99 104 108 131"
)
_LAST_COLUMN = (
    "246*33 247*7 246*14 245*14 244*7 243*2 242*2 241*2 240*2 239 238*2 237 236*2 235 234*2 233 "
    "232*2 231 230*2 229 228*2 227 226 225 224 223*2 222 221 220 219 218 217 216 215 214 213 "
    "212 211 210 208 207 206 204 203 202 200 199 197 196 194 192 191 189 187 185 183 180 178 "
    "175 173 171 168 166 164 160 156 152"
)
_LOBES = 4
"""Of the Lanczos kernel with which the published programs resize the shape,"""
_PARTS = 2048
"""and the denominator of its weights."""


def _expand(runs: str) -> list[int]:
    """`"9*2 10"` as [9, 9, 10]."""
    parts = (run.partition("*") for run in runs.split())
    return [int(value) for value, _, count in parts for _ in range(int(count or 1))]


def _shape() -> torch.Tensor:
    """(256, 256), 1 = kept."""
    keep = torch.ones(SIZE, SIZE)
    bounds = zip(_expand(_FIRST_COLUMN), _expand(_LAST_COLUMN), strict=True)
    for row, (first, last) in enumerate(bounds, FIRST_ROW):
        keep[row, first : last + 1] = 0
    first, last = NOTCH_COLUMNS
    keep[FIRST_ROW : FIRST_ROW + NOTCH_ROWS, first : last + 1] = 1
    return keep


def _lanczos(resolution: int) -> torch.Tensor:
    """Matrix (resolution, 256), int64: each output pixel's weights of the 256 input pixels.

    Eight neighbours whatever the scale, as OpenCV's INTER_LANCZOS4 takes them, and in its whole
    parts of `_PARTS`; beyond the border the outermost pixel is repeated.
    """
    centre = (torch.arange(resolution, dtype=torch.float64) + 0.5) * (SIZE / resolution) - 0.5
    taps = centre.floor().long()[:, None] + torch.arange(1 - _LOBES, _LOBES + 1)
    distance = centre[:, None] - taps
    weights = torch.sinc(distance) * torch.sinc(distance / _LOBES)
    weights /= weights.sum(dim=1, keepdim=True)
    parts = (weights * _PARTS).round().long()
    matrix = torch.zeros(resolution, SIZE, dtype=torch.long)
    return matrix.scatter_add_(1, taps.clamp(0, SIZE - 1), parts)


@lru_cache(maxsize=8)
def _mask(resolution: int) -> torch.Tensor:
    keep = _shape()
    if resolution != SIZE:
        matrix = _lanczos(resolution)
        # The published programs resize a picture of 8 bits, so the result has 256 levels.
        levels = (matrix @ (255 * keep.long()) @ matrix.T + _PARTS**2 // 2) // _PARTS**2
        keep = levels.clamp(0, 255) / 255
    return keep[None, None]


def face_mask(resolution: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """The mask of an aligned face: 1 where the picture is kept, 0 where it is repainted.

    Exact at 256. Other sizes are resized from it by Lanczos, as in the published programs for 512,
    so that a few pixels along the edges are between 0 and 1.

    Returns:
        (1, 1, resolution, resolution) float32 in [0, 1], a tensor of the caller's own.

    Raises:
        ValueError: the resolution is not positive.
    """
    if resolution < 1:
        raise ValueError(f"resolution must be positive, got {resolution}")
    return _mask(resolution).to(device, copy=True)


def latent_mask(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A mask (..., 1, h, w) at the size of latents, by nearest pixel as the reference does it."""
    flat = mask.reshape(-1, 1, *mask.shape[-2:])
    return F.interpolate(flat, size=size, mode="nearest").reshape(*mask.shape[:-2], *size)


def whole_cells(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A mask (n, 1, h, w) at the size of latents: 1 where all pixels of a cell are kept, else 0.

    For networks that start from the masked picture's latents: those of a cell that is partly
    masked are partly grey.
    """
    return 1 - F.adaptive_max_pool2d((mask < 1).to(mask.dtype), size)


def soft_edge(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Weight of the generated picture: 0 wherever the mask keeps, 1 deep inside.

    The ramp is entirely inside the repainted part, so that no pixel changes of which the mask
    keeps anything; the picture's own border does not count as an edge.

    Args:
        mask: (n, 1, h, w), 1 = kept, 0 = repainted.
        radius: about half the width of the ramp in pixels.

    Returns:
        (n, 1, h, w) in [0, 1].
    """
    kept = (mask > 0).to(mask.dtype)
    if radius < 1:
        return 1 - kept
    size = 2 * radius + 1
    outside = F.max_pool2d(F.pad(kept, [radius] * 4), size, stride=1)
    inner = F.pad(1 - outside, [radius] * 4, mode="replicate")
    return F.avg_pool2d(inner, size, stride=1)
