"""Speech without words for the sample clips: syllables, and a voice that speaks them.

One list of syllables drives both sides. `Speech.opening(t)` is how far the mouth is open
at any time; `Speech.audio(...)` sings each syllable with formants whose loudness and first
resonance follow exactly that opening, so lips can be learned from sound, and sound measured
against lips. The voice is synthesised by pulses that excite damped sines, one per formant
(the FOF method of Rodet, 1984), so it needs nothing but numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

ATTACK_S = 0.068
"""Seconds of the raised-cosine opening; it takes 40 ms from 10 to 90 %."""
RELEASE_S = 0.085
"""Seconds of the closing."""
SYLLABLE_PAUSE_S = 0.3
"""Shortest pause between phrases, seconds."""
_FORMANT_GAINS = np.array([1.0, 0.55, 0.3, 0.16, 0.08])
_FORMANT_WIDTHS_HZ = np.array([75.0, 95.0, 130.0, 190.0, 260.0])
_CLOSED_F1_HZ = 230.0
_LOUDNESS_POWER = 1.35
"""Amplitude is the opening to this power: a half-open mouth is 8 dB below an open one."""


@dataclass(frozen=True)
class Vowel:
    """Where the tongue is: openness 0..1, lips from rounded (-1) to spread (1), formants."""

    openness: float
    spread: float
    f1: float
    f2: float
    f3: float


VOWELS: dict[str, Vowel] = {
    "a": Vowel(1.0, 0.0, 860.0, 1300.0, 2550.0),
    "ae": Vowel(0.88, 0.4, 740.0, 1720.0, 2450.0),
    "uh": Vowel(0.74, 0.0, 640.0, 1190.0, 2400.0),
    "e": Vowel(0.6, 0.7, 540.0, 1890.0, 2500.0),
    "o": Vowel(0.58, -0.75, 520.0, 880.0, 2400.0),
    "er": Vowel(0.5, -0.2, 480.0, 1400.0, 1800.0),
    "i": Vowel(0.38, 1.0, 320.0, 2300.0, 3000.0),
    "u": Vowel(0.36, -1.0, 330.0, 800.0, 2250.0),
}


@dataclass(frozen=True)
class Voice:
    """How somebody sounds: mean pitch, formant scale (a short throat is above 1), breath
    noise 0..1, and syllables per second relative to a usual speaker."""

    pitch_hz: float = 190.0
    throat: float = 1.0
    breath: float = 0.1
    tempo: float = 1.0


@dataclass(frozen=True)
class Syllable:
    """One syllable: onset and duration in seconds, openness 0..1, lip spread -1..1, its
    formants in Hz, and how strong the hiss of its consonant is (0 for none)."""

    onset_s: float
    duration_s: float
    openness: float
    spread: float
    formants: tuple[float, float, float]
    hiss: float


def make_syllables(seconds: float, rng: np.random.Generator, tempo: float) -> list[Syllable]:
    """Phrases of 3 to 8 syllables with pauses between, filling 0..seconds."""
    names = list(VOWELS)
    syllables: list[Syllable] = []
    time = float(rng.uniform(0.05, 0.3))
    while time < seconds:
        for _ in range(int(rng.integers(3, 9))):
            vowel = VOWELS[names[int(rng.integers(len(names)))]]
            duration = float(rng.uniform(0.17, 0.36)) / tempo
            openness = float(np.clip(vowel.openness * rng.uniform(0.85, 1.12), 0.3, 1.0))
            formants = tuple(f * rng.uniform(0.96, 1.04) for f in (vowel.f1, vowel.f2, vowel.f3))
            hiss = float(rng.uniform(0.3, 1.0)) if rng.random() < 0.5 else 0.0
            if time + duration > seconds:
                return syllables
            syllables.append(
                Syllable(time, duration, openness, vowel.spread, formants, hiss)  # type: ignore[arg-type]
            )
            time += duration + float(rng.uniform(0.0, 0.07))
        time += float(rng.uniform(SYLLABLE_PAUSE_S, 0.75))
    return syllables


@dataclass
class Speech:
    """Syllables spoken by a voice from `start_s` to `end_s`."""

    syllables: Sequence[Syllable]
    voice: Voice
    start_s: float
    end_s: float
    seed: int
    _times: np.ndarray = field(init=False, repr=False)
    _opening: np.ndarray = field(init=False, repr=False)
    _spread: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._times = np.arange(self.start_s, self.end_s + 1e-3, 1e-3)
        self._opening = self._contour([s.openness for s in self.syllables])
        spread = self._contour([s.spread * s.openness for s in self.syllables])
        self._spread = spread / np.maximum(self._opening, 0.25)

    def _contour(self, heights: Sequence[float]) -> np.ndarray:
        """Sum of syllable shapes at 1 kHz; syllables never overlap."""
        total = np.zeros_like(self._times)
        for syllable, height in zip(self.syllables, heights, strict=True):
            inside = self._times - syllable.onset_s
            attack = np.clip(inside / ATTACK_S, 0.0, 1.0)
            release = np.clip((syllable.duration_s - inside) / RELEASE_S, 0.0, 1.0)
            droop = 1 - 0.2 * np.clip(inside / syllable.duration_s, 0.0, 1.0)
            shape = np.sin(attack * np.pi / 2) ** 2 * np.sin(release * np.pi / 2) ** 2
            total += height * droop * shape
        return total

    def opening(self, times_s: np.ndarray) -> np.ndarray:
        """Mouth opening 0..1 at these times; 0 outside the spoken span."""
        return np.interp(times_s, self._times, self._opening, left=0.0, right=0.0)

    def spread(self, times_s: np.ndarray) -> np.ndarray:
        """Lip spread -1 (rounded) .. 1 (spread), 0 while the mouth is closed."""
        return np.interp(times_s, self._times, self._spread, left=0.0, right=0.0)

    def audio(self, start_s: float, seconds: float, rate: int) -> np.ndarray:
        """float32 (seconds * rate,) of what is heard from `start_s` on, peak below 0.7."""
        count = round(seconds * rate)
        times = start_s + np.arange(count) / rate
        loudness = self.opening(times) ** _LOUDNESS_POWER
        rng = np.random.default_rng([self.seed, 7])
        voiced = self._pulses(start_s, count, rate, rng)
        voiced += loudness * self.voice.breath * 0.12 * rng.standard_normal(count)
        hiss = 0.03 * self._hiss(times) * np.diff(rng.standard_normal(count + 1))
        signal = 0.36 * voiced + hiss + 10 ** (-64 / 20) * rng.standard_normal(count)
        return (0.7 * np.tanh(signal / 0.7)).astype(np.float32)

    def _hiss(self, times: np.ndarray) -> np.ndarray:
        """Strength of consonant noise: it ends where its syllable's attack begins."""
        strength = np.zeros_like(times)
        for syllable in self.syllables:
            if syllable.hiss:
                first, last = np.searchsorted(
                    times, (syllable.onset_s - 0.04, syllable.onset_s + 0.02)
                )
                strength[first:last] += syllable.hiss * np.hanning(max(last - first, 1))
        return strength

    def _pitch(self, rng: np.random.Generator) -> np.ndarray:
        """Pitch in Hz at 1 kHz: slow wander, and up with stress."""
        wander = np.zeros_like(self._times)
        for rate_hz, depth in ((0.35, 0.09), (0.8, 0.05), (2.3, 0.03)):
            wander += depth * np.sin(2 * np.pi * (rate_hz * self._times + rng.random()))
        return self.voice.pitch_hz * (1 + wander + 0.08 * (self._opening - 0.4))

    def _formants(self, times: np.ndarray) -> np.ndarray:
        """(n, 5) resonances in Hz: the first rises with the opening."""
        centres = np.array([s.onset_s + s.duration_s / 2 for s in self.syllables])
        targets = np.array([s.formants for s in self.syllables])
        opening = self.opening(times)
        nearest = np.abs(times[:, None] - centres[None, :]).argmin(axis=1)
        peak = np.array([s.openness for s in self.syllables])[nearest]
        share = np.clip(opening / peak, 0.0, 1.0)
        f1 = _CLOSED_F1_HZ + (targets[nearest, 0] - _CLOSED_F1_HZ) * share
        f2 = np.interp(times, centres, targets[:, 1])
        f3 = np.interp(times, centres, targets[:, 2])
        upper = np.full((2, len(times)), [[3500.0], [4500.0]])
        return np.stack([f1, f2, f3, *upper], axis=1) * self.voice.throat

    def _pulses(
        self, start_s: float, count: int, rate: int, rng: np.random.Generator
    ) -> np.ndarray:
        """The voiced part: one sum of damped sines per glottal pulse."""
        if not self.syllables:
            return np.zeros(count)
        phase = np.cumsum(self._pitch(rng)) * 1e-3
        beats = np.interp(np.arange(1, int(phase[-1])), phase, self._times)
        beats += rng.normal(0.0, 4e-5, len(beats))
        loudness = self.opening(beats) ** _LOUDNESS_POWER * rng.uniform(0.95, 1.05, len(beats))
        keep = (loudness > 1e-4) & (beats > start_s - 0.02) & (beats < start_s + count / rate)
        beats, loudness = beats[keep], loudness[keep]
        length = round(0.018 * rate)
        first = np.ceil((beats - start_s) * rate).astype(np.int64)
        after = (first[:, None] + np.arange(length)) / rate + (start_s - beats)[:, None]
        after = after.astype(np.float32)
        shape = np.zeros_like(after)
        formants = self._formants(beats).astype(np.float32)
        for index, (gain, width) in enumerate(zip(_FORMANT_GAINS, _FORMANT_WIDTHS_HZ, strict=True)):
            angle = (2 * np.pi * formants[:, index : index + 1]) * after
            shape += float(gain) * np.exp(after * float(-np.pi * width)) * np.sin(angle)
        shape *= loudness[:, None].astype(np.float32)
        position = first[:, None] + np.arange(length)
        inside = (position >= 0) & (position < count)
        return np.bincount(position[inside], shape[inside], minlength=count)[:count]


def speak(seconds: float, seed: int, voice: Voice, margin_s: float = 0.5) -> Speech:
    """Speech over -margin_s .. seconds + margin_s, so that it can be shifted without gaps."""
    rng = np.random.default_rng([seed, 1])
    syllables = [
        Syllable(s.onset_s - margin_s, s.duration_s, s.openness, s.spread, s.formants, s.hiss)
        for s in make_syllables(seconds + 2 * margin_s, rng, voice.tempo)
    ]
    return Speech(syllables, voice, -margin_s, seconds + margin_s, seed)


def room_noise(seconds: float, rate: int, seed: int) -> np.ndarray:
    """float32 (seconds * rate,) of a fan and a street: audible, and no speech in it."""
    rng = np.random.default_rng([seed, 3])
    count = round(seconds * rate)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / rate)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 40.0)), count)
    times = np.arange(count) / rate
    hum = sum(np.sin(2 * np.pi * 100.0 * k * times) / k**2 for k in (1, 2, 3))
    signal = noise / np.abs(noise).max() + 0.1 * hum
    return (0.12 * signal).astype(np.float32)
