"""How long a batch will take, from the work in its jobs and what a piece of it takes here.

Work is counted without decoding a video: frames to search, to repaint and to write. What each takes
is measured on a worker of the batch, with the batch's model, on the first video that can be read.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from datasets.errors import SourceError, UserError
from datasets.media import SAMPLE_RATE, VideoWriter, probe, read_frames
from tasks.lipsync.face_scan import scan_video
from tasks.lipsync.generator import OVERLAP, FaceGenerator
from tasks.lipsync.job import LipSyncJob
from tasks.lipsync.playback import CUT, OF_THE_VIDEO
from tasks.lipsync.turns import read_speech
from tasks.runtime.stage import Resources, Stage

LOOK_S = 1.0
"""Seconds of the video that are worked on to measure."""


@dataclass(frozen=True)
class Speed:
    """What pieces of work take on one worker."""

    scan_s: float
    """Seconds to read a frame and to search it for faces."""
    write_s: float
    """Seconds to encode one."""
    window_s: float
    """Seconds of a window of faces beside its sampler steps,"""
    step_s: float
    """and of each step."""
    window_frames: int
    """Frames by which one window is further than the one before."""
    setup_s: float = 0.0
    """Seconds until a worker is ready."""

    def of(self, work: "Work") -> float:
        """Seconds of a job."""
        windows = work.painted / self.window_frames
        return (
            self.scan_s * work.read
            + self.write_s * work.written
            + windows * (self.window_s + work.steps * self.step_s)
        )


@dataclass(frozen=True)
class Work:
    """The work in a job."""

    read: int
    """Frames that are searched for faces."""
    painted: int
    """Faces that are repainted, all people together; an estimate."""
    written: int
    """Frames of the output."""
    steps: int
    """Sampler steps of each window."""


def work_of(job: LipSyncJob) -> Work:
    """How much there is to do.

    Raises:
        UserError, SourceError: a file cannot be used.
    """
    info = probe(Path(job.video))
    fps = job.fps or info.fps
    end_s = info.duration_s if job.end_s is None else min(job.end_s, info.duration_s)
    video_s = max(0.0, end_s - job.begin_s)
    speech = [
        (_seconds(each.audio) if each.audio_end_s is None else each.audio_end_s)
        - each.audio_begin_s
        for each in job.turns
    ]
    spoken = [
        min(seconds, (each.end_s or end_s) - each.begin_s) if job.segments else seconds
        for seconds, each in zip(speech, job.turns, strict=True)
    ]
    of_the_video = bool(job.segments) or job.length in OF_THE_VIDEO
    output_s = min(video_s, speech[0]) if job.length == CUT else speech[0]
    output_s = video_s if of_the_video else output_s
    painted = sum(min(each, output_s) for each in spoken)
    return Work(
        read=round(fps * (video_s if of_the_video else min(video_s, output_s))),
        painted=round(fps * painted),
        written=round(fps * output_s),
        steps=round(np.mean([each.steps or 0 for each in job.turns])),
    )


def _seconds(audio: str) -> float:
    path = Path(audio)
    about = path.stat() if path.is_file() else None
    return _length(path, about.st_mtime_ns if about else 0)


@lru_cache(maxsize=4096)
def _length(path: Path, changed_ns: int) -> float:
    return len(read_speech(path)) / SAMPLE_RATE


def works_of(jobs: Sequence[LipSyncJob]) -> list[Work]:
    """The work of all jobs that can be done, as far as that is known before."""
    found = []
    for job in jobs:
        try:
            found.append(work_of(job))
        except (UserError, SourceError):
            continue
    return found


def batch_seconds(works: Sequence[Work], speed: Speed, workers: int) -> float:
    """Seconds until all are done: work is shared evenly, but no job is shared."""
    each = [speed.of(work) for work in works]
    return speed.setup_s + max(sum(each) / max(1, workers), max(each, default=0.0))


@dataclass
class SpeedStage(Stage):
    """Measures a `Speed` where and with what a batch works; its items are videos."""

    bundle: Path
    device: str = "cpu"
    bf16: bool | None = None
    adapter: Path | None = None
    resources: Resources = field(default_factory=Resources)

    def setup(self) -> None:
        began = time.monotonic()
        self.generator = FaceGenerator(
            self.bundle, self.device, bf16=self.bf16, adapter=self.adapter
        )
        self.setup_s = time.monotonic() - began

    def process(self, item: Path) -> Speed:
        scan_s, count = _timed(lambda: len(scan_video(item, until_s=LOOK_S).times_s))
        frames = [frame.rgb for frame in read_frames(item, fps=None, end_s=LOOK_S)]
        write_s, _ = _timed(lambda: _write(frames))
        one, three = (self._window_s(steps) for steps in (1, 3))
        step_s = max(0.0, (three - one) / 2)
        length = self.generator.num_frames
        return Speed(
            scan_s / count,
            write_s / max(1, len(frames)),
            max(0.0, one - step_s),
            step_s,
            max(1, length if self.generator.chained else length - OVERLAP),
            self.setup_s,
        )

    def _window_s(self, steps: int) -> float:
        generator = self.generator.tuned(steps, 1.5, 1247)
        side, frames = generator.resolution, generator.num_frames
        faces = np.full((frames, side, side, 3), 127, np.uint8)
        speech = generator.speech(np.zeros(frames * 640, np.float32))
        tokens = speech.at(np.arange(frames) / 25)
        # The first call also makes what later ones share.
        return min(_timed(lambda: _paint(generator, faces, tokens))[0] for _ in range(2))


def _paint(generator: FaceGenerator, faces: np.ndarray, tokens: torch.Tensor) -> int:
    if generator.chained:
        generator.window_after((), faces, faces, tokens)
    else:
        generator.window(faces, faces, tokens)
    return len(faces)


def _timed(work: Callable[[], int]) -> tuple[float, int]:
    began = time.monotonic()
    count = work()
    return time.monotonic() - began, count


def _write(frames: Sequence[np.ndarray]) -> int:
    if not frames:
        return 0
    height, width = frames[0].shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speed.mp4"
        with VideoWriter(path, width, height, 25) as writer:
            for frame in frames:
                writer.write(frame)
    return len(frames)
