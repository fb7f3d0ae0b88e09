"""From judged rows and staged clips to a published dataset: shards, ledger, index.

The index is written last, and it is what makes a version: until then readers see the old
one. The same rows and clips give the same bytes in every file.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from datasets.errors import UserError
from datasets.manifest import config_digest, write_atomic
from datasets.media import FPS, SAMPLE_RATE
from datasets.records import COLUMNS, ClipRow, Verdict
from datasets.shards import FOLDER, INDEX, Sample, ShardInfo, read_index, write_index, write_shards
from datasets.splits import assign_splits

LEDGER = "ledger.parquet"
STAGING = "staging"
"""Folder of what is finished of a refresh; deleting it costs the work anew."""
RECEIPT = "refresh.json"
"""What the published files were made of; kept beside them, no part of the dataset."""
METADATA = (
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
PACK_VERSION = 1
"""Raised when the same rows and clips give other files."""

Row = Mapping[str, Any]
Files = Mapping[str, Path]


@dataclass(frozen=True)
class PackConfig:
    """What decides the dataset's content besides rows and clips."""

    resolution: int
    test_fraction: float = 0.2
    max_shard_bytes: int = 256 << 20


def accepted(rows: Sequence[Row]) -> list[Row]:
    """The rows whose clips belong in shards."""
    return [row for row in rows if row["verdict"] == Verdict.ACCEPTED.value]


def reasons(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows were refused for each reason, the most frequent first."""
    counts = Counter(row["reason"] for row in rows if row["verdict"] != Verdict.ACCEPTED.value)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def fingerprint(rows: Sequence[Row], config: PackConfig) -> str:
    """Digest of everything that the published files depend on."""
    return config_digest({"version": PACK_VERSION, "config": vars(config), "rows": list(rows)})


def published(output: Path, wanted: str) -> str | None:
    """The dataset's digest, where it is published already and of that fingerprint."""
    try:
        receipt = json.loads((output / RECEIPT).read_text(encoding="utf-8"))
        index = read_index(output)
        sizes = {LEDGER: receipt["ledger_bytes"]}
        sizes |= {f"{FOLDER}/{shard['name']}": shard["bytes"] for shard in index["shards"]}
        whole = all((output / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
    same = receipt.get("fingerprint") == wanted and receipt.get("digest") == index["digest"]
    return str(index["digest"]) if whole and same else None


def check_output(output: Path, source: Path | None) -> None:
    """Refuse an output folder in which something of the user's would be lost or mixed in.

    Raises:
        UserError: the folder holds other tar files or another index, is no folder, or lies
            inside the source's folder.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"the output {output} is a file: give a folder")
    if source is not None:
        inner, outer = output.resolve(), source.resolve()
        if outer == inner or outer in inner.parents:
            raise UserError(
                f"the output {output} lies inside the input {source}: choose a folder elsewhere"
            )
    if (output / INDEX).exists():
        read_index(output)
    elif not (output / STAGING).exists() and any((output / FOLDER).glob("*.tar")):
        raise UserError(
            f"{output / FOLDER} holds tar files that are not of a dataset made here: "
            "choose another output folder"
        )


def pack(rows: Sequence[Row], clips: Mapping[str, Files], output: Path, config: PackConfig) -> str:
    """Publish the dataset.

    Args:
        rows: all judged rows, in the ledger's order.
        clips: for every accepted clip id its files by suffix: mp4, flac, npy.
        output: the dataset's folder.
        config: resolution of the clips, and how they are split.

    Returns:
        the digest of the dataset.
    """
    good = accepted(rows)
    splits = assign_splits((row["speaker"] for row in good), config.test_fraction)
    shards: list[ShardInfo] = []
    for split in sorted(set(splits.values())):
        chosen = [row for row in good if splits[row["speaker"]] == split]
        samples = _samples(chosen, clips, split, config.resolution)
        folder = output / FOLDER
        shards += write_shards(samples, folder, split, max_bytes=config.max_shard_bytes)
    ledger = ledger_bytes(rows)
    write_atomic(output / LEDGER, ledger)
    meta = {"resolution": config.resolution, "fps": FPS, "sample_rate": SAMPLE_RATE}
    digest = write_index(output, shards, meta)
    receipt = {
        "fingerprint": fingerprint(rows, config),
        "digest": digest,
        "ledger_bytes": len(ledger),
    }
    write_atomic(output / RECEIPT, json.dumps(receipt, indent=1) + "\n")
    return digest


def _samples(
    rows: Sequence[Row], clips: Mapping[str, Files], split: str, resolution: int
) -> Iterator[Sample]:
    for row in rows:
        facts = {name: row[name] for name in METADATA} | {"split": split, "resolution": resolution}
        files = clips[row["clip_id"]]
        members: dict[str, bytes | Path] = {kind: files[kind] for kind in ("mp4", "flac", "npy")}
        members["json"] = json.dumps(facts, sort_keys=True).encode("ascii")
        yield row["clip_id"], members


def ledger_paths(output: Path) -> set[str]:
    """Paths of the files in the published ledger; empty when there is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(output / LEDGER, columns=["path"])
    except (OSError, pyarrow.ArrowInvalid):
        return set()
    return set(table["path"].to_pylist())


def ledger_bytes(rows: Sequence[Row]) -> bytes:
    """The ledger as a Parquet file, columns as `datasets.records.COLUMNS`."""
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(each.name, kinds[each.type]) for each in fields(ClipRow)])  # type: ignore[index]
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), buffer)
    return buffer.getvalue()
