"""Mouths and sounds that go together, without a video."""

import numpy as np

from datasets.media import SAMPLES_PER_FRAME


def loudness(frames: int, seed: int) -> np.ndarray:
    """Syllables: how open a mouth is, 0 to 1, for each frame."""
    rng = np.random.default_rng(seed)
    curve = np.zeros(frames)
    at = 2.0
    while at < frames:
        width = rng.uniform(1.2, 2.2)
        curve += rng.uniform(0.4, 1) * np.exp(-0.5 * ((np.arange(frames) - at) / width) ** 2)
        at += rng.uniform(4, 9) + (rng.random() < 0.15) * 8
    return np.clip(curve, 0, 1)


def mouth(curve: np.ndarray, seed: int = 0) -> np.ndarray:
    """Landmarks (t, 478, 2) of a face whose lower lip follows the curve, with jitter."""
    base = np.random.default_rng(99).uniform(60, 140, (478, 2))
    base[33], base[263], base[10], base[2] = (70, 80), (130, 80), (100, 50), (100, 110)
    base[0], base[17], base[61], base[291] = (100, 120), (100, 130), (85, 125), (115, 125)
    mesh = np.repeat(base[None], len(curve), axis=0)
    mesh[:, 17, 1] += 12 * curve
    mesh += np.random.default_rng(seed).normal(0, 0.25, mesh.shape)
    mesh += 5 * np.sin(np.arange(len(curve)) / 40)[:, None, None]
    return mesh.astype(np.float32)


def sound(curve: np.ndarray, seed: int = 0) -> np.ndarray:
    """Noise in the curve's rhythm."""
    times = np.arange(len(curve) * SAMPLES_PER_FRAME) / SAMPLES_PER_FRAME - 0.5
    level = np.interp(times, np.arange(len(curve)), curve)
    noise = np.random.default_rng(seed + 1).normal(0, 0.1, len(level))
    return (noise * (0.01 + level**2)).astype(np.float32)
