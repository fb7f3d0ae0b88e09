"""The ingestion stage: from video files to the shards of a group of files.

Each file is read once (`tasks.ingest.file_run`). Its clips go straight into the group's shards:
those that the thresholds accept into the shards of their split, those that only thresholds
refuse into spare ones, from which other thresholds may take them later. So every clip is
written once, and a group that is not finished leaves nothing.
"""

import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import cv2
import psutil

from datasets.errors import StoreError
from datasets.faces.landmarks import FaceMeshDetector
from datasets.media import FPS, probe
from datasets.shards.records import ClipRow, LedgerRow, Verdict
from datasets.shards.writer import MAX_BYTES, ShardRecord, ShardWriter
from datasets.sources.items import SourceItem
from datasets.store.local import LocalStore
from datasets.store.protocol import Store
from models.files.errors import is_disk_full
from tasks.ingest.config import IngestConfig, Tools
from tasks.ingest.file_run import FileRun, Members
from tasks.ingest.layout import SHARDS, SPARE
from tasks.ingest.verdicts import Thresholds, apply_thresholds
from tasks.runtime.stage import Resources, Stage
from tasks.sync.scorers import get_scorer
from tasks.sync.signals import NO_SCORER

SCRATCH = Path(tempfile.gettempdir()) / f"latentsync-flows-{os.getuid()}"
"""Folder in which shards for object storage grow, with a folder for each worker."""
SECONDS_PER_SECOND = 5.0
"""Seconds allowed per second of video beyond the deadline: about ten times what it takes."""
QUICK_BYTES = 8 << 20
"""Bytes; smaller files are finished within any sensible deadline."""
LEAST_RATE = 1000.0
"""Bytes per second of the leanest video: a header that claims a greater length is not believed."""


@dataclass(frozen=True)
class IngestWork:
    """A source ready to be ingested."""

    item: SourceItem
    path: Path | None
    """Its file; None if the source itself says that there is nothing to fetch."""
    split: str
    """The split of its accepted clips."""
    sound: Path | None = None
    """The file with its audio, if that comes separately."""
    whole: bool = False
    """Whether a file that ends earlier than its container says is refused."""


class FileResult(TypedDict):
    """The result of one file."""

    digest: str
    """sha256 of the file; empty if no file was read."""
    content: str
    """Equal for sources with the same content; empty if no file was read."""
    recording: str
    """Text of the recording's print; empty if there is none."""
    seconds: float
    """Seconds that it took."""
    video_seconds: float
    cuts_s: list[float]
    """Start of every shot but the first."""
    note: str
    """A note on a file that was used although something is wrong with it."""
    heard: str
    """Which of several streams of sound was used; empty if there is only one."""
    rows: list[LedgerRow]


@dataclass
class IngestStage(Stage):
    """Turns sources into shards below `prefix` of a store, and rows for the ledger.

    `process` takes an `IngestWork`. `finish` returns the group's shards.
    """

    config: IngestConfig
    thresholds: Thresholds
    store: Store
    prefix: str
    max_shard_bytes: int = MAX_BYTES
    resources: Resources = field(default_factory=lambda: Resources(cpus=1.0))
    device: str = "cpu"
    """Device for the scorers' networks."""
    _tools: Tools | None = field(default=None, init=False, repr=False)
    _shards: ShardWriter | None = field(default=None, init=False, repr=False)

    def setup(self) -> None:
        """Load face models and scorers, each on one core: there are as many workers as cores."""
        cv2.setNumThreads(1)
        for left in SCRATCH.glob("[0-9]*"):
            if not psutil.pid_exists(int(left.name)):
                shutil.rmtree(left, ignore_errors=True)
        quality = None
        if self.config.quality:
            from tasks.ingest.image_quality import WEIGHTS, get_quality_scorer

            # Given by name, so that a worker without the weights reports it instead of leaving out
            # scores.
            quality = get_quality_scorer(WEIGHTS, self.device)
        voice = None
        if self.config.speech:
            from tasks.sync.voice import voice_of_frames

            voice = voice_of_frames
        self._tools = Tools(
            FaceMeshDetector(self.config.max_faces),
            get_scorer(self.config.scorer, self.config.scorer_weights, self.device),
            quality,
            voice,
            lips=self.config.scorer != NO_SCORER,
        )

    def may_be_long(self, item: IngestWork) -> bool:
        """Whether the file is too large to be finished soon in any case."""
        try:
            return item.path is not None and item.path.stat().st_size > QUICK_BYTES
        except OSError:
            return False

    def extra_seconds(self, item: IngestWork) -> float:
        """Seconds by the length of the video, or of its requested parts."""
        assert item.path is not None
        length = min(probe(item.path).duration_s, item.path.stat().st_size / LEAST_RATE)
        parts = [part for part in item.item.parts if not part.reason]
        wanted = sum(min(part.end_s, length) - min(part.start_s, length) for part in parts)
        return SECONDS_PER_SECOND * (wanted if item.item.parts else length)

    def begin(self, group: str) -> None:
        """Start the shards of a group, which are named by its number."""
        if self._shards is not None:
            self._shards.discard()
        self._shards = ShardWriter(self._scratch(), int(group), self.max_shard_bytes)

    def _scratch(self) -> Path:
        """The folder in which shards grow: their final one, if that is on a disk."""
        if isinstance(self.store, LocalStore):
            return self.store.folder / self.prefix / "unfinished"
        return SCRATCH / str(os.getpid())

    def process(self, item: IngestWork) -> FileResult:
        """Ingest one file; bad input gives rows with a reason, never an exception."""
        began = time.monotonic()
        assert self._tools is not None
        assert self._shards is not None
        mark = self._shards.mark()
        run = FileRun(
            item.item,
            item.path,
            item.sound,
            self.config,
            self._tools,
            lambda row, members: self._keep(row, members, item.split),
            item.whole,
        )
        try:
            run.ingest()
        except BaseException:
            self._shards.rollback(mark)
            raise
        if run.failed:
            self._shards.rollback(mark)
        return {
            "digest": run.digest,
            "content": run.content,
            "recording": run.recording,
            "seconds": time.monotonic() - began,
            "video_seconds": run.frames / FPS,
            "cuts_s": run.cuts_s,
            "note": run.note,
            "heard": run.heard,
            "rows": [row.as_row() for row in run.rows],
        }

    def _keep(self, row: ClipRow, members: Members, split: str) -> None:
        assert self._shards is not None
        good = (
            apply_thresholds([row.as_row()], self.thresholds)[0]["verdict"]
            == Verdict.ACCEPTED.value
        )
        try:
            self._shards.add(split if good else SPARE, row.clip_id, members)
        except OSError as error:
            if is_disk_full(error):
                raise
            # This is not the source's fault, and the next source would fare no better.
            raise StoreError(
                f"clips cannot be written to {self._shards.scratch}: {error.strerror or error}"
            ) from error

    def finish(self, group: str) -> list[ShardRecord]:
        """Complete the group's shards and put them into the store."""
        assert self._shards is not None
        made = self._shards.finish(self.store, f"{self.prefix}/{SHARDS}")
        self._shards = None
        return [shard.as_record() for shard in made]
