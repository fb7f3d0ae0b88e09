"""The clips of a dataset, by name: random access into its shards.

For sets that fit in memory, and for evaluation: members are found by their offsets in the tar
files and decoded when wanted. A larger set is streamed (`datasets.shards.stream`).
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.errors import UserError
from datasets.shards.clip_content import ClipContent
from datasets.shards.clip_index import Clip, ClipTable, read_table
from datasets.shards.index import FOLDER, read_index
from datasets.store.open import open_store

MEMORY_BYTES = 2 << 30
"""Bytes of decoded frames that a store keeps by default."""


class ClipStore:
    """Decoded clips of a dataset.

    Args:
        dataset: folder or URL with `index.json`.
        split: `train`, `test`, or None for both.
        resolution: side to which frames (and landmarks) are scaled; None keeps the stored size.
        memory_bytes: bytes of decoded frames kept in memory, at least one clip.

    Raises:
        UserError: there is no dataset, a shard is missing, or the split has no clips.
    """

    def __init__(
        self,
        dataset: Path | str,
        split: str | None = None,
        resolution: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.files = open_store(dataset)
        self.dataset = self.files.url
        self.index = read_index(dataset)
        self.digest: str = self.index["digest"]
        self.clips = read_table(self.files, self.index, split).sorted()
        if not self.clips:
            which = f"the {split} split of " if split else ""
            raise UserError(
                f"there is no clip in {which}{self.dataset}: see its ledger for the "
                "reasons of refusals, or add videos"
            )
        self.resolution: int = resolution or self.clips[0].resolution
        self.memory_bytes = memory_bytes
        self._kept: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._kept_bytes = 0

    @property
    def fits(self) -> bool:
        """Whether all decoded frames fit in the memory allowed for them."""
        return decoded_bytes(self.clips, self.resolution) <= self.memory_bytes

    def content(self, clip_id: str) -> ClipContent:
        """What a clip holds, read and decoded when asked for.

        A clip is decoded as a whole if it will stay in memory, otherwise as far as needed.

        Raises:
            KeyError: there is no such clip.
        """
        try:
            number = self.clips.find(clip_id)
        except KeyError:
            raise KeyError(f"no clip {clip_id} in {self.dataset}") from None
        clip = self.clips[number]
        kind = _KeptContent if self.fits else ClipContent
        content = kind(clip, lambda name: self._bytes(number, name), self.resolution, self.dataset)
        if isinstance(content, _KeptContent):
            content.store = self
        return content

    def _bytes(self, number: int, extension: str) -> bytes:
        place = self.clips.place(number, extension)
        name = f"{FOLDER}/{place.shard}"
        try:
            with self.files.open(name) as file:
                file.seek(place.offset)
                content = file.read(place.size)
        except OSError as error:
            raise UserError(
                f"the shard {self.dataset}/{name} cannot be read ({error}): refresh the dataset "
                "again"
            ) from error
        if len(content) < place.size:
            raise UserError(
                f"the shard {self.dataset}/{name} cannot be read (it is cut off): refresh the "
                "dataset again"
            )
        return content

    def frames(self, clip_id: str) -> NDArray[np.uint8]:
        """(t, R, R, 3) aligned face. The array is shared: do not write into it."""
        if clip_id not in self._kept:
            self._keep(clip_id, ClipContent.frames(self.content(clip_id)))
        self._kept.move_to_end(clip_id)
        return self._kept[clip_id]

    def _keep(self, clip_id: str, frames: NDArray[np.uint8]) -> None:
        frames.setflags(write=False)
        self._kept[clip_id] = frames
        self._kept_bytes += frames.nbytes
        while len(self._kept) > 1 and self._kept_bytes > self.memory_bytes:
            _, forgotten = self._kept.popitem(last=False)
            self._kept_bytes -= forgotten.nbytes

    def audio(self, clip_id: str) -> NDArray[np.float32]:
        """(t * 640,) at 16 kHz, corrected for the offset."""
        return self.content(clip_id).audio()

    def landmarks(self, clip_id: str) -> NDArray[np.float32]:
        """(t, 478, 2) in pixels of the aligned face at `resolution`."""
        return self.content(clip_id).landmarks()


class _KeptContent(ClipContent):
    """A clip whose frames the store keeps."""

    store: ClipStore

    def frames(
        self, wanted: NDArray[np.int64] | None = None, lower: bool = False
    ) -> NDArray[np.uint8]:
        frames = self.store.frames(self.clip.clip_id)
        if lower:
            frames = frames[:, self.side // 2 :]
        return frames if wanted is None else frames[wanted]


def decoded_bytes(clips: ClipTable, resolution: int) -> int:
    """Bytes of all frames of some clips, decoded at a resolution."""
    return int(clips.num_frames.sum(dtype=np.int64)) * resolution * resolution * 3


__all__ = ["Clip", "ClipStore", "decoded_bytes"]
