"""What a lip-sync is asked for: one schema behind the command line, job files, tables and services.

    job = job_of({"video": "in.mp4", "audio": "speech.wav", "output": "out.mp4", "face": "2"})

Every view hands its values to `job_of`, so all of them know the same options by the same names and
refuse the same mistakes with the same sentences.
"""

import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from datasets.errors import UserError
from datasets.media.form import check_coding
from models.latentsync.diffusion import DDIM
from tasks.lipsync.choice import ALL, parse_face
from tasks.lipsync.generator import check_sampling
from tasks.lipsync.occlusion import KEEP as KEEP_IN_FRONT
from tasks.lipsync.occlusion import check_occlusion
from tasks.lipsync.playback import AUTO, KEEP, SPEECH_PADDED, check_fps, check_length
from tasks.lipsync.references import check_reference
from tasks.lipsync.silence import MODEL, check_silence
from tasks.runtime.docstrings import argument_helps

QUALITIES = {"exact": (DDIM, 20), "balanced": (DDIM, 10), "draft": (DDIM, 5)}
"""Sampler and steps of each quality, where none are given; chosen by `benchmarks.lipsync`."""
EXACT = "exact"
CRF = 16
STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "dataclass": "an object with named values",
}
"""How pydantic's kinds are called in a sentence, by how the names of its errors begin."""


@dataclass(frozen=True)
class Segment:
    """A stretch of the video in which somebody says something else.

    Args:
        begin_s: when the speech begins, seconds of the video.
        end_s: when it ends at the latest; by default when the speech or the video does.
        audio: file with the speech; by default the job's.
        audio_begin_s: where the speech begins in that file, seconds.
        audio_end_s: where it ends in that file; by default at its end.
        face: whose lips, as for the whole job; by default the job's.
        silence: what the mouth does where nobody speaks; by default the job's.
        steps: sampler steps; by default the job's.
        guidance: weight of the audio; by default the job's.
        seed: seed of the initial noise; by default the job's.
    """

    __pydantic_config__ = STRICT

    begin_s: float = 0.0
    end_s: float | None = None
    audio: str = ""
    audio_begin_s: float = 0.0
    audio_end_s: float | None = None
    face: str | None = None
    silence: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None

    def overlaps(self, other: "Segment") -> bool:
        """Whether both last at some moment, as far as that is known without their speech."""
        first, second = sorted((self, other), key=lambda each: each.begin_s)
        same = second.begin_s == first.begin_s
        return same or (first.end_s is not None and second.begin_s < first.end_s)

    @property
    def span(self) -> str:
        """When it is, in words."""
        return f"{self.begin_s:g} s to {'the end' if self.end_s is None else f'{self.end_s:g} s'}"


@dataclass(frozen=True)
class LipSyncJob:
    """One video that is lip-synced.

    Args:
        video: video with a face that looks towards the camera.
        audio: the speech; any file with sound. Segments may have their own.
        output: video to write: .mp4, .m4v, .mov, .mkv or .webm.
        segments: stretches of the video, each with its own speech and face; the rest stays as it
            was, with its own sound. Each is a JSON object with begin_s, end_s, audio,
            audio_begin_s, audio_end_s, face, silence, steps, guidance and seed.
        audio_begin_s: where the speech begins in its file, seconds.
        audio_end_s: where it ends in its file; by default at its end.
        begin_s: where the part of the video begins that is used, seconds.
        end_s: where it ends; by default at the end of the video.
        face: whose lips, if several people are seen: auto (who speaks in the video, as far as
            its own sound tells), largest, all, a point such as 320,180@2.5 (pixels, seconds), a
            box such as 280,120,360,240@2.5 (left, top, right, bottom), or a number from --preview.
        length: auto (as long as the speech; a longer video is cut, a shorter one runs back and
            forth), cut (as long as the shorter of the two), back-and-forth, loop or hold (how a
            shorter video is made to last), keep (as long as the video, which stays as it was
            after the speech, with its own sound), or speech-padded (as long as the video, with
            silence after the speech). With segments: keep, which auto means then, or speech-padded.
        silence: what the mouth does where nobody speaks within the speech: model (what the network
            makes of the sound), closed (what it makes of silence) or original (as it was).
        quality: exact, balanced or draft: 20, 10 or 5 sampler steps.
        steps: sampler steps; 20 to 50 as published. By default as the quality says.
        sampler: ddim (as published), dpm-solver++ or unipc, which need fewer steps. By default as
            the quality says.
        reuse: every how manieth sampler step runs the whole network; the steps between use what its
            deep layers gave before. 1 as published.
        guidance: weight of the audio; 1 to 3 as published.
        seed: seed of the initial noise.
        reference: what shows the network who the person is: frame (each frame's own face, as the
            published programs do it), still (a calm face in the same pose) or away (another
            moment); by default what the model was made for.
        fps: convert the video to this frame rate first; 25 is what the networks were trained at
            and what the published program does. By default the video keeps its own, and frames
            of 50 or 60 fps are repainted in two interleaved sequences of 25 or 30.
        match: shift the colours of the new mouth to match the face around it; by default unless
            the reference is frame.
        occlusion: keep (a hand or a thing in front of the face stays in front of the new mouth) or
            off (it is painted over, as the published programs do it).
        tone_map: write HDR as an ordinary picture in BT.709; by default HDR stays HDR.
        codec: h264, hevc, vp9 or prores; by default what suits the container and the pictures.
        crf: quality of the encoding on the encoder's scale; lower is better and larger.
        bits: bits per sample, 8 or 10; by default those of the video where the container keeps
            them.
    """

    __pydantic_config__ = STRICT

    video: str = ""
    audio: str = ""
    output: str = ""
    segments: tuple[Segment, ...] | None = None
    audio_begin_s: float = 0.0
    audio_end_s: float | None = None
    begin_s: float = 0.0
    end_s: float | None = None
    face: str = "auto"
    length: str = AUTO
    silence: str = MODEL
    quality: str = EXACT
    steps: int | None = None
    sampler: str = ""
    reuse: int = 1
    guidance: float = 1.5
    seed: int = 1247
    reference: str = ""
    fps: float | None = None
    match: bool | None = None
    occlusion: str = KEEP_IN_FRONT
    tone_map: bool = False
    codec: str = ""
    crf: int = CRF
    bits: int | None = None

    @property
    def sampler_steps(self) -> int:
        """Sampler steps of what has none of its own."""
        return QUALITIES[self.quality][1] if self.steps is None else self.steps

    @property
    def sampler_name(self) -> str:
        """The sampler of all speech."""
        return self.sampler or QUALITIES[self.quality][0]

    @property
    def turns(self) -> tuple[Segment, ...]:
        """Who says what when, with nothing left to defaults: the segments, or one for all."""
        given = self.segments or (Segment(self.begin_s, self.end_s),)
        return tuple(self._whole(each) for each in given)

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that is read: the video, then each speech once."""
        return (self.video, *dict.fromkeys(each.audio for each in self.turns if each.audio))

    def _whole(self, segment: Segment) -> Segment:
        own = segment.audio != ""
        return Segment(
            segment.begin_s,
            segment.end_s,
            segment.audio or self.audio,
            segment.audio_begin_s if own or self.segments else self.audio_begin_s,
            segment.audio_end_s if own or self.segments else self.audio_end_s,
            segment.face or self.face,
            segment.silence or self.silence,
            self.sampler_steps if segment.steps is None else segment.steps,
            self.guidance if segment.guidance is None else segment.guidance,
            self.seed if segment.seed is None else segment.seed,
        )


OPTIONS = tuple(each.name for each in fields(LipSyncJob))
_ADAPTER = TypeAdapter(LipSyncJob)


def job_of(values: Mapping[str, Any], needs_speech: bool = True) -> LipSyncJob:
    """The job that some values ask for, whichever view they come from.

    Args:
        values: options by name. Numbers may be text, as in a table, and so may `segments`, as JSON;
            None means that an option is not given.
        needs_speech: whether there must be a speech; a preview can do without.

    Raises:
        UserError: one sentence about the first mistake.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if isinstance(given.get("segments"), str):
        given["segments"] = segments_of(given["segments"])
    try:
        job = _ADAPTER.validate_python(given)
    except ValidationError as error:
        raise UserError(_sentence(error.errors(include_url=False)[0])) from None
    check_job(job, needs_speech)
    return job


def segments_of(text: str) -> Any:
    """Segments from JSON text: a list of objects, or one object.

    Raises:
        UserError: it is not JSON.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(
            f"segments must be JSON such as "
            f'[{{"begin_s": 1, "end_s": 3, "audio": "speech.wav"}}], got {text!r}: {error}'
        ) from None
    return [found] if isinstance(found, dict) else found


def job_schema() -> dict[str, Any]:
    """The JSON schema of a job, with what each option means."""
    schema = _ADAPTER.json_schema()
    for kind, about in ((LipSyncJob, schema), (Segment, schema["$defs"]["Segment"])):
        texts = argument_helps(inspect.getdoc(kind) or "")
        about["description"] = (kind.__doc__ or "").partition("\n")[0]
        for name, each in about["properties"].items():
            each["description"] = texts[name]
            each.pop("title", None)
    return schema | {"required": ["video", "output"]}


def _sentence(error: Any) -> str:
    """Pydantic's first complaint in our words."""
    place = [each for each in error["loc"] if each not in ("segments", "__root__")]
    numbers = [each + 1 for each in place if isinstance(each, int)]
    names = [str(each) for each in place if isinstance(each, str)]
    where = f"segment {numbers[0]}: " if numbers else ""
    name = names[-1] if names else ("segments" if error["loc"] else "the job")
    kind = str(error["type"])
    if kind == "unexpected_keyword_argument":
        known = [each.name for each in fields(Segment if numbers else LipSyncJob)]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{where}there is no option {name!r}: {hint}the options are {', '.join(known)}"
    wanted = next((text for begin, text in KINDS.items() if kind.startswith(begin)), "")
    if not wanted:
        return f"{where}{name}: {error['msg']}, got {error['input']!r}"
    return f"{where}{name} must be {wanted}, got {error['input']!r}"


def check_job(job: LipSyncJob, needs_speech: bool = True) -> None:
    """Check everything about a job that can be said without opening a file.

    Raises:
        UserError: one sentence about the first mistake.
    """
    for name, what in (("video", "the video to change"), ("output", "the video to write")):
        if not getattr(job, name):
            raise UserError(f"the job has no {name}: give {name}, {what}")
    check_fps(job.fps)
    check_length(job.length)
    check_occlusion(job.occlusion)
    if job.reference:
        check_reference(job.reference)
    if job.quality not in QUALITIES:
        raise UserError(f"quality must be one of {', '.join(QUALITIES)}, got {job.quality!r}")
    check_coding(job.codec, job.crf, job.bits)
    _check_span("the range", "", job.begin_s, job.end_s)
    _check_span("the speech", "audio_", job.audio_begin_s, job.audio_end_s)
    segments = job.segments or ()
    if segments and job.length not in (AUTO, KEEP, SPEECH_PADDED):
        raise UserError(
            f"--length {job.length} does not go with segments, which keep the length of the "
            f"video: leave it out, or give {KEEP} or {SPEECH_PADDED}"
        )
    if segments and (job.audio_begin_s, job.audio_end_s) != (0.0, None):
        raise UserError(
            "audio_begin_s and audio_end_s of the job do not go with segments: give them in each "
            "segment"
        )
    for number, turn in enumerate(job.turns, 1):
        _check_turn(job, turn, f"segment {number}: " if segments else "", needs_speech)
    for (one, first), (two, second) in combinations(enumerate(job.turns, 1), 2):
        same = first.face == second.face or ALL in (first.face, second.face)
        if same and first.overlaps(second):
            raise UserError(
                f"segments {one} ({first.span}) and {two} ({second.span}) overlap, and both are "
                f"for the face {first.face!r}: end the earlier one before the later one begins, "
                "or give each a face of its own"
            )


def _check_turn(job: LipSyncJob, turn: Segment, where: str, needs_speech: bool) -> None:
    if not turn.audio and needs_speech:
        raise UserError(
            f"{where}nothing says what is spoken: give audio, a file with speech"
            + (", in the segment or for the whole job" if where else ", or segments")
        )
    assert turn.face is not None
    assert turn.silence is not None
    assert turn.steps is not None
    assert turn.guidance is not None
    try:
        face = parse_face(turn.face)
        check_silence(turn.silence)
        check_sampling(turn.steps, turn.guidance, job.sampler_name, job.reuse)
        if where:
            _check_span("the segment", "", turn.begin_s, turn.end_s)
            _check_span("its speech", "audio_", turn.audio_begin_s, turn.audio_end_s)
    except UserError as error:
        raise UserError(f"{where}{error}") from None
    end = math.inf if job.end_s is None else job.end_s
    if face.at_s is not None and not job.begin_s <= face.at_s <= end:
        raise UserError(
            f"{where}--face {turn.face}: the job uses the video from {_range(job)}, choose a "
            "moment in it"
        )
    if turn.begin_s < job.begin_s or turn.begin_s >= end or (turn.end_s or 0) > end:
        raise UserError(
            f"{where}{turn.span} is not within the range of the job, {_range(job)}: "
            "change one of them"
        )


def _range(job: LipSyncJob) -> str:
    return f"{job.begin_s:g} s to {'its end' if job.end_s is None else f'{job.end_s:g} s'}"


def _check_span(what: str, prefix: str, begin_s: float, end_s: float | None) -> None:
    if not (math.isfinite(begin_s) and begin_s >= 0):
        raise UserError(f"{what} must begin at 0 s or later, got {prefix}begin_s {begin_s:g}")
    if end_s is not None and not (math.isfinite(end_s) and end_s > begin_s):
        raise UserError(
            f"{what} must end after it begins, got {prefix}begin_s {begin_s:g} and "
            f"{prefix}end_s {end_s:g}"
        )


def check_outputs(jobs: Sequence[tuple[str, LipSyncJob]]) -> None:
    """Check that no job of several writes what another one reads or writes.

    Args:
        jobs: each with what it is called in a message.

    Raises:
        UserError: names the two.
    """
    writes: dict[Path, str] = {}
    reads: dict[Path, str] = {}
    for name, job in jobs:
        for each in job.files:
            reads.setdefault(Path(each).resolve(), name)
    for name, job in jobs:
        path = Path(job.output).resolve()
        if path in writes:
            raise UserError(
                f"{writes[path]} and {name} write the same output {job.output}: give each its own"
            )
        if path in reads:
            raise UserError(
                f"the output {job.output} of {name} is read by {reads[path]}: give it another name"
            )
        writes[path] = name
