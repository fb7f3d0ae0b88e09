"""The voice of the sample: loudness, first formant and timing follow the mouth."""

import numpy as np
import pytest

from datasets.sample.voice import SYLLABLE_PAUSE_S, Syllable, Voice, room_noise, speak
from datasets.sample.voice import Speech as SpokenWords

RATE = 16000


def frame_energy(audio: np.ndarray) -> np.ndarray:
    return np.sqrt((audio[: len(audio) // 640 * 640].reshape(-1, 640) ** 2).mean(axis=1))


def one_vowel(openness: float, formants: tuple[float, float, float]) -> SpokenWords:
    syllable = Syllable(0.1, 0.4, openness, 0.0, formants, 0.0)
    return SpokenWords([syllable], Voice(), 0.0, 0.7, seed=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_loudness_follows_the_opening(seed: int) -> None:
    spoken = speak(6.0, seed, Voice(140.0, 0.95, 0.1, 1.0))
    energy = frame_energy(spoken.audio(0.0, 6.0, RATE))
    opening = spoken.opening((np.arange(len(energy)) + 0.5) / 25)
    assert np.corrcoef(energy, opening)[0, 1] > 0.93
    shifted = np.corrcoef(energy[4:], opening[:-4])[0, 1]
    assert shifted < 0.7


def test_pauses_are_closed_and_silent() -> None:
    spoken = speak(6.0, 3, Voice())
    ends = np.array([s.onset_s + s.duration_s for s in spoken.syllables[:-1]])
    gaps = np.array([s.onset_s for s in spoken.syllables[1:]]) - ends
    middles = (ends + gaps / 2)[(gaps >= SYLLABLE_PAUSE_S) & (ends > 0.1) & (ends < 5.5)]
    assert len(middles) >= 2
    assert spoken.opening(middles).max() == 0
    audio = spoken.audio(0.0, 6.0, RATE)
    for middle in middles:
        quiet = audio[round((middle - 0.05) * RATE) : round((middle + 0.05) * RATE)]
        assert np.abs(quiet).max() < 0.01 < np.abs(audio).max()


def test_opening_rises_within_40_ms() -> None:
    spoken = one_vowel(1.0, (860.0, 1300.0, 2550.0))
    times = np.arange(0.0, 0.2, 0.001)
    opening = spoken.opening(times)
    rise = times[opening > 0.9 * opening.max()][0] - times[opening > 0.1 * opening.max()][0]
    assert rise == pytest.approx(0.04, abs=0.005)


@pytest.mark.parametrize("shift", [-9, -1, 4, 9])
def test_a_shift_moves_the_voice_by_exactly_that_much(shift: int) -> None:
    spoken = speak(3.0, 5, Voice(breath=0.0))
    straight = spoken.audio(0.0, 3.0, RATE)
    late = spoken.audio(-shift / 25, 3.0, RATE)
    size = 1 << 17
    product = np.fft.rfft(late, size) * np.conj(np.fft.rfft(straight, size))
    lag = int(np.fft.irfft(product).argmax())
    assert (lag + size // 2) % size - size // 2 == shift * 640


def test_a_more_open_vowel_is_louder_and_has_a_higher_first_formant() -> None:
    def loudness_and_peak(openness: float, f1: float) -> tuple[float, float]:
        audio = one_vowel(openness, (f1, 1800.0, 2600.0)).audio(0.25, 0.2, RATE)
        spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
        low = np.fft.rfftfreq(len(audio), 1 / RATE) < 1200
        return float(audio.std()), float(
            (np.fft.rfftfreq(len(audio), 1 / RATE)[low] * spectrum[low]).sum() / spectrum[low].sum()
        )

    closed, open_wide = loudness_and_peak(0.36, 330.0), loudness_and_peak(1.0, 860.0)
    assert open_wide[0] > 2 * closed[0]
    assert open_wide[1] > closed[1] + 200


def test_speech_is_reproducible_and_differs_by_seed() -> None:
    first = speak(2.0, 8, Voice()).audio(0.0, 2.0, RATE)
    assert first.dtype == np.float32
    assert np.abs(first).max() < 0.7
    assert np.array_equal(first, speak(2.0, 8, Voice()).audio(0.0, 2.0, RATE))
    assert not np.array_equal(first, speak(2.0, 9, Voice()).audio(0.0, 2.0, RATE))


def test_lips_are_round_for_u_and_spread_for_i() -> None:
    for spread in (-1.0, 1.0):
        syllable = Syllable(0.1, 0.4, 0.4, spread, (330.0, 800.0, 2250.0), 0.0)
        spoken = SpokenWords([syllable], Voice(), 0.0, 0.7, seed=1)
        assert spoken.spread(np.array([0.25]))[0] == pytest.approx(spread, abs=0.1)
        assert spoken.spread(np.array([0.02, 0.65])).tolist() == [0.0, 0.0]


def test_no_syllables_leave_only_the_room() -> None:
    spoken = SpokenWords([], Voice(), 0.0, 1.0, seed=0)
    assert spoken.opening(np.linspace(0, 1, 9)).max() == 0
    assert np.abs(spoken.audio(0.0, 1.0, RATE)).max() < 0.01


def test_room_noise_is_steady() -> None:
    energy = frame_energy(room_noise(4.0, RATE, 1))
    assert len(energy) == 100
    assert energy.min() > 0.2 * energy.max() > 0.005
