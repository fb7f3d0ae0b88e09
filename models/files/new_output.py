"""Files and folders that are written atomically.

Unfinished output is in a folder of its own next to the target, with a name that nothing
else can have. Its writer holds a lock on it, so that leftovers of a killed writer are recognised
and removed when the target is written again.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import lock_descriptor
from safetensors.torch import save_file

from models.files.errors import ModelFileError, is_disk_full

BEFORE = "before"
"""Name within that folder of the former target, once it is replaced."""


def check_free(target: Path) -> None:
    """Check that a new file or folder can be created.

    Raises:
        ModelFileError: something other than an empty folder is in its place.
    """
    if not target.name:
        raise ModelFileError(
            f"{target} has no name of its own: choose the name of a new file or folder"
        )
    try:
        empty = target.is_dir() and not target.is_symlink() and not any(target.iterdir())
        there = os.path.lexists(target)
    except OSError as error:
        raise ModelFileError(f"{target} cannot be written: {error.strerror}") from error
    if there and not empty:
        raise ModelFileError(f"{target} already exists: choose a new name or remove it")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `target` when the block ends without an exception.

    Raises:
        ModelFileError: the target is taken, or cannot be made.
    """
    check_free(target)
    with _workplace(target) as place:
        folder = place / target.name
        folder.mkdir()
        yield folder
        _open_up(folder)
        os.replace(folder, target)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """The same, but `target` may already be a folder, which is removed once the new one is
    complete.

    Raises:
        ModelFileError: the target is not a folder, or cannot be created.
    """
    if os.path.lexists(target) and not target.is_dir():
        raise ModelFileError(f"{target} is not a folder: remove it or choose another name")
    with _workplace(target) as place:
        folder = place / target.name
        folder.mkdir()
        yield folder
        _open_up(folder)
        if target.exists():
            os.replace(target, place / BEFORE)
        os.replace(folder, target)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A path to write a file to, which becomes `target` when the block ends without an exception.

    Raises:
        ModelFileError: the target is taken, or cannot be made.
    """
    check_free(target)
    with replacing_file(target) as file:
        yield file


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """The same, but `target` may already be a file, which stays until the new one is complete.

    Raises:
        ModelFileError: the target is a folder, or cannot be made.
    """
    if target.is_dir():
        raise ModelFileError(f"{target} is a folder: choose the name of a new file")
    with _workplace(target) as place:
        file = place / target.name
        yield file
        _open_up(file)
        os.replace(file, target)


@contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """A folder next to the target, which is removed after the block."""
    with _made_parents(target):
        _sweep(target)
        with _told(target):
            place, handle = _claim(target)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            os.close(handle)


def _claim(target: Path) -> tuple[Path, int]:
    """A new folder, and what keeps it from being swept."""
    while True:
        prefix = f".{target.name[:100]}."
        place = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=target.parent))
        handle = os.open(place, os.O_RDONLY)
        try:
            ours = lock_descriptor(handle, blocking=False)
        except OSError:
            return place, handle  # No locks on this file system, so no sweep either.
        if ours and place.exists():
            return place, handle
        os.close(handle)


def _sweep(target: Path) -> None:
    """Remove what killed writers of a target left."""
    name = re.compile(re.escape(f".{target.name[:100]}.") + r"[a-z0-9_]{8}\.tmp")
    for place in target.parent.iterdir():
        if not name.fullmatch(place.name):
            continue
        if (place / BEFORE).exists() and not os.path.lexists(target):
            continue  # Killed between the two renames: only here is the former target complete.
        try:
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if lock_descriptor(handle, blocking=False):
                shutil.rmtree(place, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(handle)


@contextmanager
def _made_parents(target: Path) -> Iterator[None]:
    """Create the folders above, and remove them again if nothing is put into them."""
    missing = [folder for folder in target.parents if not os.path.lexists(folder)]
    try:
        with _told(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """Turn the error into a sentence if nothing can be created; a full disk keeps its own error."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise
        raise ModelFileError(f"{target} cannot be written: {error.strerror}") from error


def save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file that others can read, like the files next to it."""
    save_file(dict(weights), path, metadata={"format": "pt"})
    _open_up(path)


def _open_up(path: Path) -> None:
    """The access that files usually have: temporary ones, and safetensors', are private."""
    mask = _umask()
    for each in [path, *path.rglob("*")]:
        each.chmod((0o777 if each.is_dir() else 0o666) & ~mask)


def _umask() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.partition("\nUmask:")[2].split()[0], 8)
    except (OSError, IndexError, ValueError):
        # On other systems it can only be read by setting it, briefly and for all threads.
        mask = os.umask(0o077)
        os.umask(mask)
        return mask
