"""Clips of a dataset one after the other, as webdataset reads them from a folder or a bucket."""

import io
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from datasets.errors import UserError
from datasets.shards.index import FOLDER
from datasets.store.protocol import Store

BLOCK = 1 << 20
"""Bytes read at once."""


@dataclass(frozen=True)
class Stretch:
    """A part of a shard that holds whole samples."""

    shard: str
    """File name below `shards/`."""
    begin: int
    end: int
    """Offsets, bytes."""


def stream_samples(
    store: Store, stretches: Iterable[Stretch], extensions: Collection[str]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, extension -> content) of every sample, in order.

    Args:
        store: the dataset's store.
        stretches: what to read; each is opened when its turn comes.
        extensions: members that are wanted.

    Raises:
        UserError: a shard is missing or damaged.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    def sources() -> Iterator[dict[str, Any]]:
        for stretch in stretches:
            reader = _Part(store, stretch)
            with io.BufferedReader(reader, BLOCK) as stream:
                yield {"url": f"{store.url}/{FOLDER}/{stretch.shard}", "stream": stream}

    def wanted(name: str) -> bool:
        return name.partition(".")[2] in extensions

    def whole(error: Exception) -> bool:
        raise error

    files = tar_file_expander(sources(), handler=whole, select_files=wanted)
    for sample in group_by_keys(files, handler=whole):
        yield (
            sample["__key__"],
            {name: content for name, content in sample.items() if not name.startswith("__")},
        )


class _Part(io.RawIOBase):
    """A part of a shard as a file that ends where the part does."""

    def __init__(self, store: Store, stretch: Stretch) -> None:
        self.store, self.stretch = store, stretch
        self.name = f"{FOLDER}/{stretch.shard}"
        self.left = stretch.end - stretch.begin
        try:
            self.file: BinaryIO = store.open(self.name)
            self.file.seek(stretch.begin)
        except OSError as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> UserError:
        return UserError(
            f"the shard {self.store.url}/{self.name} cannot be read ({why}): if the dataset was "
            "refreshed twice since this training began, start the training anew; otherwise refresh "
            "it"
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self.left]
        if not len(view):
            return 0
        try:
            content = self.file.read(len(view))
        except OSError as error:
            raise self._damaged(error) from error
        if not content:
            raise self._damaged("it is cut off")
        view[: len(content)] = content
        self.left -= len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()
