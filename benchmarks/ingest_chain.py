"""The directory-per-stage chain of METHOD.md, section 7, from its public tools.

Each stage reads the previous stage's directory and writes its own, with as many processes as
there are cores; a stage begins when the previous one has ended. Steps and options are those of
the reference; if there is a choice, the faster one is used:

    check     the container opens, its audio decodes; nothing is deleted, bad files are left out
    resample  ffmpeg -r 25 -ar 16000                                      first encode
    shots     scenedetect detect-adaptive --threshold 2 split-video       second encode
    segment   ffmpeg -f segment -segment_time 5, video copied, so that it cuts at key frames
    align     decode, FaceMesh, alignment, write with its sound           third encode
    sync      the scorer on the landmarks that `align` left next to the video; the audio is
              shifted by a remux (ffmpeg -itsoffset), or the file copied; final directory

In the chain's favour: one pool of processes with loaded models serves all stages, the
aligned video is encoded once instead of twice, landmarks are not detected again for the sync
score, and no clip is judged by a network. A frame without a face drops the clip, as in the
reference.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.ingest_workers import Workers, detector
from datasets.errors import SourceError
from datasets.faces.alignment import Aligner, align
from datasets.media import FPS, VideoWriter, probe, read_audio, read_frames
from tasks.ingest.clip_writer import PRESET
from tasks.ingest.config import IngestConfig
from tasks.ingest.verdicts import Thresholds
from tasks.sync.scorers import get_scorer
from tasks.sync.signals import ClipSignals

STAGES = ("check", "resample", "shots", "segment", "align", "sync")
LANDMARKS = ".npy"
Job = tuple[Path, Path]
"""The directories that a stage reads and writes."""
Result = TypeVar("Result")


@dataclass
class ChainResult:
    """The chain's times and results."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time per stage."""
    files: dict[str, int] = field(default_factory=dict)
    """Number of files that each stage left."""
    clips: dict[str, list[int]] = field(default_factory=dict)
    """Source -> frames of each of its final clips."""
    copying_s: float = 0.0
    """Time of `resample` if videos that have 25 fps are copied, as the reference does."""
    begin: float = 0.0
    """`time.monotonic` at the first stage's start."""
    end: float = 0.0
    again_s: float = 0.0
    """Time to find the landmarks again in the aligned clips, as the reference does for sync."""

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())


def run_chain(
    sources: Sequence[Path], work: Path, workers: Workers, config: IngestConfig, bar: Thresholds
) -> ChainResult:
    """Run all stages; `ffmpeg` and `scenedetect` must be on the workers' PATH.

    Args:
        sources: the videos, the longest first.
        work: an empty folder.
        workers: processes with face models.
        config: resolution, scorer, quality and shortest clip, as for our own ingest.
        bar: confidence and offset that a clip must meet.
    """
    result = ChainResult(begin=time.monotonic())
    named = {f"{number:05d}": path for number, path in enumerate(sources)}

    def stage(name: str, function: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
        (work / name).mkdir()
        results, span = workers.map(function, jobs)
        result.seconds[name] = span.seconds
        return results

    def found(name: str) -> list[Path]:
        files = sorted((work / name).glob("*.mp4"))
        result.files[name] = len(files)
        return files

    def to(name: str, files: Sequence[Path]) -> list[Job]:
        return [(path, work / name / path.name) for path in files]

    good = stage("check", check, [(path, work / "check") for path in sources])
    jobs = [
        (path, work / "resample" / f"{name}.mp4")
        for (name, path), whole in zip(named.items(), good, strict=True)
        if whole
    ]
    result.files["check"] = len(jobs)
    stage("resample", resample, jobs)
    stage("shots", shots, to("shots", found("resample")))
    stage("segment", segment, to("segment", found("shots")))
    stage("align", _Align(config), to("align", found("segment")))
    aligned = found("align")
    counts = stage("sync", _Sync(config, bar), to("sync", aligned))
    found("sync")
    for path, frames in zip(aligned, counts, strict=True):
        if frames:
            result.clips.setdefault(str(named[path.name[:5]]), []).append(frames)
    result.end = time.monotonic()
    _variants(result, work, workers, jobs, aligned)
    return result


def _variants(
    result: ChainResult, work: Path, workers: Workers, jobs: Sequence[Job], aligned: Sequence[Path]
) -> None:
    """Time what the reference does differently; nothing reads the output."""
    (work / "copied").mkdir()
    copies = [(path, work / "copied" / out.name) for path, out in jobs]
    result.copying_s = workers.map(resample_or_copy, copies)[1].seconds
    result.again_s = workers.map(detect_again, aligned)[1].seconds


def check(job: Job) -> bool:
    """Whether the file has video and sound that can be read."""
    try:
        probe(job[0])
        return len(read_audio(job[0])) > 0
    except SourceError:
        return False


def _run(*command: str | Path) -> None:
    # As in the reference, a file on which a tool fails is missing from the next directory.
    subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _ffmpeg(*options: str | Path) -> None:
    _run("ffmpeg", "-loglevel", "error", "-y", *options)


def resample(job: Job) -> None:
    """25 fps and 16 kHz."""
    _ffmpeg("-i", job[0], "-r", "25", "-ar", "16000", "-q:a", "0", job[1])


def resample_or_copy(job: Job) -> None:
    """The same, but a video of 25 fps is copied."""
    if abs(probe(job[0]).fps - FPS) > 1e-6:
        resample(job)
    else:
        _ffmpeg("-i", job[0], "-c:v", "copy", "-ar", "16000", "-q:a", "0", job[1])


def shots(job: Job) -> None:
    """One file per shot."""
    source, out = job
    detect = ("detect-adaptive", "--threshold", "2")
    split = ("split-video", "--filename", f"{out.stem}_shot_$SCENE_NUMBER", "--output", out.parent)
    _run("scenedetect", "--quiet", "-i", source, *detect, *split)


def segment(job: Job) -> None:
    """Pieces that begin at the first key frame after every 5 s."""
    source, out = job
    cut = ("-segment_time", "5", "-f", "segment", "-reset_timestamps", "1", "-q:a", "0")
    name = out.with_name(f"{out.stem}_%03d.mp4")
    _ffmpeg("-i", source, "-map", "0", "-c:v", "copy", *cut, name)


@dataclass(frozen=True)
class _Align:
    config: IngestConfig

    def __call__(self, job: Job) -> None:
        """Write the aligned face with its sound, and its landmarks next to it."""
        source, out = job
        side = self.config.resolution
        aligner, mesh = Aligner(side), detector()
        mesh.reset()
        landmarks = []
        try:
            writer = VideoWriter(
                out, side, side, FPS, crf=self.config.crf, audio=source, preset=PRESET
            )
            with writer:
                for frame in read_frames(source, fps=None):
                    faces = mesh.detect(frame.rgb)
                    if not faces:
                        raise _NoFaceError
                    matrix = aligner.matrix(faces[0].landmarks)
                    writer.write(align(frame.rgb, matrix, side))
                    landmarks.append(faces[0].landmarks)
        except (SourceError, _NoFaceError):
            return
        np.save(out.with_suffix(LANDMARKS), np.stack(landmarks))


class _NoFaceError(Exception):
    pass


@dataclass(frozen=True)
class _Sync:
    config: IngestConfig
    bar: Thresholds

    def __call__(self, job: Job) -> int:
        """Frames of the clip if it is kept, otherwise 0."""
        source, out = job
        landmarks = np.load(source.with_suffix(LANDMARKS))
        if len(landmarks) < self.config.min_frames:
            return 0
        try:
            sound = read_audio(source)
        except SourceError:
            return 0
        scorer = get_scorer(self.config.scorer)
        (score,) = scorer.score([ClipSignals(landmarks, sound)])
        least = self.bar.min_confidence
        if not score.confidence >= (scorer.min_confidence if least is None else least):
            return 0
        if abs(score.offset_frames) > self.bar.max_offset_frames:
            return 0
        if round(score.offset_frames) == 0:
            shutil.copy(source, out)
        else:
            late = -score.offset_frames / FPS
            both = ("-i", source, "-itsoffset", f"{late:.6f}", "-i", source)
            _ffmpeg(*both, "-map", "0:v", "-map", "1:a", "-c", "copy", out)
        return len(landmarks) if out.is_file() else 0


def detect_again(path: Path) -> None:
    """FaceMesh on every frame of an aligned clip."""
    mesh = detector()
    mesh.reset()
    for frame in read_frames(path, fps=None):
        mesh.detect(frame.rgb)
