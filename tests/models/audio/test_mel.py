"""The mel spectrogram: its filters, its timing and what lies outside the audio."""

import numpy as np
import pytest
import torch

from models.audio.mel import (
    MAX_VALUE,
    WINDOW_COLUMNS,
    as_wave,
    mel_spectrogram,
    mel_window,
    slaney_filters,
)


def test_silence_is_the_lowest_value() -> None:
    mel = mel_spectrogram(np.zeros(16_000, np.float32))
    assert mel.shape == (80, 81)
    assert mel.dtype == torch.float32
    assert (mel == -MAX_VALUE).all()


def test_a_tone_lights_the_filter_around_it() -> None:
    time = np.arange(16_000) / 16_000
    rows = [
        int(mel_spectrogram(0.5 * np.sin(2 * np.pi * hz * time)).mean(1).argmax())
        for hz in (300, 1000, 4000)
    ]
    centres = slaney_filters(16_000, 800, 80, 55.0, 7600.0).argmax(1) * 20.0
    for row, hz in zip(rows, (300, 1000, 4000), strict=True):
        assert abs(float(centres[row]) - hz) < 0.06 * hz


def test_a_click_is_in_the_column_of_its_time() -> None:
    wave = np.zeros(16_000, np.float32)
    wave[8_000] = 1.0
    assert int(mel_spectrogram(wave).mean(0).argmax()) == 40


def test_louder_is_higher_and_clipped() -> None:
    noise = np.random.default_rng(0).standard_normal(8_000).astype(np.float32) * 0.01
    quiet, loud = mel_spectrogram(noise), mel_spectrogram(10 * noise)
    inner = (quiet > -MAX_VALUE) & (loud < MAX_VALUE)
    # 20 dB of 100 dB over a range of 8.
    assert torch.allclose((loud - quiet)[inner], torch.tensor(1.6), atol=1e-3)
    assert float(mel_spectrogram(1e4 * noise).max()) == MAX_VALUE


def test_filters_have_unit_area() -> None:
    filters = slaney_filters(16_000, 4096, 40)
    assert filters.shape == (40, 2049)
    area = filters.sum(1) * 16_000 / 4096
    assert torch.allclose(area, torch.ones(40, dtype=torch.float64), atol=0.05)


@pytest.mark.parametrize("start", [0, 1, 7, 24, 25])
def test_window_starts_at_the_frame(start: int) -> None:
    mel = torch.arange(400.0).expand(80, 400)
    window = mel_window(mel, start)
    assert window.shape == (80, WINDOW_COLUMNS)
    assert float(window[0, 0]) == int(80 * start / 25)


def test_window_outside_the_audio_is_silence() -> None:
    mel = torch.ones(80, 100)
    early, late, far = mel_window(mel, -5), mel_window(mel, 25), mel_window(mel, 1000)
    assert early[0, :16].tolist() == [-MAX_VALUE] * 16
    assert early[0, 16:].tolist() == [1.0] * 36
    assert late[0].tolist() == [1.0] * 20 + [-MAX_VALUE] * 32
    assert (far == -MAX_VALUE).all()
    assert mel_window(mel, -1000).shape == (80, WINDOW_COLUMNS)


def test_stereo_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 100\)"):
        as_wave(np.zeros((2, 100)))
