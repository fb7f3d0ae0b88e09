"""One process at a time: at a file, and on one output folder."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from datasets.errors import UserError
from datasets.store.lease import Lease, hold_lease
from datasets.store.local import LocalStore
from datasets.store.protocol import Store

STAGING = "staging"
"""Folder of what is finished of a refresh; deleting it costs the work anew."""
RUNS = f"{STAGING}/runs"
"""Where runs on object storage give signs of life."""
ELSEWHERE = Path("runs/locks")
"""Where outputs that are no local folders are locked, among the runs of this machine."""


def file_lock(path: Path) -> BaseFileLock:
    """A lock of the operating system, which lets go of it if the process dies; the file stays.

    A file system without such locks raises OSError: a file that merely is there would outlive
    its holder.
    """
    return FileLock(path, fallback_to_soft=False)


@contextmanager
def only_writer(store: Store) -> Iterator[None]:
    """Be the only run that writes to a store, on this machine and, where the store is object
    storage, on all.

    Raises:
        UserError: another run is at work there.
    """
    if isinstance(store, LocalStore):
        with only_run(store.folder / STAGING):
            yield
        return
    here = ELSEWHERE / hashlib.sha256(store.url.encode()).hexdigest()[:16]
    with only_run(here), hold_lease(Lease(store, RUNS)):
        yield


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold a folder for the time of the block; the system lets go of it if the process dies.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = file_lock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"another run is working on {folder}: wait for it, or give another output folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
