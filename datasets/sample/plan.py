"""What happens in each sample clip, decided only by (seed, clip index).

Of 16 clips in a row 12 are one person speaking, half of these with the audio track shifted
by a known number of frames; one has cuts, one shows nobody for a while, one has a second,
silent person, and one has a track without speech or no track at all.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

import numpy as np

from datasets.sample.looks import LOOKS
from datasets.sample.portrait import FACE_WIDTH

SIZES = ((640, 360), (480, 480), (512, 288), (640, 360), (720, 576), (512, 384))
RATES = (Fraction(25), Fraction(30000, 1001), Fraction(25), Fraction(30))
AUDIO_RATES = (48000, 44100, 16000, 32000)
SPECIAL = {3: "cuts", 5: "audio", 8: "two_faces", 14: "faceless"}
"""Kind of the clip at this position among 16; all others are "plain"."""
MAX_SHIFT = 9
"""Audio tracks are shifted by up to this many frames of 1/25 s, either way."""
SHORTEST_SHOT_S = 2.4


@dataclass(frozen=True)
class Shot:
    """Frames first..last-1 from one camera. `face_px` is the width of the face; `x`, `y` are
    where its centre is, as shares of the picture; `cutaway` is an index into CUTAWAYS for a
    shot without people, else -1; `zoom` and `pan` are of the backdrop."""

    first: int
    last: int
    face_px: float
    x: float
    y: float
    zoom: float
    pan: float
    cutaway: int = -1


@dataclass(frozen=True)
class ClipPlan:
    """One clip. `offset_frames` are of 1/25 s, positive when the audio is late;
    `size` is (width, height)."""

    index: int
    seed: int
    speaker: int
    kind: str
    size: tuple[int, int]
    fps: Fraction
    frames: int
    audio: str
    audio_rate: int
    channels: int
    offset_frames: int
    shots: tuple[Shot, ...] = field(default=())

    @property
    def name(self) -> str:
        return f"speaker_{self.speaker:02d}/clip_{self.index:03d}"

    @property
    def seconds(self) -> float:
        return float(self.frames / self.fps)

    @property
    def cuts_s(self) -> list[float]:
        """Time of the first frame of each shot but the first."""
        return [round(float(shot.first / self.fps), 6) for shot in self.shots[1:]]

    @property
    def faceless_s(self) -> list[list[float]]:
        return [
            [round(float(shot.first / self.fps), 6), round(float(shot.last / self.fps), 6)]
            for shot in self.shots
            if shot.cutaway >= 0
        ]


def plan_clip(index: int, seed: int, seconds: tuple[float, float]) -> ClipPlan:
    """The plan of clip `index`; the same for the same arguments, whatever else is made."""
    rng = np.random.default_rng([seed, index, 2])
    kind = SPECIAL.get(index % 16, "plain")
    speaker = index % len(LOOKS)
    size = SIZES[int(rng.integers(len(SIZES)))]
    if kind == "two_faces":
        size = (640, 360)
    fps = RATES[(index + index // 4) % len(RATES)]
    frames = round(float(rng.uniform(*seconds)) * fps)
    audio = ("silent", "noise", "none")[index // 16 % 3] if kind == "audio" else "speech"
    shifts = [shift for shift in range(-MAX_SHIFT, MAX_SHIFT + 1) if shift]
    shifted = audio == "speech" and (index + index // len(LOOKS)) % 2 == 1
    return ClipPlan(
        index=index,
        seed=seed,
        speaker=speaker,
        kind=kind,
        size=size,
        fps=fps,
        frames=frames,
        audio=audio,
        audio_rate=AUDIO_RATES[int(rng.integers(len(AUDIO_RATES)))],
        channels=int(rng.integers(1, 3)),
        offset_frames=shifts[index * 7 % len(shifts)] if shifted else 0,
        shots=tuple(_shots(kind, index, frames, fps, size, rng)),
    )


def _shots(
    kind: str,
    index: int,
    frames: int,
    fps: Fraction,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> list[Shot]:
    if kind == "cuts":
        count = 3 if frames / fps >= 3 * SHORTEST_SHOT_S else 2
        bounds = [round(frames * k / count) for k in range(count + 1)]
        close = int(rng.integers(2))
        return [
            _frame(first, last, size, rng, (k + close) % 2)
            for k, (first, last) in enumerate(pairwise(bounds))
        ]
    if kind == "faceless":
        away = round(min(1.2, 0.2 * frames / fps) * fps)
        start = 0 if index // 16 % 3 == 1 else (frames - away) // 2
        shots = [
            Shot(start, start + away, 0, 0, 0, 1.0, 0.0, cutaway=int(rng.integers(4))),
            _frame(start + away, frames, size, rng, 1),
        ]
        return [_frame(0, start, size, rng, 0), *shots] if start else shots
    if kind == "two_faces":
        face = float(rng.uniform(95, 120))
        x = 0.27 if rng.random() < 0.5 else 0.73
        y = 0.06 + 110 / FACE_WIDTH * face / size[1]
        return [Shot(0, frames, face, x, y, 1.0, 0.0)]
    return [_frame(0, frames, size, rng, -1)]


def _frame(
    first: int, last: int, size: tuple[int, int], rng: np.random.Generator, close: int
) -> Shot:
    """A shot of one person: `close` 1 near, 0 far, -1 any. Measures of the portrait: hair
    starts 110 pixels above the face's centre, an open chin ends 70 below it."""
    height = size[1]
    low, high = max(92.0, 0.22 * height), min(200.0, 0.51 * height)
    span = {-1: (0.0, 1.0), 0: (0.0, 0.15), 1: (0.8, 1.0)}[close]
    face = low + (high - low) * float(rng.uniform(*span))
    scale = face / FACE_WIDTH
    highest = -10 * scale
    lowest = max(min(0.12 * height, 0.97 * height - 180 * scale), highest)
    top = float(rng.uniform(highest + 0.5 * (lowest - highest), lowest))
    x = 0.5 + float(rng.uniform(-0.1, 0.1)) + (0.06 if close == 1 else -0.06) * (close >= 0)
    zoom = 1.0 + 0.9 * (face - low) / (high - low)
    return Shot(first, last, face, x, (top + 110 * scale) / height, zoom, float(rng.random()))
