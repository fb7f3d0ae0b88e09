"""One clip of an evaluation, from its shard to its record: generated, measured, drawn, kept.

The same code runs in this process and in Ray's workers. A clip ends with its record, which is
written last: whatever happens before, the clip is done again from its generated frames.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from datasets.faces.landmarks import FaceMeshDetector
from datasets.media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, VideoWriter, write_flac
from datasets.shards.clips import ClipStore
from models.latentsync.sampling import bf16_pays
from tasks.evaluate.baselines import BASELINES, Baseline, baseline_video
from tasks.evaluate.clips import ClipList, Kind, OpenClip, open_clip
from tasks.evaluate.generated import GeneratedFrames, Line
from tasks.evaluate.measurement import MODEL, ClipRecord, Labels, Measurement, write_record
from tasks.evaluate.plots import sheet_frames
from tasks.evaluate.scores import Scores
from tasks.evaluate.transcripts import Transcripts
from tasks.lipsync.generator import FaceGenerator
from tasks.recipes.evaluation import EvaluationConfig
from tasks.runtime.device import resolve_device
from tasks.runtime.stage import Resources, Stage

SHEET_CLIPS = 6
"""Clips on the contact sheet."""


def record_path(records: Path, number: int) -> Path:
    """The record of a clip, by its position in the list."""
    return records / f"{number:03d}.npz"


class Measures(Protocol):
    """`tasks.evaluate.scores.Scores`."""

    @property
    def labels(self) -> Labels: ...
    def measure(
        self,
        clip: OpenClip,
        reconstruction: np.ndarray,
        cross: np.ndarray,
        silence: np.ndarray | None = None,
        hear_leaks: bool = True,
    ) -> Measurement: ...


@dataclass(frozen=True)
class ClipJob:
    """What clips need besides themselves."""

    tests: ClipList
    generated: GeneratedFrames
    scores: Measures
    baselines: Sequence[Baseline]
    reference: str
    """How references are chosen."""
    output: Path
    records: Path
    """Folder of the records."""
    bf16: bool = False
    """Whether the model runs in bf16."""

    def run(self, number: int, clip: OpenClip) -> ClipRecord:
        """Process one clip; returns the record that was written."""
        name = clip.chosen.clip_id
        videos = {kind: self.generated.video(number, clip, kind) for kind in clip.chosen.kinds}
        record = ClipRecord(
            name,
            clip.chosen.speaker,
            self.scores.labels,
            self._measure(clip, videos),
            self._sheet(clip, videos) if number < SHEET_CLIPS else {},
            self.bf16,
        )
        for kind, frames in videos.items():
            path = self.output / kind / f"{name}.mp4"
            write_video(path, frames, clip.heard(kind), self.records / f"sound-{number:03d}.flac")
        write_record(record_path(self.records, number), record)
        return record

    def _measure(self, clip: OpenClip, videos: Mapping[Kind, np.ndarray]) -> dict[str, Measurement]:
        """The model's measurements and those of trivial models, side by side."""

        def of(shown: Mapping[Kind, np.ndarray], hear_leaks: bool) -> Measurement:
            return self.scores.measure(
                clip,
                shown["reconstruction"],
                shown["cross"],
                shown.get("silence"),
                hear_leaks,
            )

        found = {MODEL: of(videos, True)}
        for name in self.baselines:
            made = {
                kind: baseline_video(name, clip, kind, frames, self.reference)
                for kind, frames in videos.items()
            }
            found[name] = of(made, False)
        return found

    @staticmethod
    def _sheet(clip: OpenClip, videos: Mapping[Kind, np.ndarray]) -> dict[str, np.ndarray]:
        shown: list[tuple[str, np.ndarray]] = [("input", clip.frames), *videos.items()]
        return {name: sheet_frames(each) for name, each in shown}


def write_video(path: Path, frames: np.ndarray, audio: np.ndarray, sound: Path) -> None:
    """Write a video with sound.

    Args:
        path: the mp4 to write.
        frames: uint8 (t, R, R, 3) at 25 fps.
        audio: float32 (samples,) at 16 kHz; anything after the last frame is left out.
        sound: a temporary file.
    """
    path.parent.mkdir(exist_ok=True)
    write_flac(sound, audio[: len(frames) * SAMPLES_PER_FRAME], SAMPLE_RATE)
    side = frames.shape[1]
    with VideoWriter(path, side, side, FPS, crf=16, audio=sound) as writer:
        for frame in frames:
            writer.write(frame)
    sound.unlink()


@dataclass
class ClipStage(Stage):
    """Clips, by their positions in the list; each item is those that go through the model together.

    Args:
        bundle: the model.
        judge_bundle: whose sync network judges if there is no syncnet_v2.
        dataset: folder with `index.json`.
        resolution: side of the model's faces.
        tests: the frozen list.
        config: which clips to use, and how; `windows_at_once` is set.
        device: cpu, cuda, cuda:N or mps.
        output: folder of the results.
        frames: folder of the generated frames.
        records: folder of the clips' records.
    """

    bundle: Path
    judge_bundle: Path
    dataset: Path
    resolution: int
    tests: ClipList
    config: EvaluationConfig
    device: str
    output: Path
    frames: Path
    records: Path
    resources: Resources = field(default_factory=Resources)

    def setup(self) -> None:
        """Load the judges: a file that is not one must be reported before hours of generating."""
        self._lines: list[str] = []
        self._say: Line = self._lines.append
        self._store = ClipStore(
            self.dataset,
            split=self.tests.split,
            resolution=self.resolution,
            memory_bytes=0,
        )
        folder = self.config.transcripts
        self._transcripts = Transcripts(Path(folder) if folder else None)
        self._detector = FaceMeshDetector(max_faces=1)
        device, count = resolve_device(self.device), len(self.tests.clips)
        self._job = ClipJob(
            self.tests,
            GeneratedFrames(
                self.frames,
                self.tests,
                self._load,
                lambda line: self._say(line),
                self.config.windows_at_once,
            ),
            Scores(self.judge_bundle, self.config, device, count, self._detector),
            BASELINES,
            self.config.reference,
            self.output,
            self.records,
            bf16_pays(device),
        )

    def _load(self) -> FaceGenerator:
        config = self.config
        return FaceGenerator(
            self.bundle,
            self.device,
            config.steps,
            config.guidance,
            config.seed,
            reference=config.reference,
        )

    def process(self, item: Sequence[int]) -> list[str]:
        """Generate clips, measure those without a record; returns lines about it, unless they
        were said at once."""
        self._lines.clear()
        process_clips(
            item,
            lambda number: open_clip(self._store, self.tests.clips[number], self._transcripts),
            self._job,
        )
        return list(self._lines)

    def run_here(self, items: Sequence[Sequence[int]], say: Line, done: Callable[[], Any]) -> None:
        """Work on items in this process; `done` is called after each."""
        self.setup()
        self._say = say
        try:
            for item in items:
                self.process(item)
                done()
        finally:
            self._detector.close()


def process_clips(numbers: Sequence[int], open_: Callable[[int], OpenClip], job: ClipJob) -> None:
    """Generate clips, together where the model takes several windows, and measure them one by one.

    Args:
        numbers: positions in the list.
        open_: decodes a clip.
        job: what clips need besides themselves.
    """
    left = [number for number in numbers if not record_path(job.records, number).is_file()]
    if job.generated.at_once == 1:
        for number in left:
            job.run(number, open_(number))
        return
    clips = [(number, open_(number)) for number in numbers]
    job.generated.prepare(clips)
    for number, clip in clips:
        if number in left:
            job.run(number, clip)
