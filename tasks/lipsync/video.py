"""Make the person in a video say something else: video + audio + model -> video.

The video is read twice and never held: once to find the faces in every frame, once to repaint one
person's. Size, frame rate and everything around the face stay as they are; the sound is the driving
audio itself. What is finished is kept, so that a job that was interrupted goes on where it ended.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from datasets.errors import SourceError, UserError
from datasets.media import MediaInfo, VideoWriter, probe
from datasets.media.form import form_for, with_coding
from datasets.media.output import check_output
from datasets.media.rates import constant_rate
from datasets.media.segments import join_segments
from datasets.media.splice import mix_sound
from datasets.progress import Progress, no_progress
from tasks.lipsync.choice import ALL, Choice, choose_person, everybody, parse_face
from tasks.lipsync.face_scan import FaceScan, VideoScan, faces_of, scan_video
from tasks.lipsync.generator import FaceGenerator, interleaved
from tasks.lipsync.job import LipSyncJob, check_job
from tasks.lipsync.occlusion import KEEP as KEEP_IN_FRONT
from tasks.lipsync.parts import PART, Parts, job_facts
from tasks.lipsync.playback import (
    AUTO,
    KEEP,
    OF_THE_VIDEO,
    SPEECH_PADDED,
    check_fps,
    plan_length,
    timeline,
)
from tasks.lipsync.preview import Preview, preview_people, write_preview
from tasks.lipsync.repaint import Layer, RepaintJob, Said, repaint
from tasks.lipsync.result import LipSyncResult, describe_people
from tasks.lipsync.turns import Turn, check_people, layers_of, read_turns
from tasks.weights.adapter import adapter_files
from tasks.weights.licences import bundle_licence

NEAR_S = 0.1
"""Seconds by which a range may pass the end of the video: people round."""
NOBODY = FaceScan(np.empty(0), 0.0, [], [], np.empty(0), np.empty((0, 4)))
"""Takes the place of whoever is chosen later."""


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
    job = LipSyncJob(
        video=str(video),
        audio=str(audio),
        output=str(output),
        steps=steps,
        guidance=guidance,
        seed=seed,
        reference=reference,
        fps=fps,
        face=face,
        length=length,
        tone_map=tone_map,
        match=match,
        occlusion=occlusion,
    )
    check_job(job)
    return run_job(job, bundle_dir, device=device, bf16=bf16, adapter=adapter, progress=progress)


def run_job(
    job: LipSyncJob,
    bundle_dir: Path,
    *,
    device: str = "cpu",
    bf16: bool | None = None,
    adapter: Path | None = None,
    generator: FaceGenerator | None = None,
    progress: Progress | None = None,
) -> LipSyncResult:
    """Write the output of a job, completely or not at all; see `lip_sync_video`.

    Args:
        job: what to do, see `tasks.lipsync.job`.
        bundle_dir: a trained bundle.
        device: cpu, cuda, cuda:N or mps.
        bf16: run the networks in bf16; None means if the device is made for it.
        adapter: an adapter for this bundle.
        generator: this bundle with this adapter on this device, where it is loaded already.
        progress: called with the frames done in a step, which is the note.

    Raises:
        UserError: a file cannot be used, the face is not in the video, or the device is missing.
        ModelFileError: the bundle is damaged.
    """
    began = time.monotonic()
    tell = progress or no_progress
    video, output = Path(job.video), Path(job.output)
    files = [Path(each) for each in job.files]
    container, fps = check_output(output, files), check_fps(job.fps)
    tell(0, None, "reading the speech")
    turns, info = read_turns(job), _about(video)
    _check_range(job, info)
    tell(0, None, "loading the model")
    form = form_for(info.kind, info.width, info.height, container, job.tone_map)
    form = with_coding(form, container, job.codec, job.bits)
    settings = (job.sampler_steps, job.guidance, job.seed)
    if generator is None:
        generator = FaceGenerator(
            bundle_dir, device, *settings, bf16, job.reference, adapter, job.sampler_name, job.reuse
        )
    else:
        generator = generator.tuned(*settings, job.reference, job.sampler_name, job.reuse)
    match = generator.reference != "frame" if job.match is None else job.match
    output.parent.mkdir(parents=True, exist_ok=True)
    facts = job_facts((*files, *(adapter_files(adapter) if adapter else ())), bundle_dir)
    options = (
        replace(job, video="", audio="", output=""),
        generator.bf16,
        generator.reference,
        form,
        match,
    )
    length = job.length if job.segments is None or job.length != AUTO else KEEP
    of_the_video = length in OF_THE_VIDEO
    speech_s = turns[0].speech_s
    with Parts(output, (*facts, *options)) as parts:
        scan = parts.scan()
        if scan is None:
            until = job.end_s
            if not of_the_video:
                until = min(job.begin_s + speech_s, math.inf if until is None else until)
            scan = _scan(video, fps, until, tell, job.begin_s)
            parts.save_scan(scan)
        rate = fps or info.fps
        scan = _at_constant_rate(scan, rate)
        gap = scan.duration_s - float(scan.times_s[-1])
        used_s = min(scan.video_s, math.inf if job.end_s is None else job.end_s) - scan.begin_s
        plan = plan_length(length, used_s, speech_s, gap)
        order = timeline(scan.times_s - scan.begin_s, scan.read_s, plan)
        if of_the_video:
            turns = [each.placed(plan.until_s, length == SPEECH_PADDED) for each in turns]
        base = RepaintJob(
            video, fps, NOBODY, generator, form, order, speech_s, match, job.occlusion
        )
        said, notes = _who_says_what(job, turns, scan, base)
        _write_parts(layers_of(said), job, parts, info, tell)
        tell(0, None, "writing the video")
        end_s = order[-1].time_s + 1 / rate
        sound = Path(turns[0].segment.audio)
        part = (job.audio_begin_s, job.audio_end_s) != (0.0, None)
        if job.segments or part or speech_s < plan.until_s:
            sound = parts.folder / "sound.flac"
            under = video if info.has_audio and (job.segments or length == KEEP) else None
            spoken = [each.sound() for each in turns]
            mix_sound(sound, under, spoken, plan.until_s, scan.begin_s)
        segments = [(part.path, order[first].time_s) for first, part in parts.numbered()]
        join_segments(parts.whole, segments, end_s, sound, container)
        parts.put_in_place()
        repainted = sum(part.repainted for part in parts.done)
    peak = max(float(np.abs(each.wave).max()) for each in turns)
    return LipSyncResult(
        output,
        len(order),
        repainted,
        time.monotonic() - began,
        np.array([each.time_s for each in order]),
        video_s=used_s,
        speech_s=speech_s,
        plan=None if job.segments else plan,
        length=length,
        peak_db=20 * math.log10(peak) if peak > 0 else -math.inf,
        video_fps=info.fps,
        fps=rate,
        ways=interleaved(scan.times_s),
        pictures=form.notes,
        people=notes,
        licence=bundle_licence(bundle_dir),
    )


def _who_says_what(
    job: LipSyncJob, turns: Sequence[Turn], scan: VideoScan, base: RepaintJob
) -> tuple[list[Said], tuple[str, ...]]:
    """Everybody who speaks, and notes about them; `base` has everything but who it is and when."""
    chosen: dict[str, list[Choice]] = {}
    pairs = []
    for turn in turns:
        text = str(turn.segment.face)
        if text not in chosen:
            face = parse_face(text)
            every = face.how == ALL
            chosen[text] = (
                everybody(scan) if every else [choose_person(scan, face, Path(job.video))]
            )
        pairs += [(turn, choice) for choice in chosen[text]]
    if job.segments:
        check_people(pairs)
    said, notes = [], []
    usual = (job.sampler_steps, job.guidance, job.seed)
    for turn, choice in pairs:
        segment = turn.segment
        generator = base.generator
        settings = (segment.steps, segment.guidance, segment.seed)
        if settings != usual:
            generator = generator.tuned(*settings, job.reference, job.sampler_name, job.reuse)  # type: ignore[arg-type]
        faces = faces_of(scan, scan.people[choice.person], generator.resolution)
        wave, spoken = turn.heard()
        own = replace(
            base,
            scan=faces,
            generator=generator,
            begin_s=turn.begin_s,
            speech_s=turn.end_s,
            spoken=spoken,
        )
        said.append(Said(own, wave))
        about = describe_people(faces, choice, base.order, turn.end_s, turn.begin_s)
        notes += [f"segment {turn.number}: {note}" if job.segments else note for note in about]
    return said, tuple(dict.fromkeys(notes))


def preview_video(
    video: Path,
    audio: Path,
    output: Path,
    *,
    fps: float | None = None,
    length: str = "auto",
    progress: Progress | None = None,
) -> tuple[Preview, Path, Path]:
    """Look at what `lip_sync_video` would show with the same arguments, see `preview_job`."""
    job = LipSyncJob(str(video), str(audio), str(output), fps=fps, length=length)
    check_job(job)
    return preview_job(job, progress)


def preview_job(job: LipSyncJob, progress: Progress | None = None) -> tuple[Preview, Path, Path]:
    """Write a page about who is seen in a video, without repainting; see `tasks.lipsync.preview`.

    The part of the video is looked at that the job shows; all of its range, if it has no speech.

    Returns:
        What was found, the page, and the JSON file.

    Raises:
        UserError: as `run_job`.
    """
    tell = progress or no_progress
    video, fps, until = Path(job.video), check_fps(job.fps), job.end_s
    _check_range(job, _about(video))
    if not job.segments and job.audio and job.length not in OF_THE_VIDEO:
        tell(0, None, "reading the speech")
        (turn,) = read_turns(job)
        until = min(job.begin_s + turn.speech_s, math.inf if until is None else until)
    scan = _scan(video, fps, until, tell, job.begin_s)
    preview = preview_people(video, scan)
    return preview, *write_preview(preview, video, Path(job.output))


def _at_constant_rate(scan: VideoScan, fps: float) -> VideoScan:
    """The scan with exact times if those of the container only approximate a constant rate:
    rounded ones would alternate in the output, and drift where it runs backwards."""
    rate = constant_rate(scan.times_s, fps)
    if rate is None:
        return scan
    count, first = len(scan.times_s), round(scan.begin_s * float(rate))
    return replace(
        scan,
        times_s=np.arange(first, first + count) / float(rate),
        duration_s=(first + count) / float(rate),
    )


def _about(video: Path) -> MediaInfo:
    try:
        return probe(video)
    except SourceError as error:
        raise UserError(f"the video {video} cannot be used: {error.detail}") from error


def _check_range(job: LipSyncJob, info: MediaInfo) -> None:
    if not info.duration_s:
        # The container does not say how long it is.
        return
    spans = [(job.begin_s, job.end_s), *((each.begin_s, each.end_s) for each in job.segments or ())]
    for begin_s, end_s in spans:
        late = begin_s >= info.duration_s
        if late or (end_s is not None and end_s > info.duration_s + NEAR_S):
            name, value = ("begin_s", begin_s) if late else ("end_s", end_s)
            raise UserError(
                f"{name} {value:g} is behind the end of the video {job.video}, which lasts "
                f"{info.duration_s:.2f} s: choose an earlier moment"
                + ("" if late else ", or leave end_s out")
            )


def _scan(
    video: Path, fps: float | None, until_s: float | None, tell: Progress, begin_s: float
) -> VideoScan:
    try:
        scan = scan_video(video, tell, fps, until_s, begin_s)
    except SourceError as error:
        raise UserError(f"the video {video} cannot be used: {error.detail}") from error
    if not scan.people:
        raise UserError(
            f"no face was found in any of the {len(scan.times_s)} frames of {video}: it needs one "
            "that looks towards the camera"
        )
    return scan


def _write_parts(
    layers: Sequence[Layer], job: LipSyncJob, parts: Parts, info: MediaInfo, tell: Progress
) -> None:
    """Repaint what is not finished yet, one part of the output after another."""
    first = layers[0][0].job
    order = first.order
    count, done = len(order), parts.frames
    tell(done, count, "repainting faces")
    memory = parts.chain()
    frames = repaint(layers, done, memory)
    rate, shape = first.fps or info.fps, (info.width, info.height)
    while done < count:
        begin_s, repainted = order[done].time_s, 0
        size = min(PART, count - done)
        with VideoWriter(parts.path(), *shape, rate, crf=job.crf, form=first.form) as writer:
            for number, (canvas, at_s, is_new) in enumerate(islice(frames, size), done + 1):
                writer.write(canvas, at_s - begin_s)
                repainted += is_new
                tell(number, count, "repainting faces")
        parts.add(size, repainted, memory)
        done += size
