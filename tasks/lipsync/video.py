"""Make the person in a video say something else: video + audio + model -> video.

The video is read twice and never held: once to find the faces in every frame, once to repaint one
person's. Size, frame rate and everything around the face stay as they are; the sound is the driving
audio itself. What is finished is kept, so that a job that was interrupted goes on where it ended.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from datasets.errors import SourceError, UserError
from datasets.faces.alignment import align, align_points, face_patch
from datasets.faces.points import FACE_OVAL
from datasets.media import (
    SAMPLE_RATE,
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
from datasets.media.segments import join_segments
from datasets.media.splice import splice_sound
from datasets.progress import Progress, no_progress
from tasks.lipsync.choice import choose_person, parse_face
from tasks.lipsync.colour_match import match_colours
from tasks.lipsync.face_oval import oval_weights
from tasks.lipsync.face_scan import FaceScan, VideoScan, faces_of, scan_video
from tasks.lipsync.fades import fade_shares
from tasks.lipsync.generator import FaceGenerator, SpeechTokens, interleaved
from tasks.lipsync.grain import kept_around, with_grain
from tasks.lipsync.lower_edge import blend_lower_edge
from tasks.lipsync.occlusion import KEEP as KEEP_IN_FRONT
from tasks.lipsync.occlusion import OFF, Occlusion, check_occlusion, make_occlusion
from tasks.lipsync.parts import PART, Parts, job_facts
from tasks.lipsync.playback import (
    KEEP,
    Shown,
    check_length,
    frames_between,
    frames_in_order,
    plan_length,
    timeline,
)
from tasks.lipsync.preview import Preview, preview_people, write_preview
from tasks.lipsync.references import References, make_references
from tasks.lipsync.result import LipSyncResult, describe_people
from tasks.weights.adapter import adapter_files

CRF = 16
MIN_FPS, MAX_FPS = 1.0, 120.0
LEAST_SPEECH_S = 0.01
"""Less is not a sound but a click."""


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
    face: str = "auto",
    length: str = "auto",
    tone_map: bool = False,
    match: bool | None = None,
    adapter: Path | None = None,
    occlusion: str = KEEP_IN_FRONT,
    progress: Progress | None = None,
) -> LipSyncResult:
    """Write `output`: the video with lips that follow the audio.

    Args:
        video: a video with a face in at least one frame. Frames without one pass unchanged.
        audio: any file with sound, also a video.
        output: .mp4, .m4v, .mov, .mkv or .webm; written completely or not at all. What is finished
            is kept next to it in a hidden folder until then, and the same call goes on from it.
        bundle_dir: a trained bundle, see `registry.resolve`.
        device: cpu, cuda, cuda:N or mps.
        steps: sampler steps, 20 to 50 as published.
        guidance: weight of the audio, 1 to 3 as published.
        seed: seed of the noise.
        bf16: run the networks in bf16; None means if the device is made for it.
        reference: what shows the network who the person is, see `tasks.lipsync.references`; empty
            means as the bundle says.
        fps: convert the video to this constant rate first, as the published program does to 25;
            None keeps the video's own.
        face: whose lips, see `tasks.lipsync.choice`.
        length: length of the output, see `tasks.lipsync.playback.LENGTHS`.
        tone_map: write HDR as SDR.
        match: shift the colours of the new part to match those around it, see
            `tasks.lipsync.colour_match`; None means unless each frame is its own reference, as the
            published program does.
        adapter: an adapter for this bundle, see `tasks.weights.adapter`.
        occlusion: keep what is in front of the face there, or paint over it (off), see
            `tasks.lipsync.occlusion`.
        progress: called with the frames done in a step, which is the note; a step that counts
            no frames reports 0 of None.

    Raises:
        UserError: a file cannot be used, the face is not in the video, or the device is missing.
        ModelFileError: the bundle is damaged.
    """
    began = time.monotonic()
    tell = progress or no_progress
    container = check_output(output, (video, audio))
    wanted, fps = parse_face(face), _check_fps(fps)
    check_length(length)
    check_occlusion(occlusion)
    tell(0, None, "reading the speech")
    wave, info = _sound(audio), _about(video)
    tell(0, None, "loading the model")
    form = form_for(info.kind, info.width, info.height, container, tone_map)
    generator = FaceGenerator(bundle_dir, device, steps, guidance, seed, bf16, reference, adapter)
    if match is None:
        match = generator.reference != "frame"
    output.parent.mkdir(parents=True, exist_ok=True)
    files = adapter_files(adapter) if adapter else ()
    facts = job_facts((video, audio, *files), bundle_dir)
    options = (
        steps,
        guidance,
        seed,
        generator.bf16,
        generator.reference,
        fps,
        face,
        length,
        form,
        match,
        occlusion,
    )
    speech_s = len(wave) / SAMPLE_RATE
    with Parts(output, (*facts, *options)) as parts:
        scan = parts.scan()
        if scan is None:
            until = None if length == KEEP else speech_s
            scan = _scan(video, fps, until, tell)
            parts.save_scan(scan)
        rate = fps or info.fps
        scan = _at_constant_rate(scan, rate)
        choice = choose_person(scan, wanted, video)
        faces = faces_of(scan, scan.people[choice.person], generator.resolution)
        gap = scan.duration_s - float(scan.times_s[-1])
        plan = plan_length(length, scan.video_s, speech_s, gap)
        order = timeline(scan.times_s, scan.duration_s, plan)
        job = _Job(video, fps, faces, generator, form, order, speech_s, match, occlusion)
        _write_parts(job, parts, wave, info, tell)
        tell(0, None, "writing the video")
        sound = audio
        if length == KEEP and speech_s < plan.until_s:
            sound = parts.folder / "sound.flac"
            splice_sound(sound, audio, video if info.has_audio else None, speech_s, plan.until_s)
        end_s = order[-1].time_s + 1 / rate
        segments = [(part.path, order[first].time_s) for first, part in parts.numbered()]
        join_segments(parts.whole, segments, end_s, sound, container)
        parts.put_in_place()
        repainted = sum(part.repainted for part in parts.done)
    peak = float(np.abs(wave).max())
    return LipSyncResult(
        output,
        len(order),
        repainted,
        time.monotonic() - began,
        np.array([each.time_s for each in order]),
        video_s=scan.video_s,
        speech_s=speech_s,
        plan=plan,
        length=length,
        peak_db=20 * math.log10(peak) if peak > 0 else -math.inf,
        video_fps=info.fps,
        fps=rate,
        ways=interleaved(scan.times_s),
        pictures=form.notes,
        people=describe_people(faces, choice, order, speech_s),
    )


def preview_video(
    video: Path,
    audio: Path,
    output: Path,
    *,
    fps: float | None = None,
    length: str = "auto",
    progress: Progress | None = None,
) -> tuple[Preview, Path, Path]:
    """Write a page about who is seen in a video, without repainting; see `tasks.lipsync.preview`.

    The arguments are those of `lip_sync_video`: the same part of the video is looked at.

    Returns:
        What was found, the page, and the JSON file.
    """
    tell = progress or no_progress
    fps = _check_fps(fps)
    check_length(length)
    tell(0, None, "reading the speech")
    speech_s = len(_sound(audio)) / SAMPLE_RATE
    _about(video)
    scan = _scan(video, fps, None if length == KEEP else speech_s, tell)
    preview = preview_people(video, scan)
    return preview, *write_preview(preview, video, output)


def _at_constant_rate(scan: VideoScan, fps: float) -> VideoScan:
    """The scan with exact times if those of the container only approximate a constant rate:
    rounded ones would alternate in the output, and drift where it runs backwards."""
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
    if len(wave) < LEAST_SPEECH_S * SAMPLE_RATE:
        raise UserError(
            f"the audio {audio} lasts {1000 * len(wave) / SAMPLE_RATE:.0f} ms, at least "
            f"{1000 * LEAST_SPEECH_S:.0f} are needed"
        )
    return wave


def _about(video: Path) -> MediaInfo:
    try:
        return probe(video)
    except SourceError as error:
        raise UserError(f"the video {video} cannot be used: {error.detail}") from error


def _check_fps(fps: float | None) -> float | None:
    if fps is None:
        return None
    if not MIN_FPS <= fps <= MAX_FPS:
        raise UserError(
            f"--fps must be between {MIN_FPS:g} and {MAX_FPS:g}, got {fps:g}: 25 is the rate that "
            "the networks were trained at; without the option the video keeps its own rate"
        )
    # Integers too: MLflow does not turn them into floats in a table of parameters.
    return float(exact_rate(fps))


def _scan(video: Path, fps: float | None, until_s: float | None, tell: Progress) -> VideoScan:
    try:
        scan = scan_video(video, tell, fps, until_s)
    except SourceError as error:
        raise UserError(f"the video {video} cannot be used: {error.detail}") from error
    if not scan.people:
        raise UserError(
            f"no face was found in any of the {len(scan.times_s)} frames of {video}: it needs one "
            "that looks towards the camera"
        )
    return scan


@dataclass(frozen=True)
class _Stretch:
    """Consecutive frames of an output that are treated alike."""

    first: int
    stop: int
    shown: bool
    """The face is repainted."""
    before_s: float | None
    """When the frame before it is shown, if it continues that one's shot,"""
    after_s: float | None
    """and the frame after it."""


@dataclass(frozen=True)
class _Job:
    """A video that is being repainted."""

    video: Path
    fps: float | None
    scan: FaceScan
    generator: FaceGenerator
    form: Form
    order: list[Shown]
    speech_s: float
    match: bool = False
    occlusion: str = OFF

    def canvas(self, picture: Picture) -> Canvas:
        """A picture ready to be written."""
        return Canvas(picture, self.form)

    def faces(self, sources: Sequence[int]) -> np.ndarray:
        """Aligned faces (n, R, R, 3) of frames close to each other, decoded again."""
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
        """The aligned face of a frame that has one."""
        matrix = self.scan.matrices[source]
        assert matrix is not None
        return align(frame, matrix, self.generator.resolution)

    @property
    def keeps_surroundings(self) -> bool:
        """The new face ends where the face ends, see `region`."""
        return self.generator.reference != "frame" and self.scan.shapes is not None

    def region(self, source: int) -> np.ndarray:
        """How much of a new face is shown, float (R, R).

        A network that sees each frame's own face knows what is around it; others see it as it was
        in another pose.
        """
        region = self.generator.region
        if not self.keeps_surroundings:
            return region
        side = self.generator.resolution
        return region * oval_weights(self.shapes([source])[0, : len(FACE_OVAL)], side)

    def shapes(self, sources: Sequence[int]) -> np.ndarray:
        """`SHAPE` of frames that have the face, (n, points, 2) in pixels of the aligned face."""
        found = []
        assert self.scan.shapes is not None
        for source in sources:
            matrix = self.scan.matrices[source]
            assert matrix is not None
            found.append(align_points(self.scan.shapes[source], matrix, self.generator.resolution))
        return np.stack(found)

    def references_of(self, shot: int) -> Callable[[list[Shown]], References | None]:
        """References for stretches of one shot."""
        kind, scan = self.generator.reference, self.scan

        def references_among(there: np.ndarray) -> References | None:
            return make_references(
                kind,
                scan.poses[there],
                scan.openings[there],
                lambda positions: self.faces([int(there[each]) for each in positions]),
                None if scan.shapes is None else self.shapes(there.tolist()),
            )

        if kind != "still":

            def of_sources(part: list[Shown]) -> References | None:
                # By video frames: another moment must not be the same one played backwards.
                there, places = np.unique([each.source for each in part], return_inverse=True)
                found = references_among(there)
                return found and (lambda positions: found(places[positions]))

            return of_sources
        there = np.array(self._with_face(shot))
        # One for the whole shot, so that it changes as seldom as possible.
        still = references_among(there)
        assert still is not None

        def of_stretch(part: list[Shown]) -> References:
            places = np.searchsorted(there, [each.source for each in part])
            return lambda positions: still(places[positions])

        return of_stretch

    def occlusion_of(self, shot: int) -> Occlusion | None:
        """What tells what is in front of the face in a shot; None where nothing can."""
        if self.occlusion == OFF or self.scan.shapes is None:
            return None
        there = self._with_face(shot)
        return make_occlusion(there, self.faces, self.shapes, self.generator.region)

    def _with_face(self, shot: int) -> list[int]:
        """Frames of a shot that have the face."""
        pairs = zip(self.scan.shots, self.scan.matrices, strict=True)
        return [
            index
            for index, (number, matrix) in enumerate(pairs)
            if number == shot and matrix is not None
        ]

    def stretches(self) -> list["_Stretch"]:
        """Stretches of the output: consecutive frames of one shot, all with the face or all
        without."""
        order, jumps = self.order, 0
        kinds = []
        for position, each in enumerate(order):
            if position and abs(each.source - order[position - 1].source) > 1:
                jumps += 1
            spoken = each.time_s < self.speech_s
            shown = spoken and self.scan.matrices[each.source] is not None
            kinds.append((self.scan.shots[each.source], jumps, shown))
        found: list[_Stretch] = []
        first = 0
        for kind, run in groupby(kinds):
            stop = first + len(list(run))

            def at(position: int, there: tuple[int, int] = kind[:2]) -> float | None:
                inside = 0 <= position < len(order) and kinds[position][:2] == there
                return order[position].time_s if inside else None

            found.append(_Stretch(first, stop, kind[2], at(first - 1), at(stop)))
            first = stop
        return found


def _write_parts(
    job: _Job, parts: Parts, wave: np.ndarray, info: MediaInfo, tell: Progress
) -> None:
    """Repaint what is not finished yet, one part of the output after another."""
    count, done = len(job.order), parts.frames
    tell(done, count, "repainting faces")
    frames = _repaint(job, wave, done)
    while done < count:
        begin_s, repainted = job.order[done].time_s, 0
        size = min(PART, count - done)
        rate = job.fps or info.fps
        shape = (info.width, info.height)
        with VideoWriter(parts.path(), *shape, rate, crf=CRF, form=job.form) as writer:
            for number, (canvas, at_s, is_new) in enumerate(islice(frames, size), done + 1):
                writer.write(canvas, at_s - begin_s)
                repainted += is_new
                tell(number, count, "repainting faces")
        parts.add(size, repainted)
        done += size


def _repaint(job: _Job, wave: np.ndarray, begin: int) -> Iterator[tuple[Canvas, float, bool]]:
    """Frames of the output from one position on, when they are shown, and whether a face was
    repainted."""
    speech, scan, order = job.generator.speech(wave), job.scan, job.order
    references_of = lru_cache(maxsize=1)(job.references_of)
    occlusion_of = lru_cache(maxsize=1)(job.occlusion_of)
    frames: Iterator[Picture] | None = None
    for stretch in job.stretches():
        first, shown = stretch.first, stretch.shown
        if stretch.stop <= begin:
            continue
        part, skip = order[first : stretch.stop], max(0, begin - first)
        lead = skip
        if shown:
            times = np.array([each.time_s for each in part])
            lead = job.generator.first_needed(times, skip)
        if frames is None:
            frames = frames_in_order(job.video, order[first + lead :], scan.times_s, job.fps)
        if shown:
            shot = scan.shots[part[0].source]
            references, front = references_of(shot)(part), occlusion_of(shot)
            shares = fade_shares(times, stretch.before_s, stretch.after_s)
            yield from _run(job, frames, part, lead, skip, shares, speech, references, front)
            continue
        for each in part[skip:]:
            yield job.canvas(next(frames)), each.time_s, False


def _run(
    job: _Job,
    frames: Iterator[Picture],
    part: list[Shown],
    lead: int,
    skip: int,
    shares: np.ndarray,
    speech: SpeechTokens,
    references: References | None,
    front: Occlusion | None,
) -> Iterator[tuple[Canvas, float, bool]]:
    """Repaint a stretch of frames of one shot, all with a face, from position `skip` on; `frames`
    yields those from `lead` on. `shares` (n,) of the new face are shown."""
    held: deque[tuple[Picture, np.ndarray, np.ndarray]] = deque()

    def faces() -> Iterator[np.ndarray]:
        for position, each in enumerate(part[lead:], lead):
            frame = next(frames)
            matrix = job.scan.matrices[each.source]
            assert matrix is not None
            aligned = job.aligned(frame, each.source)
            if position >= skip:
                held.append((frame, matrix, aligned))
            yield aligned

    times = np.array([each.time_s for each in part])
    painted = job.generator.stream(faces(), times, speech, references, skip)
    for each, share, face in zip(part[skip:], shares[skip:], painted, strict=True):
        frame, matrix, before = held.popleft()
        region = job.region(each.source)
        hidden = None if front is None else front(before, job.shapes([each.source])[0])
        if job.match:
            face = match_colours(face, before, region)
        if job.keeps_surroundings:
            face = blend_lower_edge(face, before, region, hidden)
        if hidden is not None:
            region = region * (1 - hidden)
        canvas = job.canvas(frame)
        shape = (canvas.height, canvas.width)
        patch = face_patch(shape, face, matrix, region * np.float32(share))
        around = face_patch(shape, before, matrix, kept_around(job.generator.region)).weights > 0.99
        canvas.paint(with_grain(patch, canvas.rgb[patch.box], around, each.source))
        yield canvas, each.time_s, True
