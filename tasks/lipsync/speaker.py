"""Who speaks in a video, judged by how well each person's mouth matches its sound."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from datasets.media import FPS, SAMPLES_PER_FRAME
from tasks.lipsync.face_scan import FaceTrack, VideoScan
from tasks.sync.mouth_audio import MouthAudioScorer

PIECE = 125
"""Frames at 25 fps judged at once: long enough to be sure, short enough for one turn of talk."""
LEAST = 50
"""Shorter pieces cannot be judged."""


@dataclass(frozen=True)
class Speaking:
    """A piece of video in which a person's lips are compared with the sound."""

    person: int
    """Position in `VideoScan.people`."""
    begin_s: float
    end_s: float
    confidence: float
    """Confidence by the scorer `mouth-audio`; from its `min_confidence` on the person speaks."""

    @property
    def speaks(self) -> bool:
        """Whether the lips clearly follow the sound."""
        return self.confidence >= MouthAudioScorer.min_confidence


def find_speech(scan: VideoScan, wave: np.ndarray) -> list[Speaking]:
    """Compare each person's lips with the video's own sound, piece by piece.

    Args:
        scan: of the video.
        wave: float32 (samples,) at 16 kHz, beginning with the first frame.
    """
    scorer, found = MouthAudioScorer(), []
    for person, numbers in enumerate(scan.people):
        for number in numbers:
            first, spans = _at_25_fps(scan.tracks[number], scan.times_s)
            for begin, end in _pieces(len(spans)):
                sound = _part(wave, first + begin, end - begin)
                score = scorer.measure_spans(spans[begin:end], sound)
                times = (first + begin) / FPS, (first + end) / FPS
                found.append(Speaking(person, *times, score.confidence))
    return sorted(found, key=lambda each: (each.begin_s, each.person))


def seconds_spoken(pieces: Sequence[Speaking], people: int) -> np.ndarray:
    """(people,) seconds for which each one clearly speaks."""
    total = np.zeros(people)
    for piece in pieces:
        if piece.speaks:
            total[piece.person] += piece.end_s - piece.begin_s
    return total


def _pieces(frames: int) -> list[tuple[int, int]]:
    """Start and end of about equal pieces of a track."""
    if frames < LEAST:
        return []
    count = max(1, round(frames / PIECE))
    edges = np.linspace(0, frames, count + 1).round().astype(int).tolist()
    return list(pairwise(edges))


def _at_25_fps(track: FaceTrack, times_s: np.ndarray) -> tuple[int, np.ndarray]:
    """Number of the first frame at 25 fps, and the spans from there on."""
    times = times_s[track.frames]
    first, last = int(np.ceil(times[0] * FPS - 1e-6)), int(np.floor(times[-1] * FPS + 1e-6))
    at = np.arange(first, last + 1) / FPS
    spans = track.spans
    columns = [np.interp(at, times, spans[:, index]) for index in range(spans.shape[1])]
    return first, np.stack(columns, axis=1)


def _part(wave: np.ndarray, first: int, frames: int) -> np.ndarray:
    """The sound of some frames; silence after its end."""
    out = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    part = wave[first * SAMPLES_PER_FRAME :][: len(out)]
    out[: len(part)] = part
    return out
