"""Files and folders that appear whole or not at all, and never where something else lies.

What is being written has a name of its own beside the target, which nobody else can have.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.files.errors import ModelFileError, is_disk_full


def check_free(target: Path) -> None:
    """Whether a new file or folder can be made there.

    Raises:
        ModelFileError: something is there, other than an empty folder.
    """
    if not target.name:
        raise ModelFileError(f"{target} has no name of its own: give the name of something new")
    try:
        empty = target.is_dir() and not target.is_symlink() and not any(target.iterdir())
        there = os.path.lexists(target)
    except OSError as error:
        raise ModelFileError(f"{target} cannot be written: {error.strerror}") from error
    if there and not empty:
        raise ModelFileError(f"{target} is there already: give a new name or remove it")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `target` when the block ends without an exception.

    Raises:
        ModelFileError: the target is taken, or cannot be made.
    """
    check_free(target)
    with _made_parents(target):
        with _told(target):
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", dir=target.parent))
        try:
            yield temporary
            _open_up(temporary)
            os.replace(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """The same with a file.

    Raises:
        ModelFileError: the target is taken, or cannot be made.
    """
    check_free(target)
    if target.is_dir():
        raise ModelFileError(f"{target} is a folder: give the name of a new file")
    with _made_parents(target):
        with _told(target):
            handle, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _open_up(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _made_parents(target: Path) -> Iterator[None]:
    """The folders above, which go again if nothing comes into them."""
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
    """One sentence where nothing can be made; a full disk stays what it is."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise
        raise ModelFileError(f"{target} cannot be written: {error.strerror}") from error


def save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """A safetensors file that others can read, as they can the files beside it."""
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
        # Other systems tell it only to those who set it, for a moment for all threads.
        mask = os.umask(0o077)
        os.umask(mask)
        return mask
