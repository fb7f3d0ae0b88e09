"""Give the person in a video other words: video + audio + model -> mp4.

The video is read twice and never held: once to find the face in every frame, once to
repaint it. Size, frame rate and everything around the face stay as they are; the sound is
the driving audio itself. When it is longer than the video, the video runs forth and back.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from datasets.alignment import align, paste_back
from datasets.errors import SourceError, UserError
from datasets.media import (
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    MediaInfo,
    VideoWriter,
    probe,
    read_audio,
    read_frames,
)
from tasks.face_scan import FaceScan, scan_faces
from tasks.lipsync import FaceGenerator, SpeechTokens, still

CHUNK = 24
"""Frames that are held to show a stretch of video backwards."""
CRF = 16
SILENCE_DB = -60.0
"""Peak against full scale under which a sound is no speech; what ffmpeg calls silent, zeros of
16 bits, it reports as -91 dB."""

Progress = Callable[[str, int, int], None]
"""Told the step's name, how many frames are done, and how many there are."""


@dataclass(frozen=True)
class LipSyncResult:
    """What came out."""

    output: Path
    frames: int
    """Frames written."""
    faces_found: int
    """How many of them show a repainted face."""
    seconds: float
    """How long it took."""
    times_s: np.ndarray
    """(frames,) when each is shown."""
    video_s: float = 0.0
    """Length of the input video."""
    speech_s: float = 0.0
    """Length of the speech, and so of the output."""
    extended: bool = False
    """Whether the video was played forth and back, being shorter than the speech."""
    peak_db: float = 0.0
    """Loudest sample of the speech against full scale; -inf for zeros."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known about the inputs, in sentences; empty in the usual case."""
        found = []
        if self.extended:
            found.append(
                f"{self.video_s:.1f} s of video for {self.speech_s:.1f} s of speech: played "
                "forth and back until the speech ends"
            )
        if self.peak_db < SILENCE_DB:
            loudest = "digital silence" if np.isinf(self.peak_db) else f"peak {self.peak_db:.0f} dB"
            found.append(
                f"the speech is silent throughout ({loudest}): there are no words for the lips to "
                "follow; give a file in which somebody can be heard"
            )
        return tuple(found)


@dataclass(frozen=True)
class Shown:
    """A frame of the output."""

    source: int
    """Index of the frame of the input."""
    time_s: float
    """When it is shown."""


def timeline(times_s: np.ndarray, duration_s: float, until_s: float) -> list[Shown]:
    """Which frame is shown when, forth and back until the sound ends.

    Args:
        times_s: (n,) of the video's frames, from 0.
        duration_s: end of its last frame.
        until_s: end of the sound.
    """
    count = len(times_s)
    ends = np.append(times_s[1:], duration_s)
    shown: list[Shown] = []
    turn = 0
    while True:
        begin = turn * duration_s
        indices = range(count) if turn % 2 == 0 else range(count - 1, -1, -1)
        for index in indices:
            at = begin + (times_s[index] if turn % 2 == 0 else duration_s - ends[index])
            # A frame of which less than a thousandth of a second would be seen is left out.
            if at >= until_s - 1e-3 and shown:
                return shown
            shown.append(Shown(index, float(at)))
        turn += 1


def frames_in_order(path: Path, order: list[Shown], times_s: np.ndarray) -> Iterator[np.ndarray]:
    """The frames of a timeline, decoded as they are needed, uint8 (h, w, 3)."""
    position = 0
    while position < len(order):
        step = -1 if _goes_back(order, position) else 1
        stop = position + 1
        while stop < len(order) and order[stop].source - order[stop - 1].source == step:
            stop += 1
        indices = [each.source for each in order[position:stop]]
        if step == 1:
            yield from _stretch(path, times_s, indices[0], indices[-1])
        else:
            for start in range(0, len(indices), CHUNK):
                part = indices[start : start + CHUNK]
                yield from reversed(list(_stretch(path, times_s, part[-1], part[0])))
        position = stop


def _goes_back(order: list[Shown], position: int) -> bool:
    following = min(position + 1, len(order) - 1)
    return order[following].source < order[position].source


def _stretch(path: Path, times_s: np.ndarray, first: int, last: int) -> Iterator[np.ndarray]:
    """Frames `first` to `last` of the video, in order."""
    gap = np.diff(times_s).min() / 2 if len(times_s) > 1 else 0.5
    begin = max(0.0, float(times_s[first] - gap))
    expected = first
    for frame in read_frames(path, fps=None, start_s=begin):
        if frame.time_s < times_s[expected] - gap:
            continue
        yield frame.rgb
        expected += 1
        if expected > last:
            return
    raise UserError(
        f"{path} gave {expected} frames on second reading, {last + 1} on the first: it is damaged "
        "or was changed meanwhile"
    )


def lip_sync_video(
    video: Path,
    audio: Path,
    output: Path,
    bundle_dir: Path,
    *,
    device: str = "cpu",
    steps: int = 20,
    guidance: float = 1.5,
    seed: int = 1247,
    bf16: bool | None = None,
    progress: Progress | None = None,
) -> LipSyncResult:
    """Write `output`: the video with lips that follow the audio.

    Args:
        video: with a face in at least one frame. Frames without one pass unchanged.
        audio: any file with sound, also a video. It decides the length of the output.
        output: mp4, H.264; written completely or not at all.
        bundle_dir: a trained bundle, see `registry.resolve`.
        device: cpu, cuda, cuda:N or mps.
        steps: of the sampler, 20 to 50 as published.
        guidance: weight of the audio, 1 to 3 as published.
        seed: of the noise.
        bf16: run the networks in bf16; None: where the device is made for it.
        progress: told how far it is.

    Raises:
        UserError: a file cannot be used, no face is in the video, or the device is missing.
        ModelFileError: the bundle is damaged.
    """
    began = time.monotonic()
    tell = progress or (lambda step, done, total: None)
    for given in (video, audio):
        if output.exists() and given.exists() and output.samefile(given):
            raise UserError(f"the output {output} is one of the inputs: choose another name")
    wave = _sound(audio)
    info = _about(video)
    generator = FaceGenerator(bundle_dir, device, steps, guidance, seed, bf16)
    scan = _scan(video, generator.resolution, tell)
    order = timeline(scan.times_s, scan.duration_s, len(wave) / SAMPLE_RATE)
    output.parent.mkdir(parents=True, exist_ok=True)
    frames = frames_in_order(video, order, scan.times_s)
    found = written = 0
    with VideoWriter(output, info.width, info.height, info.fps, crf=CRF, audio=audio) as writer:
        for frame, at, repainted in _repainted(video, frames, order, scan, generator, wave):
            writer.write(frame, at)
            written += 1
            found += repainted
            tell("repainting faces", written, len(order))
    peak = float(np.abs(wave).max())
    return LipSyncResult(
        output,
        written,
        found,
        time.monotonic() - began,
        np.array([each.time_s for each in order]),
        video_s=scan.duration_s,
        speech_s=len(wave) / SAMPLE_RATE,
        extended=len(order) > len(scan.times_s),
        peak_db=20 * math.log10(peak) if peak > 0 else -math.inf,
    )


def _sound(audio: Path) -> np.ndarray:
    try:
        wave = read_audio(audio)
    except SourceError as error:
        raise UserError(f"the audio {audio} cannot be used: {error.detail}") from error
    if len(wave) < SAMPLES_PER_FRAME:
        raise UserError(f"the audio {audio} is shorter than one video frame")
    return wave


def _about(video: Path) -> MediaInfo:
    try:
        return probe(video)
    except SourceError as error:
        raise UserError(f"the video {video} cannot be used: {error.detail}") from error


def _scan(video: Path, resolution: int, tell: Progress) -> FaceScan:
    try:
        scan = scan_faces(
            video, resolution, lambda done, total: tell("finding the face", done, total)
        )
    except SourceError as error:
        raise UserError(f"the video {video} cannot be used: {error.detail}") from error
    if not scan.faces:
        raise UserError(
            f"no face was found in any of the {len(scan.matrices)} frames of {video}: it needs one "
            "that looks towards the camera"
        )
    return scan


def _repainted(
    video: Path,
    frames: Iterator[np.ndarray],
    order: list[Shown],
    scan: FaceScan,
    generator: FaceGenerator,
    wave: np.ndarray,
) -> Iterator[tuple[np.ndarray, float, bool]]:
    """Frames of the output, when they are shown, and whether a face was repainted."""
    speech = generator.speech(wave)
    shots = [scan.shots[each.source] for each in order]
    with_face = [scan.matrices[each.source] is not None for each in order]
    calm = _calm_faces(video, scan, generator.resolution)
    position = 0
    for (shot, has_face), run in groupby(zip(shots, with_face, strict=True)):
        count = len(list(run))
        part = order[position : position + count]
        position += count
        if not has_face:
            for each in part:
                yield next(frames), each.time_s, False
            continue
        yield from _run(frames, part, scan, generator, speech, calm[shot])


def _calm_faces(video: Path, scan: FaceScan, resolution: int) -> dict[int, np.ndarray]:
    """For every shot with a face the aligned one whose mouth is least open."""
    best: dict[int, int] = {}
    for index, (shot, matrix) in enumerate(zip(scan.shots, scan.matrices, strict=True)):
        if matrix is not None and scan.openings[index] < scan.openings[best.get(shot, index)]:
            best[shot] = index
        elif matrix is not None:
            best.setdefault(shot, index)
    calm = {}
    for shot, index in best.items():
        matrix = scan.matrices[index]
        assert matrix is not None
        frame = next(_stretch(video, scan.times_s, index, index))
        calm[shot] = align(frame, matrix, resolution)
    return calm


def _run(
    frames: Iterator[np.ndarray],
    part: list[Shown],
    scan: FaceScan,
    generator: FaceGenerator,
    speech: SpeechTokens,
    calm: np.ndarray,
) -> Iterator[tuple[np.ndarray, float, bool]]:
    """Repaint a stretch of frames of one shot, all with a face; `calm` shows who it is."""
    held: deque[tuple[np.ndarray, np.ndarray]] = deque()

    def faces() -> Iterator[np.ndarray]:
        for each in part:
            frame = next(frames)
            matrix = scan.matrices[each.source]
            assert matrix is not None
            held.append((frame, matrix))
            yield align(frame, matrix, generator.resolution)

    times = np.array([each.time_s for each in part])
    reference = still(calm, generator.num_frames)
    painted = generator.stream(faces(), times, speech, reference)
    for each, face in zip(part, painted, strict=True):
        frame, matrix = held.popleft()
        yield paste_back(frame, face, matrix, generator.region), each.time_s, True
