"""One process at a time where MLflow has no compare-and-set: promotion, registration, fetching.

The locks are files of this machine. Processes on other machines are noticed by reading back.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets.store.lock import file_lock
from tasks.registry.tracking import sqlite_path

LOCKS = Path.home() / ".cache" / "latentsync-flows" / "locks"


@contextmanager
def exclusively(uri: str, what: str) -> Iterator[None]:
    """Be the only process of this machine that does something in a store; others wait.

    Args:
        uri: the MLflow store.
        what: what must not be done by two at once.
    """
    key = hashlib.sha256(f"{uri}\n{what}".encode()).hexdigest()[:16]
    database = sqlite_path(uri)
    folder = database.parent / ".locks" if database else LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / f"{key}.lock"):
        yield
