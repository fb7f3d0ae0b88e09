"""The place of one fetched file in a cache folder: partial, then complete, held by one process.

watch-ID-0123456789abcdef.mp4     the file, which exists only once it is complete
watch-ID-0123456789abcdef.json    what is known about it; written last
watch-ID-0123456789abcdef.part    what has been fetched so far (for pages a folder)
"""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from filelock import Timeout

from datasets.errors import Reason, SourceError
from datasets.fetch.policy import Deadline
from datasets.store.atomic import content_digest, move_atomic, write_atomic
from datasets.store.lock import file_lock

POLL_S = 0.5


@dataclass(frozen=True)
class Fetched:
    """A whole file."""

    path: Path
    bytes: int
    sha256: str
    """sha256 of the file's bytes; empty for local files that were not fetched."""
    version: str = ""
    """The server's name for this content (ETag and the like); empty if it has none."""


class PartState(TypedDict, total=False):
    """What is known about a partial file; empty if nothing is."""

    version: str
    """The server's name for the content."""
    total: int | None
    """Number of bytes; None if the server does not say."""


class Slot:
    """One file's place.

    Args:
        folder: the cache.
        name: unique name of what is fetched, without suffix.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.record = folder / f"{name}.json"
        self.part = folder / f"{name}.part"
        self.state = folder / f"{name}.part.json"
        self._lock = folder / f"{name}.lock"

    @contextmanager
    def held(self, deadline: Deadline) -> Iterator[None]:
        """Keep other processes away from this file during the block.

        Raises:
            SourceError: TIMED_OUT if another process holds it until the deadline.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = file_lock(self._lock)
        while not lock.is_locked:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                deadline.check()
                deadline.clock.sleep(POLL_S)
        try:
            yield
        finally:
            lock.release()

    def kept(self) -> Fetched | None:
        """The file, if it has been fetched and is still complete."""
        known = self._load(self.record)
        try:
            path = self.folder / known["file"]
            if path.stat().st_size != known["bytes"]:
                return None
            return Fetched(path, known["bytes"], known["sha256"], known["version"])
        except (KeyError, TypeError, OSError):
            return None

    def publish(self, whole: Path, suffix: str, version: str, sha256: str = "") -> Fetched:
        """Put a complete file in its place for good; the rest of the attempt is removed."""
        done = Fetched(
            self.folder / f"{self.name}{suffix}",
            whole.stat().st_size,
            sha256 or content_digest(whole),
            version,
        )
        # Without a record the file counts as missing, whatever replaces it.
        self.record.unlink(missing_ok=True)
        move_atomic(whole, done.path)
        write_atomic(self.record, json.dumps(asdict(done) | {"path": "", "file": done.path.name}))
        self.forget_part()
        return done

    def lend(self, whole: Path, suffix: str, version: str) -> Fetched:
        """Put a file in its place that is cheaper to make again than to keep safe: nothing
        is recorded, so another run does not find it."""
        place = self.folder / f"{self.name}{suffix}"
        whole.replace(place)
        return Fetched(place, place.stat().st_size, content_digest(place), version)

    def discard(self, suffix: str = "") -> None:
        """Remove everything but the lock, which must be held. A lent file has `suffix`."""
        kept = self._load(self.record).get("file") or (suffix and f"{self.name}{suffix}")
        self.record.unlink(missing_ok=True)
        if kept:
            (self.folder / kept).unlink(missing_ok=True)
        self.forget_part()

    def leave(self) -> None:
        """Remove the lock itself, last, while it is held."""
        self._lock.unlink(missing_ok=True)

    def forget_part(self) -> None:
        """Let the next attempt start from scratch."""
        self.state.unlink(missing_ok=True)
        if self.part.is_dir():
            shutil.rmtree(self.part)
        else:
            self.part.unlink(missing_ok=True)

    def part_bytes(self) -> int:
        """Bytes fetched so far."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def part_state(self) -> PartState:
        """What is known about the partial file; empty if nothing is."""
        return cast(PartState, self._load(self.state))

    def set_part_state(self, version: str, total: int | None) -> None:
        """Record what the partial file is a part of, before its first byte."""
        known: PartState = {"version": version, "total": total}
        write_atomic(self.state, json.dumps(known))

    def need(self, count: int, keep_free: int) -> None:
        """Raise OSError (ENOSPC) if `count` more bytes would leave less than `keep_free`."""
        free = shutil.disk_usage(self.folder).free
        if count + keep_free > free:
            text = f"{count:,} bytes are to be fetched, {keep_free:,} kept free, {free:,} are left"
            raise OSError(errno.ENOSPC, text, str(self.folder))

    @staticmethod
    def _load(path: Path) -> dict[str, Any]:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def local_file(path: Path) -> Fetched:
    """A file that needs no fetching.

    Raises:
        SourceError: it does not exist or may not be read.
    """
    try:
        return Fetched(path, path.stat().st_size, "")
    except OSError as error:
        raise SourceError(Reason.UNREADABLE, error.strerror or str(error)) from error
