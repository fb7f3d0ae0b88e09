"""One process at a time, on a file or on an output folder."""

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
"""Folder of a refresh's finished work; if it is deleted, the work must be repeated."""
RUNS = f"{STAGING}/runs"
"""Where runs on object storage give signs of life."""
ELSEWHERE = Path("runs/locks")
"""Folder of locks for outputs that are not local folders, among the runs on this machine."""


def file_lock(path: Path) -> BaseFileLock:
    """A lock of the operating system, which releases it if the process dies; the file stays.

    A file system without such locks raises OSError: the mere existence of a file would outlast
    its holder.
    """
    return FileLock(path, fallback_to_soft=False)


@contextmanager
def only_writer(store: Store) -> Iterator[None]:
    """Be the only run that writes to a store: on this machine and, if the store is object
    storage, on all machines.

    Raises:
        UserError: another run is working there.
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
    """Hold a folder for the duration of the block; the system releases it if the process dies.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = file_lock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"another run is working on {folder}: wait for it, or choose another output folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
