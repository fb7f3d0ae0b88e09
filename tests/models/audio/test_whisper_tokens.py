"""Whisper features: timing, the seam at window borders, and the two kinds of files."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.audio.whisper_files import convert_openai
from models.audio.whisper_tokens import FADE_STEPS, WhisperTokens, log_mel
from models.audio.windows import window_starts
from models.files.errors import ModelFileError

SMALL = {"width": 16, "layers": 2, "heads": 2, "context": 250}
"""Windows of 5 s instead of 30."""


def small(exact: bool = False) -> WhisperTokens:
    torch.manual_seed(0)
    return WhisperTokens(**SMALL, exact=exact)


def speechlike(seconds: float) -> np.ndarray:
    samples = int(16_000 * seconds)
    time = np.arange(samples) / 16_000
    loudness = 0.3 * (1 + np.sin(2 * np.pi * 0.7 * time))
    noise = np.random.default_rng(0).standard_normal(samples)
    return (loudness * (np.sin(2 * np.pi * 220 * time) + 0.1 * noise)).astype(np.float32)


def jump(features: torch.Tensor, step: int) -> float:
    """Change at a step against the usual change from step to step."""
    changes = (features[1:] - features[:-1]).flatten(1).norm(dim=1)
    return float(changes[step - 1] / changes.median())


def test_no_jump_where_windows_meet() -> None:
    wave = speechlike(12)
    before, after = small(exact=True).features(wave), small().features(wave)
    assert before.shape == after.shape == (600, 3, 16)
    for step in (250, 500):
        assert jump(before, step) > 3
        assert jump(after, step) < 2


def test_short_recordings_are_the_same_in_both_modes() -> None:
    wave = speechlike(4)
    assert torch.allclose(small().features(wave), small(exact=True).features(wave), atol=1e-5)


def test_every_frame_has_its_own_features() -> None:
    """Nothing of the tail is lost: the last frames differ from each other."""
    tokens = small().encode(speechlike(6.4), 160)
    assert tokens.shape == (160, 30, 16)
    assert all(not torch.allclose(a, b) for a, b in pairwise(tokens[-5:]))
    padded = small().encode(speechlike(6.4)[:-8_000], 160)
    assert padded.shape == tokens.shape


def test_tokens_are_the_steps_around_the_frame() -> None:
    encoder = small()
    features = torch.arange(60.0).view(20, 3, 1).expand(-1, -1, 16)
    tokens = encoder.frame_tokens(features, torch.tensor([0, 5, 99]))
    steps = tokens[..., 0].view(3, 10, 3)[:, :, 0] / 3
    assert steps[0].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert steps[1].tolist() == list(range(6, 16))
    assert steps[2].tolist() == [19] * 10
    assert tokens[1, 1, 0] == tokens[1, 0, 0] + 1


@pytest.mark.parametrize("total", [1, 250, 251, 300, 475, 476, 2_000])
def test_windows_cover_everything_with_enough_overlap(total: int) -> None:
    starts = window_starts(total, 250, 25)
    assert starts[0] == 0
    assert starts[-1] + 250 >= total
    assert all(0 < second - first <= 225 for first, second in pairwise(starts))
    assert all(start + 250 <= max(total, 250) for start in starts)


@pytest.mark.parametrize("seconds", [5.5, 9.0, 14.98])
def test_features_are_of_one_window_alone_but_for_a_short_fade(seconds: float) -> None:
    """With 5 s windows that each tell their number, at most 8 steps per seam are mixed."""
    encoder = small()
    numbers = iter(range(100))

    def numbered(mel: torch.Tensor) -> torch.Tensor:
        steps = mel.shape[1] // 2
        return torch.full((steps, 3, 16), float(next(numbers)))

    encoder._encode_window = numbered  # type: ignore[method-assign]
    values = encoder.features(np.zeros(round(seconds * 16_000), np.float32))[:, 0, 0]
    windows = next(numbers)
    assert windows >= 2
    mixed = int((values != values.round()).sum())
    assert 0 < mixed <= FADE_STEPS * (windows - 1)
    assert (values.diff() >= 0).all()
    assert set(values[values == values.round()].tolist()) == set(map(float, range(windows)))


@pytest.mark.parametrize("samples", [160, 200, 201, 16_000])
def test_log_mel_takes_any_length(samples: int) -> None:
    mel = log_mel(torch.randn(samples), 80)
    assert mel.shape == (80, samples // 160)
    assert torch.isfinite(mel).all()


def test_too_little_sound_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 320 samples"):
        small().features(np.zeros(319, np.float32))


def openai_weights(encoder: WhisperTokens) -> dict[str, torch.Tensor]:
    """The encoder's weights under OpenAI's names."""
    own = encoder.encoder.state_dict()
    positions = convert_openai({name: torch.tensor(i) for i, name in enumerate(OPENAI)})
    return {OPENAI[int(position)]: own[key] for key, position in positions.items()}


def _openai_names() -> list[str]:
    block = [f"attn.{part}" for part in ("query", "key", "value", "out")]
    block += ["attn_ln", "mlp.0", "mlp.2", "mlp_ln"]
    layers = [f"blocks.{i}.{part}.{kind}" for i in range(2) for part in block for kind in KINDS]
    outer = [f"{part}.{kind}" for part in ("conv1", "conv2", "ln_post") for kind in KINDS]
    return ["positional_embedding", *outer, *(k for k in layers if "attn.key.bias" not in k)]


KINDS = ("weight", "bias")
OPENAI = _openai_names()


def test_openai_file(tmp_path: Path) -> None:
    encoder = small()
    dims = {
        "n_audio_state": 16,
        "n_audio_layer": 2,
        "n_audio_head": 2,
        "n_mels": 80,
        "n_audio_ctx": 250,
    }
    weights = {f"encoder.{key}": value for key, value in openai_weights(encoder).items()}
    weights["decoder.ln.weight"] = torch.zeros(16)
    path = tmp_path / "tiny.pt"
    torch.save({"dims": dims, "model_state_dict": weights}, path)
    loaded = WhisperTokens.from_file(path)
    wave = speechlike(1)
    assert torch.equal(loaded.features(wave), encoder.features(wave))
    torch.save({"model_state_dict": weights}, path)
    with pytest.raises(ModelFileError, match="not a Whisper checkpoint"):
        WhisperTokens.from_file(path)


def test_hugging_face_folder(tmp_path: Path) -> None:
    encoder = small()
    weights = {f"model.encoder.{k}": v for k, v in encoder.encoder.state_dict().items()}
    save_file(weights | {"model.decoder.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    config = {
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "num_mel_bins": 80,
        "max_source_positions": 250,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    wave = speechlike(1)
    loaded = WhisperTokens.from_file(tmp_path)
    assert torch.equal(loaded.features(wave), encoder.features(wave))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match="'d_model' is missing"):
        WhisperTokens.from_file(tmp_path)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        WhisperTokens(width=10, heads=4)
