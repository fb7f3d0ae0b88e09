"""An ingestion stage with real face models and a scorer with given results."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from datasets.faces.landmarks import FaceMeshDetector
from datasets.media import SAMPLE_RATE, SAMPLES_PER_FRAME, VideoWriter, write_flac
from datasets.shards.index import read_samples
from datasets.sources.items import SourceItem, local_item
from datasets.store.local import LocalStore
from tasks.ingest.config import IngestConfig, Tools
from tasks.ingest.layout import SPARE
from tasks.ingest.stage import FileResult, IngestStage, IngestWork
from tasks.ingest.verdicts import Thresholds
from tasks.sync.signals import ClipSignals, OffsetScore

CONFIG = IngestConfig(resolution=96, min_frames=20, max_clip_frames=60)
Made = tuple[Path, np.ndarray]
"""A video and its sound."""
Files = dict[str, dict[str, bytes]]
"""Clip id -> suffix -> content."""


class FixedScorer:
    """Says the same of every clip."""

    name = "mouth-audio"
    needs_frames = False
    min_confidence = 3.0

    def __init__(self) -> None:
        self.offset, self.confidence = 0.0, 4.5

    def score(self, clips: Sequence[ClipSignals]) -> list[OffsetScore]:
        for clip in clips:
            assert clip.landmarks.shape == (len(clip.audio) // SAMPLES_PER_FRAME, 478, 2)
        return [OffsetScore(self.offset, self.confidence) for _ in clips]


def make_stage(folder: Path) -> IngestStage:
    """A stage that is ready, with its store below a folder."""
    made = IngestStage(CONFIG, Thresholds(), LocalStore(folder / "out"), "staging")
    made._tools = Tools(FaceMeshDetector(CONFIG.max_faces), FixedScorer())
    return made


def scorer_of(stage: IngestStage) -> FixedScorer:
    """The scorer of a stage made here."""
    assert stage._tools is not None
    assert isinstance(stage._tools.scorer, FixedScorer)
    return stage._tools.scorer


def reset(stage: IngestStage) -> IngestStage:
    """The stage with its scorer as it was in the beginning."""
    scorer_of(stage).offset, scorer_of(stage).confidence = 0.0, 4.5
    return stage


def run(stage: IngestStage, *items: SourceItem) -> tuple[list[FileResult], Files, Files]:
    """Ingest items as one group: their results, the accepted clips, the spare ones."""
    stage.begin("7")
    results = [stage.process(IngestWork(item, Path(item.location), "train")) for item in items]
    good: Files = {}
    spare: Files = {}
    for shard in stage.finish("7"):
        name = f"staging/shards/{shard['info']['name']}"
        found = dict(read_samples(stage.store, name))
        assert list(found) == shard["keys"]
        (spare if shard["info"]["split"] == SPARE else good).update(found)
        stage.store.delete(name)
    return results, good, spare


def write(folder: Path, name: str, frames: list[np.ndarray], level: float = 0.2) -> Made:
    """A video with noise as its sound; the noise."""
    drawn = np.random.default_rng(1).normal(0, level, len(frames) * SAMPLES_PER_FRAME)
    noise = np.clip(drawn, -1, 1).astype(np.float32)
    sound = folder / f"{name}.flac"
    write_flac(sound, noise, SAMPLE_RATE)
    path = folder / f"{name}.mp4"
    with VideoWriter(path, 320, 320, 25, audio=sound, preset="ultrafast") as writer:
        for frame in frames:
            writer.write(frame)
    return path, noise


def item(path: Path) -> SourceItem:
    return local_item(path, path.name, "somebody")


def reasons(result: FileResult) -> list[str]:
    return [row["reason"] for row in result["rows"]]


def heard(files: Files) -> np.ndarray:
    """Sound of the only clip."""
    (clip,) = files.values()
    return soundfile.read(io.BytesIO(clip["flac"]))[0]
