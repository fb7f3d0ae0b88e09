"""Everyone seen in a video, with the numbers that `--face` takes, as a page and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from datasets.errors import SourceError, UserError
from datasets.media import Picture, read_audio, read_frames
from tasks.lipsync.choice import choose_person, parse_face
from tasks.lipsync.face_scan import FaceTrack, VideoScan
from tasks.lipsync.speaker import Speaking, find_speech, seconds_spoken
from tasks.pages.html import render

THUMBNAIL = 192
"""Side of the pictures, pixels."""
AROUND = 1.6
"""Side of the area they show, in face sizes."""


@dataclass(frozen=True)
class Person:
    """What is known about one person."""

    number: int
    """Counted from 1, in the order in which people are first seen."""
    chosen: bool
    """Whether `--face auto` takes this one."""
    seen_s: float
    """Seconds for which the face is seen."""
    speaks_s: float
    """Seconds for which the lips clearly follow the video's own sound."""
    width_px: int
    """Median width of the face in pixels."""
    seen: list[tuple[float, float]]
    """Start and end of the stretches with the face, seconds."""
    speaks: list[tuple[float, float]]
    """The same for the stretches in which the lips follow the sound."""
    at_s: float
    """A moment with the face,"""
    x: int
    """and where it is then, in pixels: `x,y@at_s` chooses it as well."""
    y: int


@dataclass(frozen=True)
class Preview:
    """Everyone seen, and the choice of `--face auto`."""

    video: str
    looked_at_s: float
    """Seconds of the video that were looked at."""
    video_s: float
    why: str
    """Why `--face auto` takes the person it takes."""
    people: list[Person]


def preview_people(video: Path, scan: VideoScan) -> Preview:
    """What a scan knows about people.

    Args:
        video: the file, for its sound.
        scan: a scan with at least one person.
    """
    try:
        pieces = find_speech(scan, read_audio(video, duration_s=scan.duration_s))
    except SourceError:
        pieces = []
    spoken = seconds_spoken(pieces, len(scan.people))
    choice = choose_person(scan, parse_face("auto"), video)
    people = []
    for index, numbers in enumerate(scan.people):
        tracks = [scan.tracks[number] for number in numbers]
        track, place = _clearest(tracks)
        box = track.boxes[place]
        people.append(
            Person(
                number=index + 1,
                chosen=index == choice.person,
                seen_s=round(scan.seconds(numbers), 2),
                speaks_s=round(float(spoken[index]), 2),
                width_px=round(float(np.median(_widths(tracks)))),
                seen=[_times(scan, each) for each in tracks],
                speaks=_joined(index, pieces),
                at_s=round(float(scan.times_s[track.frames[place]]), 3),
                x=round(float(box[0] + box[2]) / 2),
                y=round(float(box[1] + box[3]) / 2),
            )
        )
    looked_at, whole = round(scan.duration_s, 3), round(scan.video_s, 3)
    return Preview(video.name, looked_at, whole, choice.why, people)


def write_preview(preview: Preview, video: Path, output: Path) -> tuple[Path, Path]:
    """Write `OUTPUT.preview.html`, with pictures, and `OUTPUT.preview.json` next to an output.

    Raises:
        UserError: the video cannot be read again.
    """
    page, facts = (output.with_suffix(f".preview.{kind}") for kind in ("html", "json"))
    pictures = [_thumbnail(video, person) for person in preview.people]
    output.parent.mkdir(parents=True, exist_ok=True)
    content = render("lipsync/preview.html", preview=preview, pictures=pictures)
    page.write_text(content, encoding="utf-8")
    facts.write_text(
        json.dumps(asdict(preview), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return page, facts


def _widths(tracks: Sequence[FaceTrack]) -> np.ndarray:
    return np.concatenate([track.boxes[:, 2] - track.boxes[:, 0] for track in tracks])


def _clearest(tracks: Sequence[FaceTrack]) -> tuple[FaceTrack, int]:
    """The track, and the place in it, where the face is large and looks ahead."""
    best, most = (tracks[0], 0), -1.0
    for track in tracks:
        brows = np.linalg.norm(track.values[:, 1] - track.values[:, 0], axis=1)
        place = int(brows.argmax())
        if brows[place] > most:
            best, most = (track, place), float(brows[place])
    return best


def _times(scan: VideoScan, track: FaceTrack) -> tuple[float, float]:
    ends = np.append(scan.times_s[1:], scan.duration_s)
    first, last = int(track.frames[0]), int(track.frames[-1])
    return round(float(scan.times_s[first]), 2), round(float(ends[last]), 2)


def _joined(person: int, pieces: Sequence[Speaking]) -> list[tuple[float, float]]:
    """Stretches in which a person speaks, with neighbouring pieces joined."""
    found: list[tuple[float, float]] = []
    for speaks, run in groupby((each for each in pieces if each.person == person), _speaks):
        if not speaks:
            continue
        for each in run:
            if found and each.begin_s - found[-1][1] < 0.05:
                found[-1] = (found[-1][0], round(each.end_s, 2))
            else:
                found.append((round(each.begin_s, 2), round(each.end_s, 2)))
    return found


def _speaks(piece: Speaking) -> bool:
    return piece.speaks


def _thumbnail(video: Path, person: Person) -> bytes:
    """PNG of the person's head."""
    for frame in read_frames(video, fps=None, start_s=max(0.0, person.at_s - 1e-3)):
        return _cut_out(frame.picture, person)
    raise UserError(f"{video} ends before {person.at_s:.2f} s on second reading: was it changed?")


def _cut_out(picture: Picture, person: Person) -> bytes:
    half = round(person.width_px * AROUND / 2) + 1
    top, left = max(0, person.y - half), max(0, person.x - half)
    rgb = picture.rgb[top : person.y + half, left : person.x + half]
    scale = THUMBNAIL / max(rgb.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in rgb.shape[1::-1])
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".png", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1])
