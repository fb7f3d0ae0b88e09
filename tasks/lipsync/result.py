"""The result of a lip-sync, and notes about it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.media import FPS
from tasks.lipsync.choice import Choice
from tasks.lipsync.face_scan import FaceScan
from tasks.lipsync.playback import BACK_AND_FORTH, HOLD, KEEP, LOOP, SPEECH_PADDED, Plan, Shown

SLOW_FPS = 20.0
"""Below this, frames lie so far apart that motion modules see movements they never learned."""
ORDINALS = {2: "2nd", 3: "3rd"}
SILENCE_DB = -60.0
"""Peak against full scale below which a sound is not speech; what ffmpeg calls silent, zeros of
16 bits, it reports as -91 dB."""
LEAST_SAID_S = 0.1
"""Seconds; smaller differences in length are not worth a note."""
MOST_GAPS = 3
"""Most stretches without the face that are listed one by one."""


@dataclass(frozen=True)
class LipSyncResult:
    """A finished lip-sync."""

    output: Path
    frames: int
    """Frames written."""
    faces_found: int
    """How many of them show a repainted face."""
    seconds: float
    """Seconds that it took."""
    times_s: np.ndarray
    """(frames,) when each is shown."""
    video_s: float = 0.0
    """Length of the input video."""
    speech_s: float = 0.0
    """Length of the speech."""
    plan: Plan | None = None
    """The output's length and how the video was made to last."""
    length: str = ""
    """The value of `--length`."""
    peak_db: float = 0.0
    """Loudest sample of the speech against full scale; -inf for zeros."""
    video_fps: float = FPS
    """Frame rate of the input video,"""
    fps: float = FPS
    """and of the output."""
    ways: int = 1
    """How many sequences its frames were dealt into, each about 40 ms apart."""
    people: tuple[str, ...] = ()
    """Sentences about whose lips were repainted, and what was left as it was."""
    pictures: tuple[str, ...] = ()
    """Sentences about properties of the input's pictures that the output lacks."""
    licence: str = ""
    """A sentence about a licence that binds the output, too; empty if there is none."""

    @property
    def extended(self) -> bool:
        """Whether the video was played again or backwards, being shorter than the speech."""
        return self.plan is not None and self.plan.until_s > self.video_s + LEAST_SAID_S

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user; empty in the usual case."""
        found = [*[self.licence] * bool(self.licence), *self.people, *self.pictures]
        if self.fps != self.video_fps:
            found.append(f"the video was converted from {self.video_fps:g} to {self.fps:g} fps")
        if self.ways > 1:
            found.append(
                f"the networks were trained at 25 frames per second: at {self.fps:g} fps every "
                f"{ORDINALS.get(self.ways, f'{self.ways}th')} frame belongs to one of {self.ways} "
                "interleaved sequences"
            )
        elif self.fps < SLOW_FPS:
            found.append(
                f"the networks were trained at 25 frames per second, this video has {self.fps:g}: "
                "mouths may move less smoothly than they could"
            )
        found += self._about_length()
        if self.peak_db < SILENCE_DB:
            loudest = "digital silence" if np.isinf(self.peak_db) else f"peak {self.peak_db:.0f} dB"
            found.append(
                f"the speech is silent throughout ({loudest}): there are no words for the lips to "
                "follow; use a file in which somebody can be heard"
            )
        return tuple(found)

    def _about_length(self) -> list[str]:
        plan = self.plan
        if plan is None or abs(self.video_s - self.speech_s) <= LEAST_SAID_S:
            return []
        both = f"{self.video_s:.1f} s of video for {self.speech_s:.1f} s of speech"
        if self.video_s > self.speech_s:
            if self.length == KEEP:
                return [f"{both}: after the speech the video stays as it was, with its own sound"]
            if self.length == SPEECH_PADDED:
                return [f"{both}: after the speech there is silence, and the mouth hears it"]
            return [f"{both}: the video was cut where the speech ends"]
        if not self.extended:
            return [f"{both}: the speech was cut where the video ends"]
        how = {
            BACK_AND_FORTH: "played back and forth until the speech ends",
            LOOP: "played again and again until the speech ends",
            HOLD: "frozen at its last frame until the speech ends",
        }
        return [f"{both}: {how[plan.then]}"]


def describe_people(
    faces: FaceScan, choice: Choice, order: list[Shown], speech_s: float, begin_s: float = 0.0
) -> tuple[str, ...]:
    """Sentences: who was chosen among how many, and when nothing was repainted.

    Args:
        faces: of the person who was chosen.
        choice: how the person was chosen.
        order: the frames of the output.
        speech_s: end of the speech, after which nothing is repainted.
        begin_s: its begin.
    """
    found = [choice.note] if choice.note else []
    gaps = _gaps(faces, [each for each in order if begin_s <= each.time_s < speech_s])
    if gaps:
        total = sum(end - begin for begin, end in gaps)
        named = ", ".join(f"{begin:.1f} to {end:.1f} s" for begin, end in gaps[:MOST_GAPS])
        more = f" and {len(gaps) - MOST_GAPS} more" if len(gaps) > MOST_GAPS else ""
        whose = "the face" if choice.among < 2 else f"face number {choice.person + 1}"
        found.append(
            f"{whose} cannot be seen for {total:.1f} s of the output ({named}{more}): these frames "
            "stay as they were"
        )
    return tuple(found)


def _gaps(faces: FaceScan, order: list[Shown]) -> list[tuple[float, float]]:
    """Start and end of stretches of a tenth of a second or more without the face."""
    found: list[tuple[float, float]] = []
    begin: float | None = None
    if not order:
        return found
    ends = [each.time_s for each in order[1:]]
    ends.append(order[-1].time_s + (ends[-1] - order[-2].time_s if len(order) > 1 else 1 / FPS))
    for each, end in zip(order, ends, strict=True):
        if faces.matrices[each.source] is None:
            begin = each.time_s if begin is None else begin
            if end == ends[-1]:
                found.append((begin, end))
        elif begin is not None:
            found.append((begin, each.time_s))
            begin = None
    return [(begin, end) for begin, end in found if end - begin >= LEAST_SAID_S]
