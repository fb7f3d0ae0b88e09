"""Gives a generated face the grain of the picture around it.

A network's picture is smooth. In a grainy video it would stand out as a calm spot, so noise of the
strength and fineness that the kept part of the face has is added to it. Both are measured in every
frame alone, in the smoothest blocks, where grain is all that there is; a clean video gets none.
"""

from dataclasses import replace

import cv2
import numpy as np

from datasets.media.canvas import Patch

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
SECOND = (1, -2, 1)
"""Second difference: zero for shading. As a square its gain for white noise is `GAIN`."""
GAIN = 6.0
BLOCK = 8
"""Side of the blocks in which noise is measured, pixels."""
CALM_SHARE = 0.25
"""Share of blocks that are smoother than the one taken: others show eyes, brows and hair."""
CALM_BIAS = 0.89
"""What that block shows of white noise of strength 1."""
LEAST_BLOCKS = 24
"""Fewer prove nothing."""
CLEAN, GRAINY = 1.0, 1.5
"""Levels of noise up to which a picture is clean, and from which all of its grain is added. In
clean footage encoding leaves 0.3 to 0.8 on a face."""
KEPT_ROWS = 0.6
"""Below this share of the aligned face there are collars and whatever is behind."""
FINENESS = ((1.01, 0.3), (1.13, 0.4), (1.46, 0.5), (2.07, 0.6), (2.96, 0.7), (3.99, 0.8))
"""How much stronger noise is over two pixels than over one, and the standard deviation in pixels of
the blur that makes white noise so."""


def kept_around(region: np.ndarray) -> np.ndarray:
    """Where an aligned face shows the source and a face, float32 (R, R).

    Args:
        region: (R, R) how much of a generated face is shown.
    """
    kept = (region == 0).astype(np.float32)
    kept[round(KEPT_ROWS * len(kept)) :] = 0
    return kept


def with_grain(patch: Patch, under: np.ndarray, kept: np.ndarray, frame: int) -> Patch:
    """The patch with the grain of the picture under it.

    Args:
        patch: a generated face.
        under: uint8 (h, w, 3) the picture in its box.
        kept: bool (h, w) where that shows the face as it was.
        frame: number of the frame, which decides the noise.
    """
    strongest = float(patch.weights.max(initial=0))
    if strongest == 0:
        return patch
    there = under.astype(np.float32) @ LUMA
    strength = noise_level(there, kept)
    amount = np.clip((strength - CLEAN) / (GRAINY - CLEAN), 0, 1)
    if not amount > 0:
        return patch
    own = noise_level(patch.rgb @ LUMA, patch.weights > 0.9 * strongest)
    own = min(strength, own) if np.isfinite(own) else 0.0
    # Together with what the source keeps of its own where the edge is soft.
    weights = np.maximum(patch.weights, 0.05)
    missing = np.maximum((2 - weights) / weights * strength**2 - own**2, 0)
    coarse = noise_level(there, kept, step=2) / strength
    grain = amount * np.sqrt(missing) * _unit_noise(missing.shape, coarse, frame)
    return replace(patch, rgb=np.clip(patch.rgb + grain[..., None], 0, 255).astype(np.float32))


def noise_level(luma: np.ndarray, where: np.ndarray, step: int = 1) -> float:
    """Standard deviation of noise in levels; NaN where too little can be seen.

    Args:
        luma: float32 (h, w).
        where: bool (h, w) of the pixels that count.
        step: distance of the pixels that are compared.
    """
    height, width = (each // BLOCK * BLOCK for each in luma.shape)
    rough = _roughness(luma, step)

    def blocks(values: np.ndarray) -> np.ndarray:
        cut = values[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        return cut.swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)

    whole = blocks(where).all(axis=1)
    if int(whole.sum()) < LEAST_BLOCKS:
        return float("nan")
    levels = np.sqrt((blocks(rough)[whole] ** 2).mean(axis=1))
    return float(np.quantile(levels, CALM_SHARE)) / CALM_BIAS


def _roughness(luma: np.ndarray, step: int = 1) -> np.ndarray:
    line = np.zeros(2 * step + 1, np.float32)
    line[::step] = SECOND
    return cv2.sepFilter2D(luma, -1, line, line) / np.float32(GAIN)


def _unit_noise(shape: tuple[int, ...], coarse: float, frame: int) -> np.ndarray:
    """Noise whose `noise_level` is 1, and `coarse` over two pixels."""
    ratios, blurs = zip(*FINENESS, strict=True)
    blur = float(np.interp(coarse, ratios, blurs))
    noise = np.random.default_rng(frame).standard_normal(shape, np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), blur)
    return noise / np.float32(max(float(_roughness(noise).std()), 1e-6))
