"""Make the person in a video say something else: video + audio + model -> video.

The video is read twice and never held: once to find the faces in every frame, once to repaint one
person's. Size, frame rate and everything around the face stay as they are; the sound is the driving
audio itself. What is finished is kept, so that a job that was interrupted goes on where it ended.
"""

import math
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from datasets.errors import SourceError, UserError
from datasets.media import (
    SAMPLE_RATE,
    MediaInfo,
    VideoWriter,
    probe,
    read_audio,
)
from datasets.media.form import form_for
from datasets.media.output import check_output
from datasets.media.rates import constant_rate, exact_rate
from datasets.media.segments import join_segments
from datasets.media.splice import splice_sound
from datasets.progress import Progress, no_progress
from tasks.lipsync.choice import choose_person, parse_face
from tasks.lipsync.face_scan import VideoScan, faces_of, scan_video
from tasks.lipsync.generator import FaceGenerator, interleaved
from tasks.lipsync.occlusion import KEEP as KEEP_IN_FRONT
from tasks.lipsync.occlusion import check_occlusion
from tasks.lipsync.parts import PART, Parts, job_facts
from tasks.lipsync.playback import (
    KEEP,
    check_length,
    plan_length,
    timeline,
)
from tasks.lipsync.preview import Preview, preview_people, write_preview
from tasks.lipsync.repaint import RepaintJob, repaint
from tasks.lipsync.result import LipSyncResult, describe_people
from tasks.weights.adapter import adapter_files
from tasks.weights.licences import bundle_licence

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
        job = RepaintJob(video, fps, faces, generator, form, order, speech_s, match, occlusion)
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
        licence=bundle_licence(bundle_dir),
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


def _write_parts(
    job: RepaintJob, parts: Parts, wave: np.ndarray, info: MediaInfo, tell: Progress
) -> None:
    """Repaint what is not finished yet, one part of the output after another."""
    count, done = len(job.order), parts.frames
    tell(done, count, "repainting faces")
    memory = parts.chain()
    frames = repaint(job, wave, done, memory)
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
        parts.add(size, repainted, memory)
        done += size
