"""The order in which training reads clips, by arithmetic alone: any position is found again.

All processes that read, of all ranks, are lanes. In every epoch the shards are shuffled and laid
end to end, and each lane reads a stretch of that with as many clips as any other, give or take
one. So every clip is read once in every epoch, shard after shard, and no rank runs out of batches.

Several windows come from a clip when it is decoded. They are mixed with those of later clips:
window i of a lane goes out by its key, which is i plus a random number below the reach. Nothing of
this depends on what is in the clips, so a lane goes on from any batch without decoding what came
before.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.train.windows import rng_for

SHARDS, MIXING, CLIP = 1, 2, 3
"""First places of random numbers, so that no two purposes share any."""
BLOCK = 1024
"""Keys of windows drawn at once."""


@dataclass(frozen=True)
class Piece:
    """Clips of a shard that follow each other."""

    shard: int
    first: int
    """Number of the first clip in its shard."""
    last: int
    """Number after the last one."""
    epoch: int

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True)
class Course:
    """Which lane reads which clips, epoch after epoch.

    Args:
        sizes: number of clips of each shard.
        seed: of the shuffling.
        lanes: how many read at once.
        epoch: the first epoch.
        left: the shards that are read in the first epoch; None: all.
    """

    sizes: tuple[int, ...]
    seed: int
    lanes: int
    epoch: int = 0
    left: tuple[int, ...] | None = None

    def shards(self, epoch: int) -> NDArray[np.int64]:
        """The shards of an epoch in the order in which they are laid end to end."""
        order = rng_for(self.seed, SHARDS, epoch).permutation(len(self.sizes))
        if epoch == self.epoch and self.left is not None:
            order = order[np.isin(order, self.left)]
        return order

    def total(self, epoch: int) -> int:
        """Clips of an epoch."""
        if epoch == self.epoch and self.left is not None:
            return sum(self.sizes[shard] for shard in self.left)
        return sum(self.sizes)

    def stretch(self, epoch: int, lane: int) -> tuple[int, int]:
        """First clip of a lane in an epoch's order, and the first after its last one."""
        # Taking turns, so that no lane has the shorter stretches for good.
        place, total = (lane + epoch) % self.lanes, self.total(epoch)
        return place * total // self.lanes, (place + 1) * total // self.lanes

    def locate(self, lane: int, clip: int) -> tuple[int, int]:
        """The epoch in which a lane reads its clip of this number, and how many before it there."""
        first, last = self.stretch(self.epoch, lane)
        if clip < last - first:
            return self.epoch, clip
        clip -= last - first
        # In as many epochs as there are lanes, each lane has every place once.
        epoch = self.epoch + 1 + clip // sum(self.sizes) * self.lanes
        clip %= sum(self.sizes)
        while True:
            first, last = self.stretch(epoch, lane)
            if clip < last - first:
                return epoch, clip
            clip -= last - first
            epoch += 1

    def pieces(self, lane: int, clip: int) -> Iterator[Piece]:
        """What a lane reads from its clip of this number on; it never ends."""
        epoch, skipped = self.locate(lane, clip)
        while True:
            first, last = self.stretch(epoch, lane)
            yield from self._between(epoch, first + skipped, last)
            epoch, skipped = epoch + 1, 0

    def _between(self, epoch: int, first: int, last: int) -> Iterator[Piece]:
        order = self.shards(epoch)
        ends = np.cumsum([self.sizes[shard] for shard in order])
        for place in range(int(np.searchsorted(ends, first, side="right")), len(order)):
            shard = int(order[place])
            begin = int(ends[place]) - self.sizes[shard]
            if begin >= last:
                return
            yield Piece(shard, max(first - begin, 0), min(last - begin, self.sizes[shard]), epoch)

    def rest(self, passed: Sequence[int]) -> tuple[int, tuple[int, ...]]:
        """The epoch that is not finished and its shards that are not read to their ends.

        Args:
            passed: number of clips that each lane has read.
        """
        places = [self.locate(lane, clip) for lane, clip in enumerate(passed)]
        epoch = min(place[0] for place in places)
        left: set[int] = set()
        for lane, (where, skipped) in enumerate(places):
            if where == epoch:
                first, last = self.stretch(epoch, lane)
                left |= {piece.shard for piece in self._between(epoch, first + skipped, last)}
        return epoch, tuple(sorted(left))


@dataclass(frozen=True)
class Mixing:
    """The order in which the windows of one lane go out.

    Args:
        seed: of the keys.
        lane: the lane.
        reach: how many places a window can be late; a multiple of the windows of a clip. About half
            as many wait at any time.
    """

    seed: int
    lane: int
    reach: int

    def key(self, window: int) -> float:
        """What windows go out by."""
        if not self.reach:
            return float(window)
        late = _uniform(self.seed, self.lane, window // BLOCK)[window % BLOCK]
        return window + self.reach * float(late)

    def gone(self, count: int) -> tuple[int, set[int]]:
        """After `count` windows went out: the first that may not have, and those after it that
        have."""
        first = max(0, count - self.reach)
        # One that comes up to `reach` places later may have gone out before it.
        keys = ((self.key(window), window) for window in range(first, count + self.reach + 1))
        return first, {window for _, window in heapq.nsmallest(count - first, keys)}


@lru_cache(maxsize=64)
def _uniform(seed: int, lane: int, block: int) -> NDArray[np.float64]:
    return rng_for(seed, MIXING, lane, block).random(BLOCK)
