"""Audio encoders by name keep to their protocol."""

from typing import Any

import numpy as np
import pytest

from models.audio.encoders import AudioEncoder, build_audio_encoder

SMALL_WHISPER = {"width": 16, "layers": 2, "heads": 2, "context": 100}


@pytest.mark.parametrize(
    ("name", "config"), [("mel", {"tokens": 5, "width": 88}), ("whisper", SMALL_WHISPER)]
)
def test_shapes_are_as_promised(name: str, config: dict[str, Any]) -> None:
    encoder = build_audio_encoder(name, config)
    assert isinstance(encoder, AudioEncoder)
    wave = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    tokens = encoder.encode(wave, 25)
    assert tokens.shape == (25, encoder.tokens_per_frame, encoder.width)
    assert not tokens.requires_grad


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="hubert"):
        build_audio_encoder("hubert", {})
