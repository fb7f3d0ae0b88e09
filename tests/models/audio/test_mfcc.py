"""Cepstral coefficients: their number, their scale and silence."""

import numpy as np
import pytest
import torch

from models.audio.mfcc import mfcc


@pytest.mark.parametrize(
    ("samples", "steps"), [(1, 1), (400, 1), (401, 2), (560, 2), (561, 3), (16_000, 99)]
)
def test_steps(samples: int, steps: int) -> None:
    assert mfcc(np.ones(samples, np.int16)).shape == (steps, 13)


def test_float_and_int16_agree() -> None:
    samples = (3_000 * np.random.default_rng(0).standard_normal(8_000)).astype(np.int16)
    assert torch.allclose(mfcc(samples), mfcc(samples / 32768.0))


def test_silence_is_finite() -> None:
    assert torch.isfinite(mfcc(np.zeros(8_000, np.int16))).all()


def test_loudness_is_in_the_energy_alone() -> None:
    noise = 1e-2 * np.random.default_rng(0).standard_normal(8_000)
    quiet, loud = mfcc(noise), mfcc(10 * noise)
    assert torch.allclose(loud[:, 0] - quiet[:, 0], torch.tensor(np.log(100.0)))
    assert torch.allclose(loud[:, 1:], quiet[:, 1:], atol=1e-6)
