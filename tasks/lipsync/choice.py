"""Whose lips are repainted: `--face`."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.errors import SourceError, UserError
from datasets.media import read_audio
from tasks.lipsync.face_scan import VideoScan
from tasks.lipsync.speaker import find_speech, seconds_spoken

AUTO, LARGEST, ALL = "auto", "largest", "all"
NUMBER = r"(-?[\d.]+)"
POINT = re.compile(rf"{NUMBER},{NUMBER}@([\d.]+)")
BOX = re.compile(rf"{NUMBER},{NUMBER},{NUMBER},{NUMBER}@([\d.]+)")
WAYS = (
    "auto, largest, a point such as 320,180@2.5 (pixels, seconds), a box such as "
    "280,120,360,240@2.5 (left, top, right, bottom), all, or a number from --preview"
)
NEAR = 0.5
"""A point outside every box means the nearest one, at most this many box widths away."""


LEAST_SHARED = 0.1
"""A box means the face that shares most of its area with it, and at least this much of both."""


@dataclass(frozen=True)
class Face:
    """What `--face` asks for, parsed."""

    how: str
    """`auto`, `largest`, `all`, `point`, `box` or `number`."""
    number: int = 0
    """Counted from 1, as in `--preview`."""
    x: float = 0.0
    y: float = 0.0
    at_s: float | None = None
    """The moment of a point or box, seconds of the video."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom in pixels; `x` and `y` are its middle."""

    @property
    def text(self) -> str:
        """As it is given."""
        if self.box is not None:
            return ",".join(f"{each:g}" for each in self.box) + f"@{self.at_s:g}"
        if self.at_s is not None:
            return f"{self.x:g},{self.y:g}@{self.at_s:g}"
        return str(self.number) if self.how == "number" else self.how


@dataclass(frozen=True)
class Choice:
    """Who was chosen."""

    person: int
    """Position in `VideoScan.people`."""
    among: int
    """How many people were seen."""
    why: str
    """A clause that completes "the person"."""

    @property
    def note(self) -> str:
        """A sentence if there was a choice; empty if only one person was seen."""
        if self.among < 2:
            return ""
        return (
            f"{self.among} people were seen: number {self.person + 1} was repainted, {self.why} "
            "(--preview shows them all, --face chooses another)"
        )


def parse_face(text: str) -> Face:
    """Parse `--face`.

    Raises:
        UserError: the text has none of the known forms.
    """
    if text in (AUTO, LARGEST, ALL):
        return Face(text)
    if text.isascii() and text.isdigit() and int(text) > 0:
        return Face("number", number=int(text))
    spaceless = text.replace(" ", "")
    with suppress(ValueError):
        if point := POINT.fullmatch(spaceless):
            x, y, at_s = (float(each) for each in point.groups())
            return Face("point", x=x, y=y, at_s=at_s)
        if found := BOX.fullmatch(spaceless):
            left, top, right, bottom, at_s = (float(each) for each in found.groups())
            if left < right and top < bottom:
                box = (left, top, right, bottom)
                return Face("box", x=(left + right) / 2, y=(top + bottom) / 2, at_s=at_s, box=box)
    raise UserError(f"--face must be {WAYS}, got {text!r}")


def everybody(scan: VideoScan) -> list[Choice]:
    """All people of a scan."""
    among = len(scan.people)
    return [Choice(person, among, "as --face says") for person in range(among)]


def choose_person(scan: VideoScan, face: Face, video: Path) -> Choice:
    """Choose the person who is repainted.

    Args:
        scan: a scan with at least one person.
        face: what was asked for.
        video: the file, for its sound.

    Raises:
        UserError: there is no such person.
    """
    if face.how == "number":
        return _numbered(scan, face.number)
    if face.at_s is not None:
        return _pointed_at(scan, face, face.at_s)
    among = len(scan.people)
    largest = max(range(among), key=lambda person: scan.weight(scan.people[person]))
    if face.how == LARGEST or among == 1:
        return Choice(largest, among, "who fills most of the picture")
    try:
        wave = read_audio(video, duration_s=scan.duration_s)
    except SourceError:
        return Choice(
            largest, among, "the largest, since the video has no sound to tell who speaks"
        )
    spoken = seconds_spoken(find_speech(scan, wave), among)
    if not spoken.any():
        return Choice(
            largest, among, "the largest, since nobody's lips clearly follow the video's own sound"
        )
    speaker = int(spoken.argmax())
    return Choice(speaker, among, f"who speaks for {spoken[speaker]:.1f} s of it")


def _numbered(scan: VideoScan, number: int) -> Choice:
    among = len(scan.people)
    if number > among:
        people = "1 person was" if among == 1 else f"{among} people were"
        raise UserError(
            f"--face {number}: only {people} seen in the part of the video that is shown; "
            "--preview numbers them"
        )
    return Choice(number - 1, among, "as --face says")


def _pointed_at(scan: VideoScan, face: Face, at_s: float) -> Choice:
    if at_s > scan.duration_s:
        raise UserError(
            f"--face {face.text}: only {scan.duration_s:.2f} s of the video are shown, "
            "choose an earlier moment"
        )
    here = _boxes_in(scan, int(np.abs(scan.times_s - at_s).argmin()))
    # With a box, the face that shares most with it; with a point, the nearest.
    distances = {
        person: _distance(box, face.x, face.y) if face.box is None else 1 - _shared(box, face.box)
        for person, box in here.items()
    }
    best = min(distances, key=lambda person: distances[person], default=None)
    if best is None or distances[best] > (NEAR if face.box is None else 1 - LEAST_SHARED):
        places = ", ".join(
            f"number {person + 1} at {(box[0] + box[2]) / 2:.0f},{(box[1] + box[3]) / 2:.0f}"
            for person, box in here.items()
        )
        raise UserError(
            f"--face {face.text}: there is no face; at that moment there "
            f"{'is ' + places if places else 'is none at all: --preview shows when faces are seen'}"
        )
    return Choice(best, len(scan.people), "as --face says")


def _boxes_in(scan: VideoScan, frame: int) -> dict[int, np.ndarray]:
    """The box of each person seen in a frame."""
    found = {}
    for person, numbers in enumerate(scan.people):
        for number in numbers:
            track = scan.tracks[number]
            place = int(np.searchsorted(track.frames, frame))
            if place < len(track.frames) and track.frames[place] == frame:
                found[person] = track.boxes[place]
    return found


def _distance(box: np.ndarray, x: float, y: float) -> float:
    """Distance from a point to a box, in widths of the box; 0 inside."""
    across = max(box[0] - x, 0.0, x - box[2])
    down = max(box[1] - y, 0.0, y - box[3])
    return float(np.hypot(across, down) / max(box[2] - box[0], 1e-6))


def _shared(box: np.ndarray, other: tuple[float, float, float, float]) -> float:
    """Area that two boxes share, as a share of what they cover together."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    both = max(width, 0.0) * max(height, 0.0)
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (box, other)]
    return float(both / max(sum(areas) - both, 1e-6))
