"""Who says what when in an output: the turns of a job, with their speech read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from datasets.errors import SourceError, UserError
from datasets.media import SAMPLE_RATE, read_audio
from datasets.media.splice import Spoken
from tasks.lipsync.choice import ALL, Choice
from tasks.lipsync.job import LipSyncJob, Segment
from tasks.lipsync.repaint import TINY_S, Layer, Said
from tasks.lipsync.silence import CLOSED, MODEL, Span, muted_outside, spoken_spans

LEAST_SPEECH_S = 0.01
"""Less is not a sound but a click."""


@dataclass(frozen=True)
class Turn:
    """A segment with its speech."""

    number: int
    """Counted from 1."""
    segment: Segment
    wave: np.ndarray
    """float32 (samples,), 16 kHz: what is heard of the file, and silence behind it."""
    speech_s: float
    """Length of what is heard of the file."""
    begin_s: float
    """When it begins in the output,"""
    end_s: float
    """and when it ends there."""
    until_s: float | None
    """When it has to be over there, however long the speech is; None: with the output."""

    def placed(self, output_s: float, padded: bool) -> "Turn":
        """This turn in an output of some length, with silence behind its speech if it is `padded`.

        Raises:
            UserError: the output ends before it begins.
        """
        if self.begin_s >= output_s:
            raise UserError(
                f"segment {self.number} ({self.segment.span}) begins when the video has ended, "
                f"after {output_s:.2f} s of it: choose an earlier moment"
            )
        until = output_s if self.until_s is None else min(self.until_s, output_s)
        if not padded:
            return replace(self, end_s=min(self.end_s, until))
        wave = np.zeros(
            max(len(self.wave), round((until - self.begin_s) * SAMPLE_RATE)), np.float32
        )
        wave[: len(self.wave)] = self.wave
        return replace(self, wave=wave, end_s=until)

    def heard(self) -> tuple[np.ndarray, tuple[Span, ...] | None]:
        """What the network hears, and when the face is repainted; None: always."""
        if self.segment.silence == MODEL:
            return self.wave, None
        spans = spoken_spans(self.wave)
        if self.segment.silence == CLOSED:
            return muted_outside(self.wave, spans), None
        return self.wave, spans

    def sound(self) -> Spoken:
        """Its sound in the output."""
        segment = self.segment
        path = Path(segment.audio)
        return Spoken(path, self.begin_s, self.end_s, segment.audio_begin_s, self.speech_s)


def read_turns(job: LipSyncJob) -> list[Turn]:
    """The turns of a job, each file read once.

    Raises:
        UserError: a file has no sound, or not the part that is asked for.
    """
    waves: dict[str, np.ndarray] = {}
    found = []
    for number, segment in enumerate(job.turns, 1):
        if segment.audio not in waves:
            waves[segment.audio] = read_speech(Path(segment.audio))
        wave = _part(waves[segment.audio], segment)
        begin = segment.begin_s - job.begin_s if job.segments else 0.0
        until = None
        if job.segments and segment.end_s is not None:
            until = segment.end_s - job.begin_s
        seconds = len(wave) / SAMPLE_RATE
        end = begin + seconds if until is None else min(begin + seconds, until)
        found.append(Turn(number, segment, wave, seconds, begin, end, until))
    check_turns(found)
    return found


def read_speech(audio: Path) -> np.ndarray:
    """The sound of a file, float32 (samples,) at 16 kHz.

    Raises:
        UserError: it has none.
    """
    try:
        wave = read_audio(audio)
    except SourceError as error:
        raise UserError(f"the audio {audio} cannot be used: {error.detail}") from error
    if len(wave) < LEAST_SPEECH_S * SAMPLE_RATE:
        raise UserError(
            f"the audio {audio} lasts {1000 * len(wave) / SAMPLE_RATE:.0f} ms, at least "
            f"{1000 * LEAST_SPEECH_S:.0f} are needed"
        )
    return wave


def _part(wave: np.ndarray, segment: Segment) -> np.ndarray:
    begin = round(segment.audio_begin_s * SAMPLE_RATE)
    end = None if segment.audio_end_s is None else round(segment.audio_end_s * SAMPLE_RATE)
    part = wave[begin:end]
    if len(part) < LEAST_SPEECH_S * SAMPLE_RATE:
        until = "its end" if segment.audio_end_s is None else f"{segment.audio_end_s:g} s"
        raise UserError(
            f"the part from {segment.audio_begin_s:g} s to {until} is not in {segment.audio}, "
            f"which lasts {len(wave) / SAMPLE_RATE:.2f} s: choose audio_begin_s and audio_end_s "
            "within it"
        )
    return part


def check_turns(turns: Sequence[Turn]) -> None:
    """Check that no face is to say two things at once, now that it is known how long they are.

    Raises:
        UserError: names the segments.
    """
    for one, other in combinations(turns, 2):
        faces = {one.segment.face, other.segment.face}
        if (len(faces) == 1 or ALL in faces) and _overlap(one, other):
            raise _both(one, other, f"both are for the face {one.segment.face!r}")


def check_people(turns: Sequence[tuple[Turn, Choice]]) -> None:
    """Check that nobody says two things at once, now that it is known who is who.

    Raises:
        UserError: names the segments.
    """
    for (one, first), (other, second) in combinations(turns, 2):
        if first.person == second.person and _overlap(one, other):
            raise _both(one, other, f"person {first.person + 1} would speak in both")


def _overlap(one: Turn, other: Turn) -> bool:
    return one.begin_s < other.end_s - TINY_S and other.begin_s < one.end_s - TINY_S


def _both(one: Turn, other: Turn, who: str) -> UserError:
    spans = [
        f"{each.number} ({each.begin_s:.2f} s to {each.end_s:.2f} s of the output)"
        for each in (one, other)
    ]
    return UserError(
        f"segments {spans[0]} and {spans[1]} overlap, and {who}: choose another face for one "
        "(--preview numbers them), another begin_s, or give the earlier one an end_s"
    )


def layers_of(said: Sequence[Said]) -> list[Layer]:
    """Who speaks beside whom, in as few layers as hold everybody: each layer is one pass."""
    layers: list[list[Said]] = []
    for each in sorted(said, key=lambda each: each.job.begin_s):
        free = (layer for layer in layers if layer[-1].job.speech_s <= each.job.begin_s)
        layer = next(free, None)
        if layer is None:
            layers.append(layer := [])
        layer.append(each)
    return list(layers)
