"""A dataset in object storage, as a local folder.

Training reads clips repeatedly in any order, so shards are fetched once. The copy of
each version is in a folder of its own and gets its index last: a folder with an index is
complete. What an interrupted run has finished is not fetched again, and neither is a shard
that the copy of another version holds.
"""

import hashlib
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from datasets.errors import UserError
from datasets.progress import Progress
from datasets.shards.index import (
    FOLDER,
    INDEX,
    VERSION,
    ClipsEntry,
    DatasetIndex,
    read_index,
)
from datasets.shards.writer import ShardEntry
from datasets.store.atomic import content_digest, link_atomic, replacing, write_atomic
from datasets.store.local import LocalStore
from datasets.store.lock import file_lock
from datasets.store.open import open_store
from datasets.store.protocol import Store

BLOCK = 8 << 20
"""Bytes fetched and written at once."""
SHARDS_AT_ONCE = 4
DIGEST = re.compile("[0-9a-f]{64}")
SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.(tar|parquet)")


def local_dataset(
    url: str | Path, cache: Path, progress: Progress | None = None, store: Store | None = None
) -> Path:
    """The folder of a dataset: itself if it is local, otherwise its copy, made if needed.

    Args:
        url: a folder, or an `s3://` or `gs://` URL of one.
        cache: folder for copies, in folders named by the dataset's digest; they are kept.
        progress: called with the bytes present, from any thread, one call at a time.
        store: what to read through, instead of what `url` gives.

    Raises:
        UserError: there is no dataset, it is not one of ours, or a shard is missing or differs
            from the index.
        OSError: the service failed in every attempt, or the disk is full.
    """
    store = store or open_store(url)
    if isinstance(store, LocalStore):
        return store.folder
    text, index = _index(store)
    folder = cache / index["digest"]
    folder.mkdir(parents=True, exist_ok=True)
    # Other processes wait, and then find it complete.
    with file_lock(folder / ".lock"):
        if not (folder / INDEX).is_file():
            _Copy(store, folder, _files(index), progress).run()
            write_atomic(folder / INDEX, text)
        read_index(folder)
    return folder


def _index(store: Store) -> tuple[bytes, DatasetIndex]:
    """The index as bytes and parsed, after checking that its names are safe as file names."""
    try:
        text = store.read(INDEX)
    except FileNotFoundError:
        raise UserError(
            f"there is no dataset in {store.url}: {INDEX} is missing; make one with "
            "python -m flows.refresh_dataset"
        ) from None
    try:
        index = json.loads(text)
        sound = (
            index["version"] == VERSION
            and DIGEST.fullmatch(index["digest"])
            and all(
                SHARD.fullmatch(shard["name"]) and DIGEST.fullmatch(shard["sha256"])
                for shard in _files(index)
            )
        )
    except (ValueError, TypeError, KeyError):
        sound = False
    if not sound:
        raise UserError(
            f"{store.url}/{INDEX} is not a dataset index of version {VERSION}: refresh the dataset"
        )
    return text, index


def _files(index: DatasetIndex) -> list[ShardEntry | ClipsEntry]:
    """Shards and table of a version."""
    return [*index["shards"], *([index["clips"]] if "clips" in index else [])]


class _Copy:
    """Fetches one version's files."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        shards: list[ShardEntry | ClipsEntry],
        progress: Progress | None,
    ) -> None:
        self.store = store
        self.folder = folder
        self.shards = shards
        self.progress = progress
        self.all = sum(shard["bytes"] for shard in shards)
        self.here = 0
        self.lock = threading.Lock()
        self.stopped = threading.Event()

    def run(self) -> None:
        self._advance(0)
        with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
            futures = [pool.submit(self._shard, shard) for shard in self.shards]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                # After an interruption, only finished shards are worth waiting for.
                self.stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _advance(self, count: int) -> None:
        with self.lock:
            self.here += count
            if self.progress:
                self.progress(self.here, self.all)

    def _shard(self, shard: ShardEntry | ClipsEntry) -> None:
        target = self.folder / FOLDER / shard["name"]
        if target.is_file() and target.stat().st_size == shard["bytes"]:
            self._advance(shard["bytes"])
        elif not self._from_another_version(shard, target):
            self._fetch(shard, target)

    def _from_another_version(self, shard: ShardEntry | ClipsEntry, target: Path) -> bool:
        for other in sorted(self.folder.parent.glob(f"*/{FOLDER}/{shard['name']}")):
            if content_digest(other) == shard["sha256"]:
                link_atomic(other, target)
                self._advance(shard["bytes"])
                return True
        return False

    def _fetch(self, shard: ShardEntry | ClipsEntry, target: Path) -> None:
        name = f"{FOLDER}/{shard['name']}"
        digest = hashlib.sha256()
        try:
            with self.store.open(name) as source, replacing(target) as file:
                while block := source.read(BLOCK):
                    if self.stopped.is_set():
                        raise InterruptedError(f"{name} was not fetched to its end")
                    digest.update(block)
                    file.write(block)
                    self._advance(len(block))
                if digest.hexdigest() != shard["sha256"]:
                    raise UserError(
                        f"{self.store.url}/{name} differs from the index: the dataset is damaged, "
                        "refresh it or copy it again"
                    )
        except FileNotFoundError:
            raise UserError(
                f"{self.store.url}/{name} is missing: if the dataset was refreshed just now, start "
                "again; otherwise refresh it"
            ) from None
