"""Batches from a dataset that is too large for memory: shards are read one after the other by
processes of their own, and a run that resumes gets the batches that it would have got.

What a batch holds is a function of (seed, ranks, workers, step, rank). With other numbers of ranks
or workers a run goes on with the shards that the epoch has not finished, and says so.
"""

import heapq
import json
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datasets.errors import UserError
from datasets.shards.clip_content import ClipContent
from datasets.shards.clip_index import SAMPLE, ClipTable, read_table
from datasets.shards.index import read_index
from datasets.shards.stream import Stretch, stream_samples
from datasets.store.atomic import write_atomic
from datasets.store.open import open_store
from tasks.train.order import CLIP, Course, Mixing, Piece

READING = "reading.json"
"""By how many ranks and workers a stage was read, from which step on."""
Batches = Generator[Any, None, None]
PREPARED = 2
"""Batches that each worker prepares ahead."""


class Cutter(Protocol):
    """What a stage cuts from clips. It travels to the processes that read."""

    @property
    def batch_size(self) -> int:
        """Windows of a batch."""

    @property
    def windows_per_clip(self) -> int:
        """Windows that are cut from a clip in an epoch."""

    @property
    def members(self) -> tuple[str, ...]:
        """Members of a clip that are needed."""

    @property
    def reach(self) -> int:
        """Frames that a clip must have."""

    @property
    def window_bytes(self) -> int:
        """Bytes of a window."""

    def cut(self, content: ClipContent, place: tuple[int, ...], keep: Sequence[int]) -> list[Any]:
        """Some windows of a clip.

        Args:
            content: the clip.
            place: seed, epoch and number of the clip: all that they depend on besides.
            keep: which of the clip's windows.
        """

    def batch(self, windows: Sequence[Any]) -> Any:
        """Windows together."""


@dataclass(frozen=True)
class Source:
    """The clips that a stage streams.

    Args:
        dataset: folder or URL.
        split: train or test.
        resolution: side to which frames are scaled.
    """

    dataset: str
    split: str
    resolution: int


@dataclass(frozen=True)
class Reading:
    """By whom a stage is read from a step on."""

    step: int
    ranks: int
    workers: int

    @property
    def lanes(self) -> int:
        return self.ranks * self.workers

    def lane(self, rank: int, step: int) -> tuple[int, int]:
        """Which lane makes a rank's batch of a step, and how many it makes before that one."""
        turn, worker = divmod(step - self.step, self.workers)
        return rank * self.workers + worker, turn

    def made(self, lane: int, step: int) -> int:
        """Batches that a lane has made when a step begins."""
        return max(0, -(-(step - self.step - lane % self.workers) // self.workers))


def next_readings(
    path: Path, step: int, ranks: int, workers: int, default: int = 1
) -> tuple[list[Reading], Reading | None]:
    """Who has read a stage until a step, and who goes on.

    Args:
        path: the stage's `READING`.
        step: the step at which it goes on; 0 begins anew.
        ranks: processes that train.
        workers: processes that read for each of them; 0: as many as before.
        default: as many if there is no before.

    Returns:
        All readings, the last of which begins now or goes on, and the one before it if that
        had other numbers.

    Raises:
        UserError: the file is damaged.
    """
    before: list[Reading] = []
    if step and path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            before = [Reading(**each) for each in stored if each["step"] <= step]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path} is damaged ({error}): delete it, then the stage goes on, but begins its "
                "first epoch again"
            ) from error
    last = before[-1] if before else None
    if last and last.ranks == ranks and workers in (0, last.workers):
        return before, None
    now = Reading(step, ranks, workers or (last.workers if last else default))
    return [*(each for each in before if each.step < step), now], last


def describe(now: Reading, before: Reading | None) -> str:
    """How a stage is read, in one line."""
    many = "1 process" if now.lanes == 1 else f"{now.lanes} processes"
    if before is None:
        return f"shards are streamed by {many}"
    return (
        f"shards are streamed by {many} ({now.ranks} x {now.workers}) instead of "
        f"{before.lanes} ({before.ranks} x {before.workers}): going on with the shards that the "
        "epoch has not finished, in another order than without the change"
    )


def write_readings(path: Path, readings: Sequence[Reading]) -> None:
    """Keep who reads a stage."""
    write_atomic(path, json.dumps([vars(each) for each in readings], indent=1))


@dataclass
class Shards:
    """The clips of a source that are long enough, shard by shard."""

    table: ClipTable
    """In the order of the shards."""
    bounds: list[tuple[str, int, int]]
    """Name of each shard, and its first and last clip in the table."""

    @classmethod
    def open(cls, source: Source, frames: int) -> "Shards":
        """Open the table of clips.

        Raises:
            UserError: no clip is long enough.
        """
        everything = read_table(
            open_store(source.dataset), read_index(source.dataset), source.split
        )
        numbers = everything.long_enough(frames)
        if not len(numbers):
            raise UserError(
                f"no clip of the {source.split} split of {source.dataset} is long enough: training "
                f"needs {frames} frames, the longest of {len(everything)} clips has "
                f"{int(everything.num_frames.max(initial=0))}"
            )
        table = everything.chosen(numbers)
        return cls(table, table.shards())

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(last - first for _, first, last in self.bounds)

    def stretch(self, piece: Piece) -> tuple[Stretch, range]:
        """Where the clips of a piece are, and their numbers in the table."""
        name, first, _ = self.bounds[piece.shard]
        numbers = range(first + piece.first, first + piece.last)
        begin = self.table.place(numbers[0], SAMPLE)
        end = self.table.place(numbers[-1], SAMPLE)
        return Stretch(name, begin.offset, end.offset + end.size), numbers


@dataclass
class Stream(IterableDataset[Any]):
    """The batches of one rank.

    Args:
        source: the clips.
        cutter: what is cut from them.
        seed: of everything that is drawn.
        readings: from `next_readings`.
        rank: which of the processes that train.
        step: the step of the first batch.
        mixed_bytes: bytes of windows that wait in each worker, about.
    """

    source: Source
    cutter: Cutter
    seed: int
    readings: list[Reading]
    rank: int
    step: int
    mixed_bytes: int
    _shards: Shards | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_shards": None}

    @property
    def shards(self) -> Shards:
        """The clips; every process opens them itself."""
        if self._shards is None:
            self._shards = Shards.open(self.source, self.cutter.reach)
        return self._shards

    @property
    def reach(self) -> int:
        """Places by which a window can be late; half as many wait on average."""
        clips = 2 * self.mixed_bytes // (self.cutter.window_bytes * self.cutter.windows_per_clip)
        return int(clips) * self.cutter.windows_per_clip

    def course(self) -> Course:
        """The course of the last reading, which begins where the one before it ended."""
        course = Course(self.shards.sizes, self.seed, self.readings[0].lanes)
        for now, after in zip(self.readings, self.readings[1:], strict=False):
            windows = [
                now.made(lane, after.step) * self.cutter.batch_size for lane in range(now.lanes)
            ]
            passed = [
                max(0, count - self.reach) // self.cutter.windows_per_clip for count in windows
            ]
            epoch, left = course.rest(passed)
            course = replace(course, lanes=after.lanes, epoch=epoch, left=left)
        return course

    def __iter__(self) -> Iterator[Any]:
        """The batches of one worker: every `workers`-th of the rank's, beginning with its own."""
        info = get_worker_info()
        lane, made = self.readings[-1].lane(self.rank, self.step + (info.id if info else 0))
        try:
            yield from self.batches(lane, made)
        except UserError as error:
            # torch would wrap it in the text of a traceback.
            yield Refused(str(error))

    def batches(self, lane: int, made: int) -> Iterator[Any]:
        """The batches of a lane after the first ones.

        Args:
            lane: which.
            made: how many are left out; what only they need is not decoded.
        """
        size, waiting = self.cutter.batch_size, list[Any]()
        for window in self._windows(lane, made * size):
            waiting.append(window)
            if len(waiting) == size:
                yield self.cutter.batch(waiting)
                waiting = []

    def _windows(self, lane: int, count: int) -> Iterator[Any]:
        """The windows of a lane after the first `count`."""
        each = self.cutter.windows_per_clip
        mixing = Mixing(self.seed, lane, self.reach)
        begin, gone = mixing.gone(count)
        heap: list[tuple[float, int, Any]] = []
        window = begin // each * each
        for content, place in self._clips(lane, begin // each):
            numbers = [window + at for at in range(each)]
            keep = [
                at for at, number in enumerate(numbers) if number >= begin and number not in gone
            ]
            if keep:
                for at, cut in zip(keep, self.cutter.cut(content, place, keep), strict=True):
                    heapq.heappush(heap, (mixing.key(numbers[at]), numbers[at], cut))
            window += each
            # Later windows have larger keys than their numbers.
            while heap and heap[0][0] < window:
                yield heapq.heappop(heap)[2]

    def _clips(self, lane: int, clip: int) -> Iterator[tuple[ClipContent, tuple[int, ...]]]:
        """The clips of a lane from the one of this number on, each with its place."""
        store = open_store(self.source.dataset)
        order = deque[tuple[int, int]]()

        def stretches() -> Iterator[Stretch]:
            for piece in self.course().pieces(lane, clip):
                if order:
                    raise UserError(
                        f"the clip {self.shards.table[order[0][1]].clip_id} is not where the table "
                        f"of clips of {self.source.dataset} says: refresh the dataset again"
                    )
                stretch, numbers = self.shards.stretch(piece)
                order.extend((piece.epoch, number) for number in numbers)
                yield stretch

        for key, members in stream_samples(store, stretches(), self.cutter.members):
            epoch, number = order[0]
            about = self.shards.table[number]
            if key != about.clip_id:
                # It is too short.
                continue
            order.popleft()
            content = ClipContent(
                about, members.__getitem__, self.source.resolution, self.source.dataset
            )
            yield content, (self.seed, CLIP, epoch, number)


@dataclass(frozen=True)
class Refused:
    """Takes the place of a batch: why there is none."""

    why: str


def rank_batches(stream: Stream, pin: bool = False) -> Batches:
    """The batches of a rank from its step on, made by as many processes as its reading says.

    Args:
        stream: the rank's stream.
        pin: put them into memory that a GPU reads directly.

    Raises:
        UserError: a shard or clip cannot be read.
    """
    loader: DataLoader[Any] = DataLoader(
        stream,
        batch_size=None,
        num_workers=stream.readings[-1].workers,
        prefetch_factor=PREPARED,
        # A process that uses CUDA or Ray cannot be forked.
        multiprocessing_context=torch.multiprocessing.get_context("spawn"),
        pin_memory=pin,
    )
    for batch in loader:
        if isinstance(batch, Refused):
            raise UserError(batch.why)
        yield batch
