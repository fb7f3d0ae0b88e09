"""Fetch one file of weights over HTTP or from a folder, or fail with a sentence."""

import errno
import math
import os
import shutil
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from datasets.errors import Reason, SourceError
from datasets.fetch.http import Progress, fetch_http
from datasets.fetch.policy import (
    TRUSTED,
    Clock,
    Deadline,
    DiskError,
    DownloadSettings,
    PassingError,
    Throttle,
    persist,
)
from datasets.fetch.slot import Slot
from models.files.errors import ModelFileError, is_disk_full
from tasks.weights.addresses import checked_address

CHUNK = 1 << 20
LONGEST_PAUSE_S = 300.0
"""Seconds; to a waiting user, a server that asks for a longer pause has refused."""
_BY_HAND = "fetch the file by hand or set WEIGHTS_MIRROR"
_DISK = "check its permissions and what is in its place, or choose another folder"


def download(
    url: str,
    slot: Slot,
    *,
    attempts: int = 5,
    backoff_s: float = 2.0,
    timeout_s: float = 30.0,
    checked: bool = False,
    secrets: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> None:
    """Fetch all bytes of `url` into `slot.part`, going on where an earlier attempt stopped.

    Only temporary failures are retried: a broken connection, an overloaded server.

    Args:
        url: http, https or file. A file on this machine is copied from its beginning.
        slot: its partial file grows in place and is kept if this fails, so that the next
            call resumes. The caller holds its lock.
        attempts: broken connections before it gives up; one that brought new bytes
            resets the count.
        backoff_s: pause after the first failure, doubled each time.
        timeout_s: timeout of each network operation, seconds.
        checked, secrets, progress: see `fetch_http`.
        clock: for tests.

    Raises:
        ModelFileError: the address cannot be used, or the server refuses, answers with
            something other than the file, or keeps breaking off; or the file cannot be written.
        OSError: the disk is full.
    """
    url = checked_address(url)
    with _disk(slot.part, "written"):
        slot.folder.mkdir(parents=True, exist_ok=True)
        if slot.part.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if url.startswith("file:"):
        _copy(url, slot.part, progress)
        return
    # Nobody knows how long gigabytes may take; the user sees their progress.
    settings = DownloadSettings(
        attempts=attempts,
        backoff_s=backoff_s,
        timeout_s=timeout_s,
        deadline_s=math.inf,
        addresses=TRUSTED,
        max_bytes=sys.maxsize,
        keep_free_bytes=0,
    )
    deadline = Deadline(settings.deadline_s, clock or Clock())
    throttle = Throttle(0.0, deadline.clock)

    def attempt() -> None:
        try:
            fetch_http(
                url,
                slot,
                settings,
                deadline,
                throttle,
                checked=checked,
                secrets=secrets,
                progress=progress,
            )
        except PassingError as problem:
            # Files of weights are available to everybody, or to users who have accepted their
            # licence.
            if problem.status == 403:
                raise SourceError(Reason.UNAVAILABLE, problem.detail) from problem
            if problem.retry_after_s > LONGEST_PAUSE_S:
                text = f"{problem.detail}, which asks to retry in {problem.retry_after_s:.0f} s"
                raise SourceError(Reason.DOWNLOAD_FAILED, text) from problem
            raise

    try:
        persist(attempt, settings, deadline)
    except DiskError as problem:
        raise ModelFileError(f"{problem.detail}: {_DISK}") from problem
    except SourceError as problem:
        advice = _BY_HAND
        if problem.reason is Reason.UNAVAILABLE and secrets is not None:
            advice = f"log in with `hf auth login` or set HF_TOKEN if it is not public, or {advice}"
        text = f"{url} could not be fetched ({problem.detail}): {advice}"
        raise ModelFileError(text) from problem


@contextmanager
def _disk(path: Path, done: str) -> Iterator[None]:
    """Turn an error of this machine's disk into a sentence, except that of a full disk."""
    try:
        yield
    except OSError as problem:
        if is_disk_full(problem):
            raise
        text = f"{path} could not be {done} ({problem.strerror or problem}): {_DISK}"
        raise ModelFileError(text) from problem


def _copy(url: str, part: Path, progress: Progress | None) -> None:
    """Copy from a folder on this machine."""
    source = Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
    if not source.is_file():
        found = "is not a file" if source.exists() else "is not there"
        if not source.parent.is_dir():
            found += f", and {source.parent} is not a folder"
        raise ModelFileError(
            f"{source} {found}: put the file there, or set WEIGHTS_MIRROR to a folder or an "
            "address (http://...) that has it"
        )
    with _disk(source, "read"):
        original = source.open("rb")
        total = source.stat().st_size
    with _disk(part, "written"):
        copy = part.open("wb")
    have = 0
    with original, copy:
        while True:
            with _disk(source, "read"):
                chunk = original.read(CHUNK)
            if not chunk:
                return
            with _disk(part, "written"):
                copy.write(chunk)
                copy.flush()
            have += len(chunk)
            if progress:
                progress(have, total)


def free_bytes(folder: Path) -> int:
    """Free bytes where `folder` is, or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
