"""Speech is told from sound that is as loud, frame by frame."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import models.audio.voice_activity as voice_activity
import tasks.ingest.frame_facts as frame_facts
from datasets.media.audio import read_audio
from models.audio.mel import SAMPLE_RATE, SAMPLES_PER_FRAME
from models.audio.voice_activity import SPEECH, speech_probability

SECONDS = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(len(SECONDS)),
        0.1 * np.random.default_rng(0).standard_normal(len(SECONDS)),
        0.3 * np.sin(2 * np.pi * 300 * SECONDS),
        sum(0.1 * np.sin(2 * np.pi * pitch * SECONDS) for pitch in (220, 277, 330)),
    ],
    ids=["silence", "noise", "tone", "chord"],
)
def test_other_sound_is_no_speech(sound: np.ndarray) -> None:
    assert speech_probability(sound.astype(np.float32)).max() < SPEECH


def test_the_frames_with_speech_are_found(shared: Path) -> None:
    speech = read_audio(shared / "audio" / "retalk_1.wav")[: 3 * SAMPLE_RATE]
    still = np.zeros(2 * SAMPLE_RATE, np.float32)
    found = speech_probability(np.concatenate([still, speech, still])) >= SPEECH
    assert found[50:125].mean() > 0.9
    # The model hears an end for a little longer than it lasts.
    assert not found[:49].any()
    assert not found[140:].any()


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:DeprecationWarning")
def test_equals_the_script_of_the_wheel(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = read_audio(shared / "audio" / "jfk.flac")[: 100 * voice_activity.CHUNK]
    spec = find_spec("silero_vad")
    assert spec is not None
    assert spec.origin is not None
    script = torch.jit.load(Path(spec.origin).parent / "data" / "silero_vad.jit")
    script.reset_states()
    chunks = torch.from_numpy(sound).view(-1, 1, voice_activity.CHUNK)
    with torch.inference_mode():
        expected = torch.cat([script(chunk, SAMPLE_RATE)[0] for chunk in chunks])
    # Parts that do not divide the sound must not be heard either.
    monkeypatch.setattr(voice_activity, "_AT_ONCE", 37)
    with torch.inference_mode():
        ours = voice_activity._network()(torch.from_numpy(sound))
    assert float((ours - expected).abs().max()) < 1e-4
    assert float(expected.std()) > 0.2


def test_a_call_knows_nothing_of_the_one_before(shared: Path) -> None:
    speech = read_audio(shared / "audio" / "retalk_1.wav")[:SAMPLE_RATE]
    first = speech_probability(speech)
    speech_probability(speech[::-1].copy())
    assert np.array_equal(speech_probability(speech), first)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (640, 1), (641, 2), (16_001, 26)])
def test_one_value_per_frame(samples: int, frames: int) -> None:
    assert speech_probability(np.ones(samples, np.float32)).shape == (frames,)


def test_both_rooms_call_the_same_probability_speech() -> None:
    """Judging frames must not load torch, so that it cannot take the value from here."""
    assert frame_facts.SPEECH == SPEECH


def test_threads_stay_as_they_were() -> None:
    before = torch.get_num_threads()
    voice_activity._network.cache_clear()
    speech_probability(np.zeros(SAMPLES_PER_FRAME, np.float32))
    assert torch.get_num_threads() == before


def test_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 640\).*samples"):
        speech_probability(np.zeros((2, 640), np.float32))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    voice_activity._network.cache_clear()
    monkeypatch.setattr(voice_activity, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install silero-vad"):
        speech_probability(np.zeros(640, np.float32))
