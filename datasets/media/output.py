"""Whether a video can be written to a place, told before any work is done for it."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from datasets.errors import UserError
from datasets.media.form import CONTAINERS
from datasets.store.atomic import unfinished_name

LEAST_BYTES = 1_000_000
"""A video that is smaller is none."""
NEW_SHARE = 0.25
"""Of the largest input's size: an output that needs less room is not to be expected."""


def container_of(path: Path) -> str:
    """FFmpeg's name of the container that a file's suffix stands for.

    Raises:
        UserError: the suffix is none of `CONTAINERS`.
    """
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        *others, last = CONTAINERS
        raise UserError(
            f"{path} cannot be written: its name must end in {', '.join(others)} or {last}"
        )
    return container


def check_output(path: Path, inputs: Iterable[Path] = ()) -> str:
    """Refuse what cannot be written.

    Args:
        path: the video to write; one that is there is replaced once the new one is complete.
        inputs: files that are read meanwhile.

    Returns:
        FFmpeg's name of the container.

    Raises:
        UserError: the suffix is none of `CONTAINERS`, the place is no place for a file, or there
            is no room for it.
    """
    container = container_of(path)
    try:
        if path.is_dir():
            raise UserError(f"the output {path} is a folder: give the name of a file in it")
        parent = _nearest_parent(path)
        longest = os.pathconf(parent, "PC_NAME_MAX")
        name = unfinished_name(path).name
        if len(os.fsencode(name)) > longest:
            raise UserError(
                f"the output's name has {len(os.fsencode(path.name))} bytes, of which "
                f"{longest - len(os.fsencode(name)) + len(os.fsencode(path.name))} are possible "
                "here: choose a shorter one"
            )
        if not os.access(parent, os.W_OK | os.X_OK):
            raise UserError(f"the output {path} cannot be written: no permission in {parent}")
        sizes = [given.stat().st_size for given in inputs if given.is_file()]
        for given in inputs:
            if path.exists() and given.exists() and path.samefile(given):
                raise UserError(f"the output {path} is one of the inputs: choose another name")
        needed = max([LEAST_BYTES, *(round(size * NEW_SHARE) for size in sizes)])
        free = shutil.disk_usage(parent).free
    except OSError as error:
        raise UserError(
            f"the output {path} cannot be written ({error.strerror or error}): choose another place"
        ) from error
    if free < needed:
        raise UserError(
            f"the output {path} needs about {needed / 1e6:.0f} MB or more, and {free / 1e6:.1f} MB "
            f"are free in {parent}: make room or choose another place"
        )
    return container


def _nearest_parent(path: Path) -> Path:
    """The folder that the file will lie in, or the one above it that is there."""
    for parent in path.absolute().parents:
        if parent.is_dir():
            return parent
        if parent.exists() or parent.is_symlink():
            raise UserError(f"the output {path} cannot be written: {parent} is no folder")
    return Path(path.absolute().anchor)
