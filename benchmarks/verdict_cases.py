"""Videos that are partly wrong, made from footage of people who are right, with the truth of each.

A case is drawn by a seed: whose pictures, whose sound, which frames of each. What is wrong with
it begins or ends at a known frame. Faces are shown 120 pixels large, unless they are smaller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.offsets import Footage, audio_part
from datasets.faces.landmarks import mouth_opening
from datasets.media import SAMPLE_RATE, SAMPLES_PER_FRAME, VideoWriter, read_frames, write_flac

FACE_PX, SMALLER = 120.0, 0.8
"""Median side of a face as it is shown, pixels; of two in one picture one is this much smaller, by
which the published ones are told apart."""
LEAST_GOOD, LEAST_BAD = 60, 40
"""Frames that what is right, and what is wrong, lasts at least."""
STILL_FRAMES = 10
"""Frames that are shown forwards and backwards while the lips are to be still."""
SURROUNDINGS = 3.0
"""Side of what is shown around a face, in sizes of the face."""
LOUDNESS = 0.05
"""Root mean square of everybody's sound."""


@dataclass(frozen=True, eq=False)
class Person:
    """Somebody who talks, in sync."""

    name: str
    path: Path
    landmarks: np.ndarray
    """float32 (t, 478, 2), pixels of the source."""
    audio: np.ndarray
    """float32 (t * 640,) at 16 kHz."""
    scale: float
    """Of the pictures as they are shown."""

    @classmethod
    def of(cls, footage: Footage, path: Path, late: float) -> "Person":
        """Somebody from a file whose sound is `late` frames late."""
        sound = audio_part(footage.audio, 0, len(footage.landmarks), late)
        level = max(float(np.sqrt(np.mean(sound**2))), 1e-6)
        scale = min(1.0, FACE_PX / _face_px(footage.landmarks))
        return cls(footage.name, path, footage.landmarks, sound * (LOUDNESS / level), scale)

    @property
    def frames(self) -> int:
        return len(self.landmarks)

    def pictures(self) -> list[np.ndarray]:
        """All pictures, uint8 (h, w, 3)."""
        return [_sized(self._around(frame.rgb), self.scale) for frame in read_frames(self.path)][
            : self.frames
        ]

    def _around(self, picture: np.ndarray) -> np.ndarray:
        """The part of a picture around where the face is most of the time."""
        middle = np.median(self.landmarks.mean(axis=1), axis=0)
        half = SURROUNDINGS / 2 * _face_px(self.landmarks)
        low = np.maximum(middle - half, 0).astype(int)
        high = (middle + half).astype(int)
        return picture[low[1] : high[1], low[0] : high[0]]

    def sound(self, start: int, frames: int) -> np.ndarray:
        """Sound of some frames, repeated where it ends."""
        wanted = np.arange(start * SAMPLES_PER_FRAME, (start + frames) * SAMPLES_PER_FRAME)
        return self.audio[wanted % len(self.audio)]

    def face_px(self) -> float:
        """Median side of the face's box as it is shown here, pixels."""
        return _face_px(self.landmarks) * self.scale


def _face_px(landmarks: np.ndarray) -> float:
    return float(np.median(np.sqrt(np.ptp(landmarks, axis=1).prod(axis=1))))


@dataclass(frozen=True)
class Face:
    """A face of a case, and what is wrong with it."""

    first: int
    """Its frames in the case, `stop` excluded."""
    stop: int
    bad: tuple[tuple[int, int], ...] = ()
    """First and last (excluded) frames that must not be published."""
    face_px: float = 0.0
    """Median side of its box; tells faces of one time apart."""

    def is_bad(self, frames: int) -> np.ndarray:
        """bool (frames,)."""
        marks = np.zeros(frames, bool)
        for first, stop in self.bad:
            marks[first:stop] = True
        return marks


@dataclass(eq=False)
class Case:
    """A video and the truth about it."""

    kind: str
    about: str
    pictures: list[np.ndarray]
    sound: np.ndarray
    faces: list[Face] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """As an mp4 of 25 fps."""
        sound = path.with_suffix(".flac")
        write_flac(sound, np.clip(self.sound, -1, 1).astype(np.float32), SAMPLE_RATE)
        height, width = self.pictures[0].shape[:2]
        with VideoWriter(path, width, height, 25, audio=sound, preset="veryfast") as writer:
            for picture in self.pictures:
                writer.write(picture)
        sound.unlink()


class Maker:
    """Makes cases; each is determined by the people, its kind and its seed."""

    def __init__(self, people: Sequence[Person]) -> None:
        self.people = list(people)
        self.long = [each for each in people if each.frames >= 2 * LEAST_GOOD]
        self._shown: dict[str, list[np.ndarray]] = {}

    def make(self, kind: str, seed: int) -> Case:
        """One case of a kind in `KINDS`."""
        rng = np.random.default_rng([seed, list(KINDS).index(kind)])
        return replace(KINDS[kind](self, rng), kind=kind)

    def show(self, person: Person, start: int, frames: int) -> list[np.ndarray]:
        """Some pictures of somebody; all are remembered, 0.4 MB each."""
        if person.name not in self._shown:
            self._shown[person.name] = person.pictures()
        return self._shown[person.name][start : start + frames]

    def one(self, rng: np.random.Generator) -> tuple[Person, int, int]:
        """Somebody, and a stretch long enough for a good and a bad part."""
        person = self.long[rng.integers(len(self.long))]
        frames = int(rng.integers(LEAST_GOOD + LEAST_BAD, min(person.frames, 220) + 1))
        return person, int(rng.integers(person.frames - frames + 1)), frames

    def two(self, rng: np.random.Generator) -> tuple[Person, Person, int]:
        """Two people who are both long enough, and for how long both can be seen."""
        first, second = rng.choice(len(self.long), 2, replace=False)
        a, b = self.long[first], self.long[second]
        shortest = min(a.frames, b.frames, 220)
        return a, b, int(rng.integers(2 * LEAST_GOOD, shortest + 1))

    def other(self, rng: np.random.Generator, person: Person) -> Person:
        others = [each for each in self.people if each is not person]
        return others[rng.integers(len(others))]


def _part(rng: np.random.Generator, frames: int) -> tuple[int, int]:
    """The bad part: at the beginning or at the end."""
    length = int(rng.integers(LEAST_BAD, frames - LEAST_GOOD + 1))
    return (0, length) if rng.random() < 0.5 else (frames - length, frames)


def _clean(maker: Maker, rng: np.random.Generator) -> Case:
    person, start, frames = maker.one(rng)
    pictures = maker.show(person, start, frames)
    return Case("", person.name, pictures, person.sound(start, frames), [Face(0, frames)])


def _foreign(maker: Maker, rng: np.random.Generator) -> Case:
    case, person = _alone(maker, rng)
    case.sound = maker.other(rng, person).sound(0, len(case.pictures))
    case.faces = [Face(0, len(case.pictures), ((0, len(case.pictures)),))]
    return case


def _alone(maker: Maker, rng: np.random.Generator) -> tuple[Case, Person]:
    person, start, frames = maker.one(rng)
    sound = person.sound(start, frames)
    return Case("", person.name, maker.show(person, start, frames), sound), person


def _voice_over(maker: Maker, rng: np.random.Generator) -> Case:
    case, person = _alone(maker, rng)
    first, stop = _part(rng, len(case.pictures))
    narrator = maker.other(rng, person)
    case.about = f"{person.name}, voice of {narrator.name} at {first}-{stop}"
    case.sound[first * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME] = narrator.sound(
        0, stop - first
    )
    case.faces = [Face(0, len(case.pictures), ((first, stop),))]
    return case


def _dropout(maker: Maker, rng: np.random.Generator) -> Case:
    case, person = _alone(maker, rng)
    first, stop = _part(rng, len(case.pictures))
    case.about = f"{person.name}, no sound at {first}-{stop}"
    case.sound[first * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME] = 0
    case.faces = [Face(0, len(case.pictures), ((first, stop),))]
    return case


def _frozen(maker: Maker, rng: np.random.Generator) -> Case:
    case, person = _alone(maker, rng)
    first, stop = _part(rng, len(case.pictures))
    case.about = f"{person.name}, frozen at {first}-{stop}"
    held = case.pictures[first if first else stop]
    case.pictures = [*case.pictures[:first], *[held] * (stop - first), *case.pictures[stop:]]
    case.faces = [Face(0, len(case.pictures), ((first, stop),))]
    return case


def _still_lips(maker: Maker, rng: np.random.Generator) -> Case:
    case, person = _alone(maker, rng)
    first, stop = _part(rng, len(case.pictures))
    case.about = f"{person.name}, lips still at {first}-{stop}"
    still = quietest(person.landmarks)
    shown = maker.show(person, still, STILL_FRAMES)
    held = [shown[_back_and_forth(at)] for at in range(stop - first)]
    case.pictures = [*case.pictures[:first], *held, *case.pictures[stop:]]
    case.faces = [Face(0, len(case.pictures), ((first, stop),))]
    return case


def quietest(landmarks: np.ndarray) -> int:
    """Where the mouth moves least over `STILL_FRAMES` frames."""
    opening = np.lib.stride_tricks.sliding_window_view(mouth_opening(landmarks), STILL_FRAMES)
    return int(np.argmin(np.ptp(opening, axis=1)))


def _upside_down(maker: Maker, rng: np.random.Generator) -> Case:
    case, person = _alone(maker, rng)
    count = len(case.pictures)
    first, stop = (0, count) if rng.random() < 0.5 else _part(rng, count)
    case.about = f"{person.name}, upside down at {first}-{stop}"
    for index in range(first, stop):
        case.pictures[index] = np.ascontiguousarray(case.pictures[index][::-1, ::-1])
    case.faces = [Face(0, count, ((first, stop),))]
    return case


def _cut(maker: Maker, rng: np.random.Generator) -> Case:
    """The second one is shown while the first one still speaks."""
    person, start, frames = maker.one(rng)
    listener = maker.other(rng, person)
    shown = int(rng.integers(LEAST_BAD, min(listener.frames, frames - LEAST_GOOD) + 1))
    at = frames - shown
    first, second = maker.show(person, start, at), maker.show(listener, 0, shown)
    height, width = np.max([first[0].shape[:2], second[0].shape[:2]], axis=0)
    return Case(
        "",
        f"{person.name}, {listener.name} under the same voice at {at}-{frames}",
        [_padded(each, int(width), int(height)) for each in (*first, *second)],
        person.sound(start, frames),
        [Face(0, at), Face(at, frames, ((at, frames),))],
    )


def _split(maker: Maker, rng: np.random.Generator) -> Case:
    """Both move their lips, and are heard one after the other."""
    a, b, frames = maker.two(rng)
    at = int(rng.integers(LEAST_GOOD, frames - LEAST_GOOD + 1))
    case = _beside(maker, rng, a, b, frames, still=bool(rng.random() < 0.5), at=at)
    case.about = f"{a.name} beside {b.name}, who speaks from {at} on"
    edge = at * SAMPLES_PER_FRAME
    case.sound = np.concatenate([a.sound(0, frames)[:edge], b.sound(0, frames)[edge:]])
    case.faces = [
        replace(case.faces[0], bad=((at, frames),)),
        replace(case.faces[1], bad=((0, at),)),
    ]
    return case


def _two_mouths(maker: Maker, rng: np.random.Generator) -> Case:
    """Both move their lips, one is heard."""
    a, b, frames = maker.two(rng)
    case = _beside(maker, rng, a, b, frames)
    case.about = f"{a.name} beside {b.name}, who is not heard"
    case.faces[1] = replace(case.faces[1], bad=((0, frames),))
    return case


def _beside(
    maker: Maker,
    rng: np.random.Generator,
    a: Person,
    b: Person,
    frames: int,
    still: bool = False,
    at: int = 0,
) -> Case:
    """Two people in one picture; with `still` who is not heard holds the lips still."""
    shown, faces = [], []
    smaller = rng.integers(2)
    for number, (person, listens) in enumerate(((a, (at, frames)), (b, (0, at)))):
        own = list(maker.show(person, 0, frames))
        if still:
            held = maker.show(person, quietest(person.landmarks), STILL_FRAMES)
            own[slice(*listens)] = [held[_back_and_forth(index)] for index in range(*listens)]
        scale = SMALLER if number == smaller else 1.0
        shown.append([_sized(each, scale) for each in own])
        faces.append(Face(0, frames, face_px=person.face_px() * scale))
    height = max(each[0].shape[0] for each in shown)
    pictures = [
        np.hstack([_padded(each, each.shape[1], height) for each in pair])
        for pair in zip(*shown, strict=True)
    ]
    return Case("", "", pictures, a.sound(0, frames), faces)


def _back_and_forth(index: int) -> int:
    """Which of the still frames is shown."""
    at = index % (2 * STILL_FRAMES - 2)
    return min(at, 2 * STILL_FRAMES - 2 - at)


def _sized(picture: np.ndarray, scale: float) -> np.ndarray:
    height, width = picture.shape[:2]
    size = 2 * round(width * scale / 2), 2 * round(height * scale / 2)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _padded(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    left, top = (width - picture.shape[1]) // 2, (height - picture.shape[0]) // 2
    right, bottom = width - picture.shape[1] - left, height - picture.shape[0] - top
    return np.pad(picture, ((top, bottom), (left, right), (0, 0)))


KINDS: dict[str, Callable[[Maker, np.random.Generator], Case]] = {
    "clean": _clean,
    "cut": _cut,
    "split screen": _split,
    "two mouths": _two_mouths,
    "voice-over": _voice_over,
    "foreign sound": _foreign,
    "dropout": _dropout,
    "frozen": _frozen,
    "still lips": _still_lips,
    "upside down": _upside_down,
}
"""What is wrong -> how a case of it is made."""
