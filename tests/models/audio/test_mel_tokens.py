"""Mel tokens: each sees its own 40 ms, and silence is zero."""

import numpy as np
import pytest
import torch

from models.audio.mel import NUM_MELS
from models.audio.mel_tokens import MelTokens, frame_average


def click(frame: int, frames: int = 50) -> np.ndarray:
    wave = np.zeros(frames * 640, np.float32)
    wave[frame * 640 - 40 : frame * 640 + 40] = np.random.default_rng(0).uniform(-1, 1, 80)
    return wave


def test_shape_and_silence() -> None:
    encoder = MelTokens(tokens=5, width=96, gain=4.0)
    tokens = encoder.encode(np.zeros(16_000, np.float32), 25)
    assert tokens.shape == (25, 5, 96)
    assert (tokens[..., :NUM_MELS] == 0).all()
    assert torch.equal(tokens[3, :, NUM_MELS : NUM_MELS + 5], 4.0 * torch.eye(5))
    assert (tokens[..., NUM_MELS + 5 :] == 0).all()


def test_a_sound_is_in_the_token_of_its_time() -> None:
    encoder = MelTokens(tokens=7)
    energy = encoder.encode(click(20), 50)[..., :NUM_MELS].mean(-1)
    for frame in range(17, 24):
        assert int(energy[frame].argmax()) == 20 - frame + 3
    assert float(energy[10].max()) == 0.0


def test_full_scale_is_the_gain() -> None:
    noise = 1e4 * np.random.default_rng(0).standard_normal(16_000)
    content = MelTokens(gain=8.0).encode(noise, 25)[10, :, :NUM_MELS]
    assert torch.allclose(content, torch.tensor(8.0))


def test_beyond_the_audio_is_silence_and_length_is_as_asked() -> None:
    noise = np.random.default_rng(0).standard_normal(6_400).astype(np.float32)
    tokens = MelTokens().encode(noise, 30)
    assert tokens.shape[0] == 30
    assert (tokens[20:, :, :NUM_MELS] == 0).all()


def test_frames_do_not_depend_on_the_rest() -> None:
    noise = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    whole, part = MelTokens().encode(noise, 50), MelTokens().encode(noise[:25_600], 50)
    assert torch.allclose(whole[:30], part[:30], atol=1e-5)


def test_average_over_fractions_of_columns() -> None:
    columns = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    starts = torch.tensor([0.0, 0.5, 1.25, -1.0, 3.5], dtype=torch.float64)
    means = frame_average(columns, starts, 2.0)
    assert torch.allclose(means, torch.tensor([[1.5, 2.25, 3.75, 0.5, 2.0]]))


@pytest.mark.parametrize(("tokens", "width"), [(4, 96), (0, 96), (7, 80)])
def test_impossible_sizes_are_refused(tokens: int, width: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        MelTokens(tokens=tokens, width=width)
