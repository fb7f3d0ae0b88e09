"""Mel-frequency cepstral coefficients as SyncNet of Chung & Zisserman was trained on.

The formula is that of the python_speech_features package with its defaults: 25 ms
rectangular windows every 10 ms, 26 HTK filters, 13 coefficients, lifter 22, the first
coefficient replaced by the log energy. `log_filter_banks` is what it computes on the way.
"""

import math

import torch

from models.audio.mel import SAMPLE_RATE, Audio, as_wave

COEFFICIENTS = 13

_WINDOW, _STEP, _N_FFT, _FILTERS, _LIFTER, _PREEMPHASIS = 400, 160, 512, 26, 22, 0.97
_EPS = torch.finfo(torch.float64).eps
INT16_SCALE = 32768.0
_STEPS_AT_ONCE = 6_000
"""A minute, so that the spectra of long recordings are never held."""


def _filterbank() -> torch.Tensor:
    """HTK triangles with corners on whole FFT bins, (26, 257)."""
    top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    mel = torch.linspace(0, top, _FILTERS + 2, dtype=torch.float64)
    corner = ((_N_FFT + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE).floor()
    low, mid, high = (corner[i : i + _FILTERS, None] for i in range(3))
    bins = torch.arange(_N_FFT // 2 + 1, dtype=torch.float64)
    rising = torch.where((bins >= low) & (bins < mid), (bins - low) / (mid - low), 0.0)
    falling = torch.where((bins >= mid) & (bins < high), (high - bins) / (high - mid), 0.0)
    return rising + falling


def _cosines() -> torch.Tensor:
    """Orthonormal DCT-II with the lifter in it, (13, 26)."""
    k = torch.arange(COEFFICIENTS, dtype=torch.float64)[:, None]
    n = torch.arange(_FILTERS, dtype=torch.float64)
    basis = torch.cos(math.pi * k * (2 * n + 1) / (2 * _FILTERS)) * math.sqrt(2 / _FILTERS)
    basis[0] /= math.sqrt(2)
    return basis * (1 + _LIFTER / 2 * torch.sin(math.pi * k / _LIFTER))


def _filtered(wave: Audio) -> tuple[torch.Tensor, torch.Tensor]:
    """What the filters let through, (steps, 26), and the energy, (steps,), both float64."""
    signal = as_wave(wave)
    scale = INT16_SCALE if signal.is_floating_point() else 1.0
    signal = signal.to(torch.float64) * scale
    emphasised = torch.cat([signal[:1], signal[1:] - _PREEMPHASIS * signal[:-1]])
    steps = 1 + max(0, math.ceil((len(signal) - _WINDOW) / _STEP))
    padding = (steps - 1) * _STEP + _WINDOW - len(signal)
    frames = torch.nn.functional.pad(emphasised, (0, padding)).unfold(0, _WINDOW, _STEP)
    filters = _filterbank().T.to(signal.device)
    filtered, energy = [], []
    for part in frames.split(_STEPS_AT_ONCE):
        power = torch.fft.rfft(part, _N_FFT).abs().square() / _N_FFT
        energy.append(power.sum(1))
        filtered.append(power @ filters)
    return torch.cat(filtered), torch.cat(energy)


def _logarithm(values: torch.Tensor) -> torch.Tensor:
    # The package replaces exact zeros only; smaller values than eps stay as they are.
    return torch.where(values == 0, _EPS, values).log()


def log_filter_banks(wave: Audio) -> torch.Tensor:
    """Logarithms of 26 filter banks of mono audio at 16 kHz.

    Args:
        wave: (samples,) int16, or floating point in [-1, 1] (scaled to int16's range).

    Returns:
        (steps, 26) float64, 100 steps per second.
    """
    return _logarithm(_filtered(wave)[0])


def mfcc(wave: Audio) -> torch.Tensor:
    """Cepstral coefficients of mono audio at 16 kHz.

    Args:
        wave: (samples,) int16, or floating point in [-1, 1] (scaled to int16's range).

    Returns:
        (steps, 13) float64, 100 steps per second.
    """
    filtered, energy = _filtered(wave)
    features = _logarithm(filtered) @ _cosines().T.to(filtered.device)
    features[:, 0] = _logarithm(energy)
    return features
