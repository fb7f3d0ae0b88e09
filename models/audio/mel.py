"""Mel spectrograms without an audio library (method: METHOD section 1, Wav2Lip's mel).

`mel_spectrogram` is the input of StableSyncNet and of the tiny recipe's audio tokens;
`slaney_filters` also serves Whisper's log-mel. Only torch and numpy are needed.
"""

import math

import numpy as np
import torch

SAMPLE_RATE = 16_000
HOP = 200
MEL_RATE = SAMPLE_RATE // HOP
"""Mel columns per second."""
NUM_MELS = 80
N_FFT = 800
FPS = 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
WINDOW_COLUMNS = math.ceil(16 / 5 * 16)
"""Mel columns of a 16-frame window: 52; see `window_columns`."""
MAX_VALUE = 4.0
"""Values lie in [-MAX_VALUE, MAX_VALUE]; silence is -MAX_VALUE."""

_PREEMPHASIS = 0.97
_MIN_LEVEL_DB = -100.0
_REF_LEVEL_DB = 20.0

Audio = np.ndarray | torch.Tensor


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's scale: linear below 1 kHz (15 mel), logarithmic above (27 steps per 6.4x)."""
    linear = hz * 3 / 200
    return np.where(
        hz < 1000, linear, 15 + 27 * np.log(np.maximum(hz, 1e-9) / 1000) / math.log(6.4)
    )


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))


def slaney_filters(
    sample_rate: int, n_fft: int, n_mels: int, low_hz: float = 0.0, high_hz: float | None = None
) -> torch.Tensor:
    """Triangular filters of unit area (Slaney's normalisation), (n_mels, n_fft // 2 + 1)."""
    high_hz = sample_rate / 2 if high_hz is None else high_hz
    ends = _hz_to_mel(np.array([low_hz, high_hz]))
    edges = _mel_to_hz(np.linspace(ends[0], ends[1], n_mels + 2))
    bins = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    rising = (bins[None] - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins[None]) / np.diff(edges)[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return torch.from_numpy(triangles * (2 / (edges[2:] - edges[:-2]))[:, None])


_FILTERS = slaney_filters(SAMPLE_RATE, N_FFT, NUM_MELS, 55.0, 7600.0)


def as_wave(wave: Audio) -> torch.Tensor:
    """Mono audio as a 1-D tensor on its own device.

    Raises:
        ValueError: the audio is not one-dimensional.
    """
    tensor = torch.as_tensor(wave)
    if tensor.ndim != 1:
        raise ValueError(f"expected mono audio of shape (samples,), got {tuple(tensor.shape)}")
    return tensor


def mel_spectrogram(wave: Audio) -> torch.Tensor:
    """Normalised log-mel spectrogram.

    Args:
        wave: (samples,) mono at 16 kHz in [-1, 1].

    Returns:
        (80, samples // 200 + 1) float32 in [-4, 4], 80 columns per second; column k is
        centred on sample 200 k. Computed in float64, as the reference does.
    """
    signal = as_wave(wave).to(torch.float64)
    emphasised = signal.clone()
    emphasised[1:] -= _PREEMPHASIS * signal[:-1]
    spectrum = torch.stft(
        torch.nn.functional.pad(emphasised, (N_FFT // 2, N_FFT // 2)),
        N_FFT,
        hop_length=HOP,
        window=torch.hann_window(N_FFT, dtype=torch.float64, device=signal.device),
        center=False,
        return_complex=True,
    )
    mel = _FILTERS.to(signal.device) @ spectrum.abs()
    decibel = 20 * torch.log10(mel.clamp_min(10 ** (_MIN_LEVEL_DB / 20))) - _REF_LEVEL_DB
    scaled = 2 * MAX_VALUE * (decibel - _MIN_LEVEL_DB) / -_MIN_LEVEL_DB - MAX_VALUE
    return scaled.clamp(-MAX_VALUE, MAX_VALUE).to(torch.float32)


def window_columns(num_frames: int) -> int:
    """Mel columns that last as long as a window of frames at 25 fps."""
    return math.ceil(num_frames / 5 * 16)


def mel_window(mel: torch.Tensor, start_frame: int, columns: int = WINDOW_COLUMNS) -> torch.Tensor:
    """The mel columns of the window that starts at a video frame (25 fps).

    Args:
        mel: (80, columns) from `mel_spectrogram`.
        start_frame: may be outside the audio, where silence is assumed.
        columns: 52 for 16 frames.

    Returns:
        (80, columns).
    """
    start = MEL_RATE * start_frame // FPS
    inside = mel[:, max(start, 0) : max(start + columns, 0)]
    left = min(max(-start, 0), columns)
    right = columns - left - inside.shape[1]
    return torch.nn.functional.pad(inside, (left, right), value=-MAX_VALUE)
