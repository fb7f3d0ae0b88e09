"""What a stage's train function gets: its place in the run, its data, its worker."""

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from datasets.shards.clips import ClipStore
from datasets.shards.index import read_index
from models.files.errors import ModelFileError
from tasks.recipes.config import Recipe, StageConfig
from tasks.train.objective import Rank, Reporter, StageRun
from tasks.train.stream import (
    READING,
    Batches,
    Cutter,
    Source,
    Stream,
    describe,
    next_readings,
    rank_batches,
    write_readings,
)

MOST_WORKERS = 16
"""Most processes that read for one rank, unless a recipe asks for more."""
DONE = "done.json"
"""A finished stage: digest, what was measured, seconds."""


class StageResult(TypedDict):
    """The content of a finished stage's file."""

    digest: str
    """Digest of everything that it depends on."""
    metrics: dict[str, float]
    seconds: float


def stage_metrics(output: Path, stage: str) -> dict[str, float]:
    """Read what a finished stage of a run measured.

    Raises:
        ModelFileError: the stage is not finished.
    """
    try:
        done = json.loads((output / stage / DONE).read_text(encoding="utf-8"))
        metrics: dict[str, float] = done["metrics"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"the stage {stage} in {output} is not finished: train it first"
        ) from error
    return metrics


@dataclass
class Stores:
    """The dataset's clips, opened once per split and resolution, so decoded once."""

    dataset: Path | str
    opened: dict[tuple[str, int], ClipStore] = field(default_factory=dict)

    def _open(self, split: str, resolution: int) -> ClipStore:
        key = (split, resolution)
        if key not in self.opened:
            self.opened[key] = ClipStore(self.dataset, split=split, resolution=resolution)
        return self.opened[key]

    def train(self, resolution: int) -> ClipStore:
        """Clips to train on.

        Raises:
            UserError: the dataset has no training clips.
        """
        return self._open("train", resolution)

    def held_out(self, resolution: int) -> tuple[ClipStore, int]:
        """Clips of the test split and how many speakers they show.

        A dataset of one speaker has no test split: the result is then the training clips and 0, and
        every number measured on them must say so.
        """
        if not self._has_test():
            return self.train(resolution), 0
        store = self._open("test", resolution)
        return store, store.clips.speakers()

    def _has_test(self) -> bool:
        return read_index(self.dataset)["counts"].get("test", 0) > 0


@dataclass(frozen=True)
class StageContext:
    """One stage of one run, as one worker sees it."""

    name: str
    """One of `recipes.STAGES`."""
    output: Path
    """The run's folder; the stage's own is `folder`."""
    digest: str
    """Digest of everything that the stage's result depends on."""
    recipe: Recipe
    """What is trained and how."""
    stores: Stores
    """The dataset."""
    worker: Rank
    """This process."""
    reporter: Reporter
    """Takes lines of progress."""
    goes_on_from: tuple[str, ...] = ()
    """Digests of other trainings whose checkpoints this one may go on from."""
    must_pause: Callable[[], bool] | None = None
    """Whether to end early, with a checkpoint."""

    def stream(
        self, cutter: Cutter, config: StageConfig, resolution: int
    ) -> Callable[[int, int], Batches] | None:
        """What gives the batches from a step on of one share, if the stage streams them.

        Args:
            cutter: what is cut from clips.
            config: the stage's settings.
            resolution: side to which frames are scaled.

        Returns:
            None if the clips are kept in memory instead.
        """
        if config.reader == "memory":
            return None
        if config.reader == "auto" and self.stores.train(resolution).fits:
            return None

        def batches(step: int, share: int) -> Batches:
            shares, path = self.worker.all_shares, self.folder / READING
            free = min(max((os.cpu_count() or 1) // shares - 1, 1), MOST_WORKERS)
            readings, before = next_readings(path, step, shares, config.reading_workers, free)
            if share == 0:
                write_readings(path, readings)
                self.reporter.progress(f"{self.name}: {describe(readings[-1], before)}")
            source = Source(str(self.stores.dataset), "train", resolution)
            mixed = config.mixed_mb << 20
            stream = Stream(source, cutter, self.seed, readings, share, step, mixed)
            return rank_batches(stream, pin=self.worker.device.type == "cuda")

        return batches

    @property
    def folder(self) -> Path:
        return self.output / self.name

    @property
    def seed(self) -> int:
        """A seed for each stage, derived from the recipe's."""
        return (self.recipe.seed << 32) | zlib.crc32(self.name.encode())

    @property
    def run(self) -> StageRun:
        """The stage as the loop sees it."""
        return StageRun(
            self.name,
            self.folder,
            self.digest,
            self.seed,
            self.worker,
            self.reporter,
            self.goes_on_from,
            self.must_pause,
        )
