"""Give the person in a video other words: video + audio + model -> video.

The video is read twice and never held: once to find the face in every frame, once to
repaint it. Size, frame rate and everything around the face stay as they are; the sound is
the driving audio itself. When it is longer than the video, the video runs forth and back.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np

from datasets.errors import SourceError, UserError
from datasets.faces.alignment import align, face_patch
from datasets.media import (
    FPS,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    MediaInfo,
    Picture,
    VideoWriter,
    probe,
    read_audio,
)
from datasets.media.canvas import Canvas
from datasets.media.form import Form, form_for
from datasets.media.output import check_output
from datasets.media.rates import constant_rate, exact_rate
from datasets.progress import Progress
from tasks.lipsync.face_scan import FaceScan, scan_faces
from tasks.lipsync.generator import FaceGenerator, SpeechTokens, interleaved
from tasks.lipsync.playback import Shown, frames_between, frames_in_order, timeline
from tasks.lipsync.references import References, make_references

CRF = 16
MIN_FPS, MAX_FPS = 1.0, 120.0
SLOW_FPS = 20.0
"""Below, frames lie so far apart that motion modules see other movements than they learned."""
ORDINALS = {2: "2nd", 3: "3rd"}
SILENCE_DB = -60.0
"""Peak against full scale under which a sound is no speech; what ffmpeg calls silent, zeros of
16 bits, it reports as -91 dB."""

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
    video_fps: float = FPS
    """Frame rate of the input video,"""
    fps: float = FPS
    """and of the output."""
    ways: int = 1
    """Into how many sequences its frames were dealt, each about 40 ms apart."""
    picture_notes: tuple[str, ...] = ()
    """What of the input's pictures is not in the output, in sentences."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known about the inputs, in sentences; empty in the usual case."""
        found = [*self.picture_notes]
        if self.fps != self.video_fps:
            found.append(f"the video was converted from {self.video_fps:g} to {self.fps:g} fps")
        if self.ways > 1:
            found.append(
                f"the networks know about 25 frames per second: at {self.fps:g} fps every "
                f"{ORDINALS.get(self.ways, f'{self.ways}th')} frame belongs to one of {self.ways} "
                "interleaved sequences"
            )
        elif self.fps < SLOW_FPS:
            found.append(
                f"the networks know about 25 frames per second, and this video has {self.fps:g}: "
                "mouths may move less smoothly than they could"
            )
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
    reference: str = "",
    fps: float | None = None,
    tone_map: bool = False,
    progress: Progress | None = None,
) -> LipSyncResult:
    """Write `output`: the video with lips that follow the audio.

    Args:
        video: with a face in at least one frame. Frames without one pass unchanged.
        audio: any file with sound, also a video. It decides the length of the output.
        output: .mp4, .m4v, .mov, .mkv or .webm; written completely or not at all.
        bundle_dir: a trained bundle, see `registry.resolve`.
        device: cpu, cuda, cuda:N or mps.
        steps: of the sampler, 20 to 50 as published.
        guidance: weight of the audio, 1 to 3 as published.
        seed: of the noise.
        bf16: run the networks in bf16; None: where the device is made for it.
        reference: what shows the network who it is, see `tasks.lipsync.references`; empty: as the
            bundle says.
        fps: convert the video to this constant rate first, 25 as the published program does;
            None: the video's own.
        tone_map: write HDR as SDR.
        progress: told how many frames are done of a step, which is the note.

    Raises:
        UserError: a file cannot be used, no face is in the video, or the device is missing.
        ModelFileError: the bundle is damaged.
    """
    began = time.monotonic()
    container = check_output(output, (video, audio))
    fps = _checked_fps(fps)
    wave = _sound(audio)
    info = _about(video)
    form = form_for(info.kind, info.width, info.height, container, tone_map)
    generator = FaceGenerator(bundle_dir, device, steps, guidance, seed, bf16, reference)
    scan = _scan(video, generator.resolution, fps, progress)
    rate = fps or info.fps
    scan = _at_constant_rate(scan, rate)
    order = timeline(scan.times_s, scan.duration_s, len(wave) / SAMPLE_RATE)
    output.parent.mkdir(parents=True, exist_ok=True)
    frames = frames_in_order(video, order, scan.times_s, fps)
    job = _Job(video, fps, scan, generator, form)
    found = written = 0
    size = (info.width, info.height)
    with VideoWriter(output, *size, rate, crf=CRF, audio=audio, form=form) as writer:
        for canvas, at, repainted in _repainted(job, frames, order, wave):
            writer.write(canvas, at)
            written += 1
            found += repainted
            if progress:
                progress(written, len(order), "repainting faces")
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
        video_fps=info.fps,
        fps=rate,
        ways=interleaved(scan.times_s),
        picture_notes=form.notes,
    )


def _at_constant_rate(scan: FaceScan, fps: float) -> FaceScan:
    """The scan with exact times, where those of the container only come near to a constant rate:
    rounded ones would alternate in the output, and drift where it runs back."""
    rate = constant_rate(scan.times_s, fps)
    if rate is None:
        return scan
    count = len(scan.times_s)
    return replace(scan, times_s=np.arange(count) / float(rate), duration_s=count / float(rate))


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


def _checked_fps(fps: float | None) -> float | None:
    if fps is None:
        return None
    if not MIN_FPS <= fps <= MAX_FPS:
        raise UserError(
            f"--fps must be between {MIN_FPS:g} and {MAX_FPS:g}, got {fps:g}: 25 is the rate that "
            "the networks were trained at, without the option the video keeps its own"
        )
    # Whole numbers, too: a table of MLflow's parameters does not turn them into floats.
    return float(exact_rate(fps))


def _scan(video: Path, resolution: int, fps: float | None, progress: Progress | None) -> FaceScan:
    try:
        scan = scan_faces(video, resolution, progress, fps)
    except SourceError as error:
        raise UserError(f"the video {video} cannot be used: {error.detail}") from error
    if not scan.faces:
        raise UserError(
            f"no face was found in any of the {len(scan.matrices)} frames of {video}: it needs one "
            "that looks towards the camera"
        )
    return scan


@dataclass(frozen=True)
class _Job:
    """A video that is being repainted."""

    video: Path
    fps: float | None
    scan: FaceScan
    generator: FaceGenerator
    form: Form

    def canvas(self, picture: Picture) -> Canvas:
        """A picture as it is written."""
        return Canvas(picture, self.form)

    def faces(self, sources: Sequence[int]) -> np.ndarray:
        """Aligned faces (n, R, R, 3) of frames that lie close together, decoded anew."""
        first, last = min(sources), max(sources)
        frames = frames_between(self.video, self.scan.times_s, first, last, self.fps)
        wanted = set(sources)
        found = {
            source: self.aligned(frame, source)
            for source, frame in enumerate(frames, first)
            if source in wanted
        }
        return np.stack([found[source] for source in sources])

    def aligned(self, frame: Picture, source: int) -> np.ndarray:
        """The face of a frame that has one."""
        matrix = self.scan.matrices[source]
        assert matrix is not None
        return align(frame, matrix, self.generator.resolution)

    def references_of(self, shot: int) -> Callable[[list[Shown]], References | None]:
        """References for stretches of one shot."""
        kind, scan = self.generator.reference, self.scan

        def references_among(there: np.ndarray) -> References | None:
            return make_references(
                kind,
                scan.poses[there],
                scan.openings[there],
                lambda positions: self.faces([int(there[each]) for each in positions]),
            )

        if kind != "still":

            def of_sources(part: list[Shown]) -> References | None:
                # By frames of the video: another moment must not be the same one played back.
                there, places = np.unique([each.source for each in part], return_inverse=True)
                found = references_among(there)
                return found and (lambda positions: found(places[positions]))

            return of_sources
        there = np.array(
            [
                index
                for index, (number, matrix) in enumerate(
                    zip(scan.shots, scan.matrices, strict=True)
                )
                if number == shot and matrix is not None
            ]
        )
        # One for the whole shot, so that it changes as seldom as possible.
        still = references_among(there)
        assert still is not None

        def of_stretch(part: list[Shown]) -> References:
            places = np.searchsorted(there, [each.source for each in part])
            return lambda positions: still(places[positions])

        return of_stretch


def _repainted(
    job: _Job, frames: Iterator[Picture], order: list[Shown], wave: np.ndarray
) -> Iterator[tuple[Canvas, float, bool]]:
    """Frames of the output, when they are shown, and whether a face was repainted."""
    speech, scan = job.generator.speech(wave), job.scan
    shots = [scan.shots[each.source] for each in order]
    with_face = [scan.matrices[each.source] is not None for each in order]
    references_of = lru_cache(maxsize=1)(job.references_of)
    position = 0
    for (shot, has_face), run in groupby(zip(shots, with_face, strict=True)):
        count = len(list(run))
        part = order[position : position + count]
        position += count
        if has_face:
            yield from _run(job, frames, part, speech, references_of(shot)(part))
            continue
        for each in part:
            yield job.canvas(next(frames)), each.time_s, False


def _run(
    job: _Job,
    frames: Iterator[Picture],
    part: list[Shown],
    speech: SpeechTokens,
    references: References | None,
) -> Iterator[tuple[Canvas, float, bool]]:
    """Repaint a stretch of frames of one shot, all with a face."""
    held: deque[tuple[Picture, np.ndarray]] = deque()

    def faces() -> Iterator[np.ndarray]:
        for each in part:
            frame = next(frames)
            matrix = job.scan.matrices[each.source]
            assert matrix is not None
            held.append((frame, matrix))
            yield job.aligned(frame, each.source)

    times = np.array([each.time_s for each in part])
    painted = job.generator.stream(faces(), times, speech, references)
    for each, face in zip(part, painted, strict=True):
        frame, matrix = held.popleft()
        canvas = job.canvas(frame)
        shape = (canvas.height, canvas.width)
        canvas.paint(face_patch(shape, face, matrix, job.generator.region))
        yield canvas, each.time_s, True
