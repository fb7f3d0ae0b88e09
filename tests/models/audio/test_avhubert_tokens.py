"""AV-HuBERT's tokens: what they hear, neighbours and their codes, long recordings."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.audio.avhubert_tokens import (
    FADE_FRAMES,
    OVERLAP_FRAMES,
    WINDOW_FRAMES,
    AVHubertTokens,
    avhubert_features,
    place_codes,
)
from models.audio.encoders import AudioEncoder, build_audio_encoder
from models.audio.mfcc import log_filter_banks
from models.files.errors import ModelFileError
from tests.parity import CASES
from tests.parity.case_avhubert import build_encoder
from tests.parity.draw import draw_weights, read_case
from tests.support.fairseq_file import write_fairseq

SMALL = {"width": 32, "layers": 2, "heads": 2, "inner": 40}
STEP = WINDOW_FRAMES - OVERLAP_FRAMES


def small(**options: object) -> AVHubertTokens:
    torch.manual_seed(0)
    return AVHubertTokens(**{**SMALL, **options})  # type: ignore[arg-type]


def speechlike(frames: int, extra: int = 0) -> np.ndarray:
    samples = 640 * frames + extra
    time = np.arange(samples) / 16_000
    noise = np.random.default_rng(0).standard_normal(samples)
    loud = 0.2 * (1 + np.sin(2 * np.pi * 0.7 * time))
    return (loud * (np.sin(2 * np.pi * 220 * time) + 0.1 * noise)).astype(np.float32)


def test_it_is_an_audio_encoder() -> None:
    encoder = build_audio_encoder("avhubert", SMALL)
    assert isinstance(encoder, AudioEncoder)
    assert (encoder.tokens_per_frame, encoder.width) == (5, 32)
    assert not any(each.requires_grad for each in small().parameters())


@pytest.mark.parametrize("samples", [1, 399, 640, 641, 16_000])
@pytest.mark.parametrize("frames", [1, 7])
def test_any_sound_gives_the_frames_that_are_asked_for(samples: int, frames: int) -> None:
    tokens = small().encode(speechlike(30)[:samples], frames)
    assert tokens.shape == (frames, 5, 32)
    assert tokens.dtype == torch.float32
    assert torch.isfinite(tokens).all()


def test_a_frame_is_four_rows_oldest_first_and_rows_of_zeros_at_the_end() -> None:
    wave = speechlike(10)
    rows, features = log_filter_banks(wave).float(), avhubert_features(wave)
    assert (len(rows), features.shape) == (39, (10, 104))
    assert torch.equal(features[3], rows[12:16].flatten())
    assert torch.equal(features[9], torch.cat([rows[36:39].flatten(), torch.zeros(26)]))
    longer, shorter = avhubert_features(wave, 12), avhubert_features(wave, 4)
    assert torch.equal(longer[:10], features)
    assert (longer[10:] == 0).all()
    assert torch.equal(shorter, features[:4])


def test_floats_are_scaled_to_the_range_of_int16() -> None:
    whole = (speechlike(10) * 32768).astype(np.int16)
    assert torch.equal(avhubert_features(whole), avhubert_features(whole / 32768))


def test_digital_silence_is_zero_after_normalisation() -> None:
    network = small()
    seen: list[torch.Tensor] = []
    network.proj.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.encode(np.zeros(6400, np.float32), 10)
    assert (seen[0][:9] == 0).all()


def test_neighbours_are_in_order_and_each_place_has_its_code() -> None:
    network = small()
    outputs = torch.arange(6.0)[:, None].expand(6, 32)
    tokens = network.frame_tokens(outputs) - network.codes
    found = tokens.mean(-1).round().int().tolist()
    assert found[0] == [0, 0, 0, 1, 2]
    assert found[3] == [1, 2, 3, 4, 5]
    assert found[5] == [3, 4, 5, 5, 5]
    assert torch.equal(network.frame_tokens(torch.zeros(3, 32))[1], network.codes)
    assert network.codes.abs().max() > 1


def test_codes_are_orthogonal_and_as_strong_as_a_normalised_token() -> None:
    codes = place_codes(5, 768).double()
    torch.testing.assert_close(
        codes @ codes.T / 768, torch.eye(5, dtype=torch.double), atol=1e-5, rtol=0
    )
    assert (place_codes(1, 8) == 0).all()


def test_one_token_is_the_encoders_own_output() -> None:
    network = small(neighbours=0)
    wave = speechlike(12)
    assert torch.equal(network.encode(wave, 12)[:, 0], network.outputs(wave, 12))


def test_a_layer_is_its_blocks_output_without_the_final_norm() -> None:
    wave, whole = speechlike(12), small()
    first = small(layer=1)
    first.load_state_dict(whole.state_dict())
    blocks = whole.blocks(avhubert_features(wave))
    assert torch.equal(first.outputs(wave), blocks[0])
    assert torch.equal(whole.outputs(wave), whole.encoder.layer_norm(blocks[1]))


def test_short_recordings_are_the_same_in_both_modes() -> None:
    wave = speechlike(50)
    assert torch.allclose(small().encode(wave, 50), small(exact=True).encode(wave, 50), atol=1e-6)


def test_long_recordings_are_encoded_in_windows() -> None:
    network, exact = small(), small(exact=True)
    lengths: list[int] = []
    network.proj.register_forward_pre_hook(lambda _, given: lengths.append(len(given[0])))
    wave = speechlike(1000)
    tokens = network.outputs(wave, 1000)
    assert tokens.shape == (1000, 32)
    assert lengths == [WINDOW_FRAMES] * 3
    assert not torch.allclose(tokens, exact.outputs(wave, 1000), atol=1e-3)
    # The first window is its own.
    alone = exact.outputs(speechlike(WINDOW_FRAMES, 400), WINDOW_FRAMES)
    fade = STEP + (OVERLAP_FRAMES - FADE_FRAMES) // 2
    torch.testing.assert_close(tokens[:fade], alone[:fade], rtol=0, atol=1e-5)


def test_two_halves_agree_with_the_whole_but_where_they_overlap() -> None:
    network = small()
    wave = speechlike(1000)
    # So that pre-emphasis, which looks one sample back, does not tell the halves apart.
    wave[640 * 300 - 1] = 0
    whole = network.outputs(wave, 1000)
    first = network.outputs(wave[: 640 * 700 + 400], 700)
    second = network.outputs(wave[640 * 300 :], 700)
    seam = 2 * STEP + OVERLAP_FRAMES // 2
    torch.testing.assert_close(first[: seam - 2], whole[: seam - 2], rtol=0, atol=1e-5)
    later = STEP + OVERLAP_FRAMES // 2 + 2
    torch.testing.assert_close(second[later - 300 :], whole[later:], rtol=0, atol=1e-5)


def test_no_window_but_a_short_fade_holds_a_mean_of_two() -> None:
    network = small()
    numbers = iter(range(10))
    network.blocks = lambda features: [torch.full((len(features), 32), float(next(numbers)))]  # type: ignore[method-assign]
    network.layer = 1
    values = network.outputs(speechlike(1000), 1000)[:, 0]
    mixed = int((values != values.round()).sum())
    assert 0 < mixed <= 2 * FADE_FRAMES
    assert set(values[values == values.round()].tolist()) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 5}, "must be a multiple of heads 5"),
        ({"position_groups": 5}, "position_groups 5"),
        ({"layer": 3}, "between 0 and 2, got 3"),
        ({"neighbours": -1}, "must not be negative"),
    ],
)
def test_impossible_sizes_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(**options)


def test_the_wrong_norm_order_gives_other_numbers() -> None:
    """Names and shapes do not tell it, so only the file's configuration can."""
    case, arrays = read_case(CASES, "avhubert_audio")
    wrong = {**case, "config": {**case["config"], "layer_norm_first": False}}
    outputs = build_encoder(wrong).outputs(arrays["wav"]).numpy()
    error = np.abs(outputs - arrays["last"]).max() / np.abs(arrays["last"]).max()
    assert error > 0.5


def test_a_file_of_other_sizes_is_refused_by_name(tmp_path: Path) -> None:
    case, _ = read_case(CASES, "avhubert_audio")
    path = write_fairseq(
        tmp_path / "a.pt", draw_weights(case["salt"], case["state_dict"]), case["config"]
    )
    sizes = {"width": 64, "layers": 4, "heads": 4, "inner": 160}
    network = AVHubertTokens(**sizes)  # type: ignore[arg-type]
    network.load_file(path)
    same = AVHubertTokens.from_file(path)
    wave = speechlike(8)
    assert torch.equal(network.encode(wave, 8), same.encode(wave, 8))
    for name, value in (("heads", 8), ("pre_norm", False), ("normalize", False)):
        other = AVHubertTokens(**{**sizes, name: value})  # type: ignore[arg-type]
        with pytest.raises(ModelFileError, match=f"the recipe's audio encoder has {name} {value}"):
            other.load_file(path)
