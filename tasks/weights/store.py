"""Weights published by others: which exist, which are here, and how to get the rest.

    python -m tasks.weights                      # what is present, missing, and its licence
    python -m tasks.weights fetch whisper-tiny   # one or more by name

Files go to `WEIGHTS_DIR` (default ~/.cache/latentsync-flows/weights). Every file is
checked against its sha256: the table's, or else the one recorded in `weights.lock.json`
at first use, which is forgotten when a deleted file is fetched again. `WEIGHTS_MIRROR` names a
folder or an address with the same layout; without it, `HF_ENDPOINT` names a mirror of the
model hub, and `HF_TOKEN` or `hf auth login` identifies the user there. `WEIGHTS_OFFLINE=1` or
`HF_HUB_OFFLINE=1` forbids the network.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.fetch.http import Progress
from datasets.fetch.slot import Slot
from datasets.store.atomic import content_digest, move_atomic
from models.files.errors import ModelFileError
from tasks.weights.addresses import mirrored, on_the_hub
from tasks.weights.containers import container_fault
from tasks.weights.download import download, free_bytes
from tasks.weights.lock import can_lock, exclusive, lock_of, record, recorded
from tasks.weights.table import WEIGHTS, Weight

_log = logging.getLogger(__name__)


def weights_folder() -> Path:
    """The folder of weights."""
    folder = os.environ.get("WEIGHTS_DIR") or "~/.cache/latentsync-flows/weights"
    return Path(os.path.expanduser(folder))


def offline() -> bool:
    """Whether use of the network is forbidden."""
    names = ("WEIGHTS_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "0").lower() not in ("", "0", "false", "no") for name in names)


def find(name: str, table: Sequence[Weight] = WEIGHTS) -> Weight:
    """A row of the table.

    Raises:
        ModelFileError: no weights have this name.
    """
    for weight in table:
        if weight.name == name:
            return weight
    known = ", ".join(weight.name for weight in table)
    raise ModelFileError(f"no weights are called {name!r}: choose one of {known}")


def _unchanged(weight: Weight, path: Path, folder: Path) -> bool:
    """Whether the file is in place and is the one that was checked and recorded."""
    known = recorded(folder, weight.name)
    if path != folder / weight.file or known.get("sha256") != (
        weight.sha256 or known.get("sha256")
    ):
        return False
    state = path.stat()
    return (known.get("size"), known.get("mtime_ns")) == (state.st_size, state.st_mtime_ns)


def _mismatch(weight: Weight, path: Path, digest: str | None) -> str | None:
    """How a file differs from what is known about it beforehand, or None."""
    if weight.size is not None and path.stat().st_size != weight.size:
        return f"it has {path.stat().st_size} bytes, but {weight.size} were expected"
    if digest and (found := content_digest(path)) != digest:
        return f"its sha256 is {found}, but {digest} was expected"
    return None


def _verify(weight: Weight, path: Path, folder: Path) -> str | None:
    """What is wrong with a file, or None. Unchanged files are not read again."""
    if _unchanged(weight, path, folder):
        return None
    return _mismatch(weight, path, weight.sha256 or recorded(folder, weight.name).get("sha256"))


def _container_fault(weight: Weight, path: Path) -> str | None:
    """Evidence that a file is incomplete, if no published sha256 settles it."""
    return None if weight.sha256 else container_fault(path, weight.file)


def _obstacle(path: Path) -> str:
    """What is in the place of a file of weights without being a file; empty if nothing is."""
    if path.is_symlink() and not path.exists():
        return f"a link to {path.readlink()}, which does not exist, is in its place"
    if path.exists() and not path.is_file():
        return "something that is not a file is in its place"
    return ""


def _check_folder(folder: Path) -> None:
    """Raise ModelFileError if a folder neither exists nor can be created."""
    for each in (folder, *folder.parents):
        if each.exists():
            if not each.is_dir():
                raise ModelFileError(
                    f"weights cannot be in {folder}: {each} is not a folder; set --folder or "
                    "WEIGHTS_DIR"
                )
            return


def _check(weight: Weight, path: Path, folder: Path) -> None:
    if wrong := _verify(weight, path, folder):
        raise ModelFileError(
            f"weights {weight.name} at {path} have changed: {wrong}; delete the file "
            "to fetch it again"
        )


def _remember(weight: Weight, path: Path, folder: Path) -> None:
    """Record a file that was verified."""
    if not _unchanged(weight, path, folder):
        known = weight.sha256 or recorded(folder, weight.name).get("sha256")
        state = path.stat()
        record(folder, weight.name, weight.file, known or content_digest(path), state)


def verified(name: str, folder: Path | None = None, *, table: Sequence[Weight] = WEIGHTS) -> Path:
    """The path of an existing weight file, checked as `fetch` does, without the network.

    Args:
        name: name in the table.
        folder: defaults to `weights_folder()`. If it is not writable, the file is
            read each time.

    Raises:
        ModelFileError: the name is unknown, or the file is not what it should be.
        FileNotFoundError: the file does not exist.
    """
    weight = find(name, table)
    folder = folder or weights_folder()
    path = folder / weight.file
    if _unchanged(weight, path, folder):
        return path
    if not can_lock(folder, path):
        _check(weight, path, folder)
        return path
    with exclusive(lock_of(path)):
        _check(weight, path, folder)
        _remember(weight, path, folder)
    return path


def fetch(
    name: str,
    folder: Path | None = None,
    *,
    table: Sequence[Weight] = WEIGHTS,
    attempts: int = 5,
    backoff_s: float = 2.0,
    progress: Progress | None = None,
) -> Path:
    """The path of a weight file, fetched if missing and always verified.

    A file without a published sha256 must be complete before its own is recorded. Deleting it
    causes it to be fetched again, whatever was recorded.

    Args:
        name: name in the table.
        folder: defaults to `weights_folder()`.
        attempts, backoff_s, progress: see `download`.

    Raises:
        ModelFileError: the name is unknown, the network is switched off, the server refuses, or the
            file is not what it should be.
        OSError: the disk is full.
    """
    weight = find(name, table)
    folder = folder or weights_folder()
    path = folder / weight.file
    _check_folder(folder)
    if in_the_way := _obstacle(path):
        raise ModelFileError(
            f"weights {weight.name} cannot be put at {path}: {in_the_way}; remove it or choose "
            "another --folder"
        )
    if not path.is_file():
        with exclusive(lock_of(path)):
            # Another process may have fetched it meanwhile.
            if not path.is_file():
                _bring(weight, path, folder, attempts, backoff_s, progress)
    if wrong := _container_fault(weight, path):
        raise ModelFileError(
            f"weights {weight.name} at {path} cannot be used: {wrong}; delete the file to fetch "
            "it again"
        )
    return verified(name, folder, table=table)


def _bring(
    weight: Weight,
    path: Path,
    folder: Path,
    attempts: int,
    backoff_s: float,
    progress: Progress | None,
) -> None:
    """Fetch a file, verify it, put it in place and record it."""
    mirror = os.environ.get("WEIGHTS_MIRROR")
    url, secrets = mirrored(weight.url, weight.file, mirror), None
    if not mirror:
        url, secrets = on_the_hub(url)
    if offline() and not url.startswith("file:"):
        raise ModelFileError(
            f"weights {weight.name} are not at {path} and the network is switched off: copy "
            f"{Path(weight.file).name} from {weight.url} there, or unset WEIGHTS_OFFLINE and "
            "HF_HUB_OFFLINE"
        )
    slot = Slot(path.parent, path.name)
    part, have = slot.part, slot.part_bytes()
    if weight.size and weight.size - have > free_bytes(folder):
        raise OSError(28, "No space left on device", str(path))
    if not weight.size or have != weight.size:
        download(
            url,
            slot,
            attempts=attempts,
            backoff_s=backoff_s,
            checked=weight.sha256 is not None,
            secrets=secrets,
            progress=progress,
        )
    if wrong := _mismatch(weight, part, weight.sha256) or _container_fault(weight, part):
        slot.forget_part()
        raise ModelFileError(
            f"weights {weight.name} arrived damaged from {url}: {wrong}; try again or use another "
            "WEIGHTS_MIRROR"
        )
    digest = weight.sha256 or content_digest(part)
    before = recorded(folder, weight.name).get("sha256", digest)
    if before != digest:
        _log.warning(
            "weights %s are different from before: their sha256 is %s, that of the deleted file "
            "was %s",
            weight.name,
            digest,
            before,
        )
    # In this order a crash in between leaves no file that contradicts its record.
    record(folder, weight.name, weight.file, digest, part.stat())
    move_atomic(part, path)
    slot.forget_part()


@dataclass(frozen=True)
class Status:
    """What is known about one weight file on this machine."""

    weight: Weight
    present: bool
    size: int | None
    """Bytes of the file if present, otherwise those of the table."""
    problem: str = ""
    """Why a file cannot be used or put in place."""


def status(folder: Path | None = None, table: Sequence[Weight] = WEIGHTS) -> list[Status]:
    """All rows of the table with the state of their files. Changed files are read again.

    Raises:
        ModelFileError: the path is not a folder, or its `weights.lock.json` is damaged.
    """
    folder = folder or weights_folder()
    _check_folder(folder)
    rows = []
    for weight in table:
        path = folder / weight.file
        if path.is_file():
            problem = _container_fault(weight, path) or _verify(weight, path, folder)
            rows.append(Status(weight, True, path.stat().st_size, problem or ""))
        else:
            rows.append(Status(weight, False, weight.size, _obstacle(path)))
    return rows
