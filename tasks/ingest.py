"""From one video file to its aligned clips and their ledger rows, in one decode.

    decode -> shots -> faces -> tracks -> aligned faces, encoded at once -> sync -> quality

Scores are stored and thresholds applied later; only what no threshold could save is refused
here. Every file gives at least one row, whatever is wrong with it.
"""

import hashlib
import json
import logging
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import Reason, SourceError
from datasets.landmarks import FaceMeshDetector
from datasets.manifest import content_digest
from datasets.media import (
    FPS,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    probe,
    read_audio,
    read_frames,
    write_flac,
)
from datasets.records import ClipRow
from datasets.sources import SourceItem
from tasks.clip_writer import TrackClip, TrackWriter
from tasks.executor import Resources, Stage
from tasks.face_pass import FacePass
from tasks.speaker_choice import refuse_other_faces
from tasks.sync_score import OffsetScorer, get_scorer

log = logging.getLogger(__name__)

SILENCE = 1e-3
"""A clip whose loud frames stay below this root mean square (-60 dBFS) is silent."""
FILES = ("mp4", "flac", "npy", "json")
FACTS = (
    "clip_id",
    "path",
    "speaker",
    "num_frames",
    "start_s",
    "end_s",
    "av_offset_frames",
    "sync_confidence",
    "scorer",
)
"""What a clip's json takes over from its row."""


@dataclass(frozen=True)
class IngestConfig:
    """What decides the content of clips; part of the key under which results are kept."""

    resolution: int = 256
    """Side of the aligned faces."""
    scorer: str = "mouth-audio"
    """Measures the offset between lips and audio."""
    min_frames: int = 50
    """Shortest clip, frames at 25 fps."""
    max_clip_frames: int = 250
    """Longest clip; longer tracks become several."""
    min_face_px: float = 48.0
    """Smaller faces have no detail to learn from, whatever the thresholds."""
    max_faces: int = 2
    """Faces that are followed at once."""
    crf: int = 15
    """x264's quality of the aligned faces."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_frames <= self.max_clip_frames / 2:
            raise ValueError(
                f"clips of {self.min_frames} to {self.max_clip_frames} frames are asked for: "
                "the longest must be at least twice the shortest"
            )


@dataclass
class IngestStage(Stage):
    """Turns a `SourceItem` into clips under `staging` and rows for the ledger.

    `process` returns `key`, `path`, `digest` (sha256 of the file), `seconds` it took,
    `video_seconds`, `cuts_s`, `rows` (of `ClipRow`), and `clips`: for each clip that the
    thresholds may accept its `clip_id` and `files`, suffix -> path below `staging`.
    """

    config: IngestConfig
    staging: Path
    resources: Resources = field(default_factory=lambda: Resources(cpus=1.0))
    _detector: FaceMeshDetector | None = field(default=None, init=False, repr=False)
    _scorer: OffsetScorer | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Load the face models."""
        self._scorer = get_scorer(self.config.scorer)
        self._detector = FaceMeshDetector(self.config.max_faces)

    def process(self, item: SourceItem) -> dict[str, Any]:
        """Ingest one file; wrong input gives rows with a reason, never an exception."""
        began = time.monotonic()
        if self._detector is None or self._scorer is None:
            self.setup()
            assert self._detector is not None
            assert self._scorer is not None
        name = hashlib.sha1(item.key.encode("utf-8", "surrogatepass")).hexdigest()
        target, folder = self.staging / name, self.staging / f"{name}.tmp"
        for old in (target, folder):
            shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(parents=True)
        run = _FileRun(item, self.config, folder, self._detector, self._scorer)
        try:
            run.ingest()
            if run.kept:
                folder.replace(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return {
            "key": item.key,
            "path": item.relative,
            "digest": run.digest,
            "seconds": time.monotonic() - began,
            "video_seconds": run.frames / FPS,
            "cuts_s": run.cuts_s,
            "rows": [row.as_dict() for row in run.rows],
            "clips": [
                {"clip_id": kept, "files": {kind: f"{name}/{kept}.{kind}" for kind in FILES}}
                for kept in run.kept
            ],
        }


class _FileRun:
    """What is known of one file while it is ingested."""

    def __init__(
        self,
        item: SourceItem,
        config: IngestConfig,
        folder: Path,
        detector: FaceMeshDetector,
        scorer: OffsetScorer,
    ) -> None:
        self.item, self.config, self.folder = item, config, folder
        self.detector, self.scorer = detector, scorer
        self.prefix = clip_prefix(item.relative)
        self.audio = np.zeros(0, np.float32)
        self.digest = ""
        self.frames = 0
        self.cuts_s: list[float] = []
        self.rows: list[ClipRow] = []
        self.kept: list[str] = []

    def ingest(self) -> None:
        """Fill `rows`, and the folder with the files of the clips in `kept`."""
        step = "probe"
        try:
            self.digest = _digest(self.item.path)
            info = probe(self.item.path)
            step = "audio"
            if not info.has_audio:
                raise SourceError(Reason.NO_AUDIO, "no audio stream")
            self.audio = read_audio(self.item.path)
            if is_silent(self.audio):
                raise SourceError(Reason.SILENT, "the whole file is silent")
            step = "decode"
            self._read_video()
        except SourceError as error:
            self._refuse(error, step)
            return
        refuse_other_faces(self.rows)
        self._settle()

    def _read_video(self) -> None:
        work = FacePass(self.detector, self._make_writer)
        try:
            for frame in read_frames(self.item.path):
                work.add(frame.picture)
            work.finish()
        except BaseException:
            work.abandon()
            raise
        self.frames = work.count
        self.cuts_s = [shot.start / FPS for shot in work.shots[1:]]
        for shot in work.shots:
            if not shot.faces:
                row = self._row(shot.number, shot.start, shot.stop - shot.start)
                _mark(row, Reason.NO_FACE, "faces", f"none in {row.num_frames} frames")
                self.rows.append(row)
        self.rows.sort(key=lambda row: (row.start_s, row.track, row.clip_id))

    def _make_writer(self, track: int, shot: int) -> TrackWriter:
        def name(number: int) -> Path:
            return self.folder / f"{self._clip_id(shot, track, number)}.mp4"

        def on_clip(clip: TrackClip) -> None:
            self._clip_done(shot, clip)

        return TrackWriter(
            track,
            name,
            resolution=self.config.resolution,
            min_frames=self.config.min_frames,
            max_frames=self.config.max_clip_frames,
            crf=self.config.crf,
            on_clip=on_clip,
        )

    def _clip_id(self, shot: int, track: int, number: int) -> str:
        return f"{self.prefix}-s{shot:02d}-t{track:02d}-{number:02d}"

    def _row(self, shot: int, start: int, frames: int) -> ClipRow:
        return ClipRow(
            path=self.item.relative,
            speaker=self.item.speaker,
            shot=shot,
            start_s=start / FPS,
            end_s=(start + frames) / FPS,
            num_frames=frames,
            scorer=self.config.scorer,
        )

    def _clip_done(self, shot: int, clip: TrackClip) -> None:
        """Score a clip and write what belongs to its video."""
        row = self._row(shot, clip.start, clip.frames)
        row.clip_id = self._clip_id(shot, clip.track, clip.number)
        row.track = clip.track
        for name, value in vars(clip.quality).items():
            setattr(row, name, value)
        self.rows.append(row)
        if clip.video is None:
            limit = self.config.min_frames
            _mark(row, Reason.TOO_SHORT, "faces", f"{clip.frames} frames, at least {limit} needed")
            return
        sound = audio_part(self.audio, clip.start, clip.frames, 0.0)
        if row.face_px < self.config.min_face_px:
            text = f"{row.face_px:.0f} px, at least {self.config.min_face_px:g} needed"
            _mark(row, Reason.FACE_TOO_SMALL, "faces", text)
        elif is_silent(sound):
            _mark(row, Reason.SILENT, "audio", "no speech during this clip")
        else:
            score = self.scorer.score(clip.landmarks, sound)
            row.av_offset_frames, row.sync_confidence = score.offset_frames, score.confidence
            self._write_beside(row, clip)

    def _write_beside(self, row: ClipRow, clip: TrackClip) -> None:
        base = self.folder / row.clip_id
        late = row.av_offset_frames if np.isfinite(row.sync_confidence) else 0.0
        sound = audio_part(self.audio, clip.start, clip.frames, late)
        write_flac(base.with_suffix(".flac"), sound, SAMPLE_RATE)
        np.save(base.with_suffix(".npy"), clip.aligned)
        known = {name: getattr(row, name) for name in FACTS}
        known["resolution"] = self.config.resolution
        base.with_suffix(".json").write_text(json.dumps(known, sort_keys=True), encoding="utf-8")

    def _settle(self) -> None:
        """Keep the files of clips that may still be accepted, delete the others."""
        self.kept = [row.clip_id for row in self.rows if not row.reason]
        for row in self.rows:
            if row.reason and row.clip_id:
                for kind in FILES:
                    with suppress(FileNotFoundError):
                        (self.folder / f"{row.clip_id}.{kind}").unlink()

    def _refuse(self, error: SourceError, step: str) -> None:
        """The file as a whole gives nothing: one row says why."""
        row = ClipRow(path=self.item.relative, speaker=self.item.speaker)
        _mark(row, error.reason, step, error.detail)
        self.rows = [row]
        log.debug("%s: %s", self.item.relative, error)


def _mark(row: ClipRow, reason: Reason, stage: str, detail: str) -> None:
    row.reason, row.stage, row.detail = reason.value, stage, detail


def _digest(path: Path) -> str:
    try:
        return content_digest(path)
    except OSError as error:
        raise SourceError(Reason.UNREADABLE, error.strerror or str(error)) from error


def clip_prefix(relative: str) -> str:
    """Start of the clip ids of a file: its path as plain text, and a hash of the exact one."""
    stem = relative.rsplit(".", 1)[0] if "." in relative.rsplit("/", 1)[-1] else relative
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-")[:60] or "clip"
    exact = hashlib.sha1(relative.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{plain}-{exact}"


def audio_part(audio: np.ndarray, start: int, frames: int, late: float) -> np.ndarray:
    """Exactly `frames` frames of audio from frame `start` on, a delay of `late` frames undone.

    Samples before or after the recording are zero; all others are the recording's own.
    """
    begin = start * SAMPLES_PER_FRAME + round(late * SAMPLES_PER_FRAME)
    end = begin + frames * SAMPLES_PER_FRAME
    part = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    inside = audio[max(begin, 0) : max(end, 0)]
    skip = max(-begin, 0)
    part[skip : skip + len(inside)] = inside
    return part


def is_silent(audio: np.ndarray) -> bool:
    """Whether even the louder frames carry no sound."""
    frames = len(audio) // SAMPLES_PER_FRAME
    if frames == 0:
        return True
    pieces = audio[: frames * SAMPLES_PER_FRAME].reshape(frames, SAMPLES_PER_FRAME)
    # Squares are taken frame by frame, since hours of audio would double in memory.
    loudness = np.sqrt(np.einsum("fs,fs->f", pieces, pieces) / SAMPLES_PER_FRAME)
    return bool(np.quantile(loudness, 0.95) < SILENCE)
