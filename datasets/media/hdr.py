"""Converting pictures with more than white (PQ and HLG) to ordinary ones, and back.

Networks, detectors and training data know pictures in which white is the brightest colour. Each
pixel is mapped on its own by an invertible curve, so that changes to the
ordinary picture can be carried back to the bright one:

    R'G'B' -> light in nits -> BT.709 primaries -> curve -> R'G'B'

Up to paper white (203 nits, ITU-R BT.2408) the curve only scales; brighter light is
compressed by the number of stops above it.
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

PQ, HLG = 16, 18
"""Numbers of the two transfers, ITU-T H.273."""
WHITE_NITS = 203.0
"""Light of paper white, ITU-R BT.2408."""
HLG_NITS, HLG_GAMMA = 1000.0, 1.2
"""The display that HLG is made for, ITU-R BT.2100."""
PEAK_NITS = 10_000.0
"""Brightest light that PQ knows."""
DISPLAY_GAMMA = 2.4
"""Gamma of an ordinary display, ITU-R BT.1886."""
KNEE = 0.86
"""Signal of paper white: below white, to leave room for brighter light. Less room would
compress highlights so much that neighbouring levels could not be distinguished."""
STOPS = float(np.log2(PEAK_NITS / WHITE_NITS))
SLOPE = KNEE * float(np.log(2)) / DISPLAY_GAMMA
"""Change of the signal per stop, just below the knee."""
PRESSED = (SLOPE * STOPS / (1 - KNEE) - 1) / STOPS
"""How fast the slope falls above the knee, so that the brightest light is 1."""
TO_BT709 = np.array(
    [
        [1.660491, -0.587641, -0.072850],
        [-0.124550, 1.132900, -0.008349],
        [-0.018151, -0.100579, 1.118730],
    ]
)
"""Light of BT.2020's primaries as that of BT.709's, ITU-R BT.2087."""
FROM_BT709 = np.linalg.inv(TO_BT709)
LUMA = np.array([0.2627, 0.6780, 0.0593])
"""Light of BT.2020's primaries as luminance."""


def to_sdr(rgb48: NDArray[np.uint16], transfer: int, wide: bool = True) -> NDArray[np.uint8]:
    """An ordinary picture, uint8 (h, w, 3) in BT.709.

    Args:
        rgb48: (h, w, 3), 65535 is the largest signal.
        transfer: `PQ` or `HLG`.
        wide: whether the primaries are BT.2020's; BT.709's otherwise.
    """
    light = _table(transfer)[rgb48]
    signal = _shown(light, transfer, wide)
    return np.clip(np.rint(signal * 255), 0, 255).astype(np.uint8)


def forward(signal: NDArray[np.floating], transfer: int, wide: bool = True) -> NDArray[np.float32]:
    """The result of `to_sdr` for R'G'B' (..., 3) in [0, 1], neither rounded nor clipped."""
    return _shown(_light(np.asarray(signal, np.float32), transfer), transfer, wide)


def backward(shown: NDArray[np.floating], transfer: int, wide: bool = True) -> NDArray[np.float32]:
    """R'G'B' (..., 3) of PQ or HLG in [0, 1] for signals of the ordinary picture."""
    light = _pressed_back(np.asarray(shown, np.float32))
    if wide:
        light = light @ FROM_BT709.T.astype(np.float32)
    return _signal(np.maximum(light, 0), transfer)


def _shown(light: NDArray[np.float32], transfer: int, wide: bool) -> NDArray[np.float32]:
    if transfer == HLG:
        # BT.2100's opto-optical transfer: light of the scene as that of a display.
        weight = np.maximum(light @ LUMA.astype(np.float32), 1e-9) ** np.float32(HLG_GAMMA - 1)
        light = light * (weight * np.float32(HLG_NITS / WHITE_NITS))[..., None]
    if wide:
        shape = light.shape
        flat = np.ascontiguousarray(light.reshape(-1, 1, 3))
        light = cv2.transform(flat, TO_BT709.astype(np.float32)).reshape(shape)
    return _pressed(light)


def _pressed(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signal of an ordinary display for light in units of paper white, odd around 0."""
    size = np.abs(light)
    low = np.float32(KNEE) * cv2.pow(size, 1 / DISPLAY_GAMMA).reshape(size.shape)
    bright = size > 1
    if bright.any():
        stops = np.log2(size[bright])
        low[bright] = KNEE + SLOPE * stops / (1 + PRESSED * stops)
    return np.copysign(low, light)


def _pressed_back(shown: NDArray[np.float32]) -> NDArray[np.float32]:
    size = np.minimum(np.abs(shown), 1)
    light = (np.minimum(size, KNEE) / KNEE) ** np.float32(DISPLAY_GAMMA)
    above = size > KNEE
    over = size[above] - KNEE
    light[above] = 2 ** (over / (SLOPE - PRESSED * over))
    return np.copysign(light, shown).astype(np.float32)


@lru_cache(maxsize=2)
def _table(transfer: int) -> NDArray[np.float32]:
    return _light(np.arange(65536, dtype=np.float32) / 65535, transfer)


def _light(signal: NDArray[np.float32], transfer: int) -> NDArray[np.float32]:
    """PQ: light in units of paper white. HLG: light of the scene in [0, 1]. ITU-R BT.2100."""
    value = np.clip(signal.astype(np.float64), 0, 1)
    if transfer == PQ:
        power = value ** (1 / PQ_M2)
        light = (np.maximum(power - PQ_C1, 0) / (PQ_C2 - PQ_C3 * power)) ** (1 / PQ_M1)
        return (light * (PEAK_NITS / WHITE_NITS)).astype(np.float32)
    low = value**2 / 3
    high = (np.exp((value - HLG_C) / HLG_A) + HLG_B) / 12
    return np.where(value <= 0.5, low, high).astype(np.float32)


def _signal(light: NDArray[np.float32], transfer: int) -> NDArray[np.float32]:
    """The inverse of light of a display, in units of paper white, with BT.2020's primaries."""
    value = light.astype(np.float64)
    if transfer == PQ:
        power = np.clip(value * (WHITE_NITS / PEAK_NITS), 0, 1) ** PQ_M1
        return (((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power)) ** PQ_M2).astype(np.float32)
    value *= WHITE_NITS / HLG_NITS
    scene = np.maximum(value @ LUMA, 1e-12) ** ((1 - HLG_GAMMA) / HLG_GAMMA)
    value = np.clip(value * scene[..., None], 0, 1)
    low = np.sqrt(3 * value)
    high = HLG_A * np.log(np.maximum(12 * value - HLG_B, 1e-9)) + HLG_C
    return np.where(value <= 1 / 12, low, high).astype(np.float32)


PQ_M1, PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
PQ_C1, PQ_C2, PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
HLG_A = 0.17883277
HLG_B = 1 - 4 * HLG_A
HLG_C = 0.5 - HLG_A * float(np.log(4 * HLG_A))
