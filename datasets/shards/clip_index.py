"""The clips of a dataset as a table: one row per clip, which says where it is and how good.

Publication writes it as a Parquet file beside the shards, and the index names that file. So a
million clips open in seconds; a dataset of an earlier release has no such file, and the headers
of its shards are read instead.
"""

import hashlib
import io
import json
import tarfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

from datasets.errors import UserError
from datasets.shards.index import FOLDER, ClipsEntry, DatasetIndex
from datasets.shards.writer import WHOLE, Places, Shard, ShardEntry
from datasets.store.protocol import Store

MEMBERS = ("mp4", "flac", "npy")
"""Members of a sample that the table has the places of."""
SAMPLE = "sample"
"""Stands for all members of a clip with their headers."""
SCORES = (
    "face_px",
    "av_offset_frames",
    "sync_confidence",
    "sync_distance",
    "coverage",
    "sharpness",
    "yaw_deg",
    "brightness",
    "quality",
    "offset_uncertainty",
    "bad_share",
    "worst_second",
    "speech_share",
)
"""Columns of the ledger that come along, for choosing clips."""
NAMES = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
FACTS = pyarrow.schema(
    [
        ("clip_id", pyarrow.string()),
        ("shard", NAMES),
        ("split", NAMES),
        ("speaker", NAMES),
        ("path", pyarrow.string()),
        ("num_frames", pyarrow.int32()),
        ("resolution", pyarrow.int32()),
        *(
            (f"{name}_{part}", pyarrow.int64())
            for name in (*MEMBERS, SAMPLE)
            for part in ("offset", "size")
        ),
    ]
)
"""What every table has; the rows are in the order of the clips in the shards."""
SCHEMA = pyarrow.schema(
    [*FACTS, *((name, pyarrow.float32()) for name in SCORES), ("language", NAMES)]
)
"""The columns of the Parquet file."""
ROWS_AT_ONCE = 1 << 17
"""Rows of a row group, the unit in which the file is read."""


@dataclass(frozen=True)
class Clip:
    """One accepted clip."""

    clip_id: str
    speaker: str
    split: str
    num_frames: int
    path: str
    """The source video, relative to the input folder."""
    resolution: int
    """Side of the stored frames in pixels."""


@dataclass(frozen=True)
class Place:
    """Where a member of a sample is."""

    shard: str
    """File name below `shards/`."""
    offset: int
    size: int


class ClipTable(Sequence[Clip]):
    """Clips by number; each is made when asked for, so that a million of them fit in memory.

    Args:
        table: with the columns of `FACTS`.
        order: the row of each clip; None: all in the table's order.
    """

    def __init__(self, table: pyarrow.Table, order: NDArray[np.int64] | None = None) -> None:
        # Columns of names then have one list of names each. What is in pieces stays so: a copy of
        # everything would double the memory.
        self._table, self._order = table.unify_dictionaries(), order
        frames = self._table["num_frames"].to_numpy()
        self.num_frames: NDArray[np.int32] = frames if order is None else frames[order]
        self._long_enough: dict[int, NDArray[np.int64]] = {}

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> "ClipTable":
        """A table of clips that are in no shard."""
        columns: dict[str, list[Any]] = {name: [] for name in FACTS.names}
        for clip in clips:
            _add(columns, "", clip.split, clip.clip_id, {}, vars(clip))
        return cls(pyarrow.table(columns, schema=FACTS))

    @classmethod
    def read(cls, content: bytes) -> "ClipTable":
        """A table as `table_bytes` made it."""
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content), columns=FACTS.names)
        return cls(table.cast(FACTS))

    def __len__(self) -> int:
        return len(self.num_frames)

    @overload
    def __getitem__(self, number: int) -> Clip: ...
    @overload
    def __getitem__(self, number: slice) -> list[Clip]: ...
    def __getitem__(self, number: int | slice) -> Clip | list[Clip]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        found = range(len(self))[number]
        return Clip(**{each.name: self._value(each.name, found) for each in fields(Clip)})

    def __iter__(self) -> Iterator[Clip]:
        return (self[number] for number in range(len(self)))

    def _value(self, name: str, number: int) -> Any:
        row = number if self._order is None else int(self._order[number])
        return self._table[name][row].as_py()

    def long_enough(self, frames: int) -> NDArray[np.int64]:
        """Numbers of the clips with at least so many frames; found once for each length."""
        if frames not in self._long_enough:
            self._long_enough[frames] = np.flatnonzero(self.num_frames >= frames)
        return self._long_enough[frames]

    def scores(self, name: str) -> NDArray[np.float32]:
        """One of `SCORES` of every clip; NaN where it is not known."""
        if name not in self._table.column_names:
            return np.full(len(self), np.nan, np.float32)
        values = self._table[name].to_numpy().astype(np.float32)
        return values if self._order is None else values[self._order]

    def same_size_elsewhere(self) -> list[int]:
        """Numbers of the clips whose files have as many bytes as those of one in another split."""
        video, sound = (self._table[f"{name}_size"].fill_null(0).to_numpy() for name in MEMBERS[:2])
        sizes = (video << 30) + sound
        splits = np.array(self._table["split"].cast(pyarrow.string()).to_pylist(), object)
        if self._order is not None:
            sizes, splits = sizes[self._order], splits[self._order]
        each = [np.unique(sizes[splits == split]) for split in sorted(set(splits))]
        values, counts = np.unique(np.concatenate([sizes[:0], *each]), return_counts=True)
        found: list[int] = np.flatnonzero(np.isin(sizes, values[counts > 1])).tolist()
        return found

    def speakers(self) -> int:
        """How many different speakers there are."""
        speakers = self._table["speaker"]
        if self._order is not None:
            speakers = speakers.take(pyarrow.array(self._order))
        return len(pyarrow.compute.unique(speakers))

    def shards(self) -> list[tuple[str, int, int]]:
        """Name of each shard, and the numbers of its first clip and of the first after it.

        The clips must be in the order of the shards.
        """
        column = self._table["shard"]
        codes = np.concatenate([[0], *(part.indices.to_numpy() for part in column.chunks)])[1:]
        codes = codes if self._order is None else codes[self._order]
        ends = [*(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        names = column.chunk(0).dictionary.to_pylist() if len(codes) else []
        return [
            (names[int(codes[first])], first, last)
            for first, last in zip([0, *ends], ends, strict=False)
            if first < last
        ]

    def chosen(self, numbers: NDArray[np.int64]) -> "ClipTable":
        """Some of the clips, in the order of these numbers."""
        return ClipTable(self._table, numbers if self._order is None else self._order[numbers])

    def sorted(self) -> "ClipTable":
        """The clips in the order of their ids, in which `find` can search."""
        if self._order is not None:
            return ClipTable(self._table.take(pyarrow.array(self._order))).sorted()
        order = pyarrow.compute.sort_indices(self._table["clip_id"])
        return ClipTable(self._table, order.to_numpy().astype(np.int64))

    def find(self, clip_id: str) -> int:
        """The number of a clip in a sorted table.

        Raises:
            KeyError: there is none with this id.
        """
        found = bisect_left(
            range(len(self)), clip_id, key=lambda each: self._value("clip_id", each)
        )
        if found == len(self) or self._value("clip_id", found) != clip_id:
            raise KeyError(clip_id)
        return found

    def place(self, number: int, extension: str) -> Place:
        """Where a member of a clip is, or `SAMPLE`.

        Raises:
            KeyError: clips have no such member.
        """
        if extension not in (*MEMBERS, SAMPLE):
            raise KeyError(extension)
        offset = self._value(f"{extension}_offset", number)
        size = self._value(f"{extension}_size", number)
        if offset is None:
            raise KeyError(extension)
        return Place(self._value("shard", number), offset, size)


def table_bytes(
    shards: Sequence[Shard], rows: Mapping[str, Mapping[str, Any]], resolution: int
) -> bytes:
    """The table of a version as a Parquet file.

    Args:
        shards: its shards.
        rows: clip id -> its row of the ledger.
        resolution: side of the stored frames in pixels.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for shard in sorted(shards, key=lambda each: each.info.name):
        for key, places in zip(shard.keys, shard.places, strict=True):
            facts = {**rows[key], "resolution": resolution}
            _add(columns, shard.info.name, shard.info.split, key, places, facts)
            for name in (*SCORES, "language"):
                columns[name].append(rows[key][name])
    buffer = io.BytesIO()
    table = pyarrow.table(columns, schema=SCHEMA)
    pyarrow.parquet.write_table(table, buffer, row_group_size=ROWS_AT_ONCE, compression="zstd")
    return buffer.getvalue()


def _add(
    columns: dict[str, list[Any]],
    shard: str,
    split: str,
    key: str,
    places: Places,
    facts: Mapping[str, Any],
) -> None:
    """Append the facts of one clip."""
    one: dict[str, Any] = {"clip_id": key, "shard": shard, "split": split}
    one |= {name: facts[name] for name in ("speaker", "path", "num_frames", "resolution")}
    for ext, title in (*((ext, ext) for ext in MEMBERS), (WHOLE, SAMPLE)):
        offset, size = places.get(ext, (None, None))
        one |= {f"{title}_offset": offset, f"{title}_size": size}
    for name, value in one.items():
        columns[name].append(value)


def table_entry(content: bytes) -> ClipsEntry:
    """What an index says about a table's file."""
    sha256 = hashlib.sha256(content).hexdigest()
    return {"name": f"clips-{sha256[:8]}.parquet", "bytes": len(content), "sha256": sha256}


def read_table(store: Store, index: DatasetIndex, split: str | None = None) -> ClipTable:
    """The clips of a dataset, in the order of its shards.

    Args:
        store: the dataset's store.
        index: its index.
        split: `train`, `test`, or None for both.

    Raises:
        UserError: a file is missing or damaged.
    """
    if "clips" not in index:
        return ClipTable(_headers(store, index["shards"], split))
    name = f"{FOLDER}/{index['clips']['name']}"
    try:
        with store.open(name) as file:
            source = pyarrow.parquet.ParquetFile(file, read_dictionary=_named())
            parts = []
            for batch in source.iter_batches(ROWS_AT_ONCE, columns=FACTS.names, use_threads=False):
                wanted = batch.cast(FACTS)
                if split is not None:
                    wanted = wanted.filter(pyarrow.compute.equal(wanted["split"], split))
                parts.append(wanted)
            table = pyarrow.Table.from_batches(parts, FACTS)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f"the table of clips {store.url}/{name} cannot be read ({error}): refresh the dataset "
            "again"
        ) from error
    return ClipTable(table)


def _named() -> list[str]:
    """Columns of names that come again and again."""
    return [each.name for each in FACTS if each.type == NAMES]


def _headers(store: Store, shards: Sequence[ShardEntry], split: str | None) -> pyarrow.Table:
    """The same of a dataset without a table, from the headers of its shards."""
    columns: dict[str, list[Any]] = {name: [] for name in FACTS.names}
    for entry in shards:
        if split is not None and entry["split"] != split:
            continue
        name = f"{FOLDER}/{entry['name']}"
        key = ""
        try:
            for key, places, content in _samples(store, name):
                _add(columns, entry["name"], entry["split"], key, places, json.loads(content))
        except KeyError as error:
            raise UserError(
                f"the shard {store.url}/{name} cannot be read (its clip {key} does not have a "
                f"{error.args[0]}): refresh the dataset again"
            ) from error
        except (OSError, tarfile.TarError, ValueError) as error:
            raise UserError(
                f"the shard {store.url}/{name} cannot be read ({error}): refresh the dataset again"
            ) from error
    return pyarrow.table(columns, schema=FACTS)


def _samples(store: Store, name: str) -> Iterator[tuple[str, Places, bytes]]:
    """Key, places and json of every sample of a shard that has a json."""
    key, facts, places = "", b"", dict[str, tuple[int, int]]()
    with store.open(name) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            found, _, extension = member.name.partition(".")
            if found != key:
                if facts:
                    yield key, places, facts
                key, facts, places = found, b"", {}
            if extension == "json":
                content = tar.extractfile(member)
                facts = content.read() if content else b""
            places[extension] = (member.offset_data, member.size)
            begin = places.get(WHOLE, (member.offset, 0))[0]
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            places[WHOLE] = (begin, end - begin)
    if facts:
        yield key, places, facts
