"""Checks whether a video can be written to a place, before any work is done for it."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from datasets.errors import UserError
from datasets.media.form import CONTAINERS
from datasets.store.atomic import unfinished_name

LEAST_BYTES = 1_000_000
"""Bytes; anything smaller is not a video."""
NEW_SHARE = 0.25
"""Share of the largest input's size that an output is expected to need at least."""


def container_of(path: Path) -> str:
    """FFmpeg's name of the container for a file's suffix.

    Raises:
        UserError: the suffix is not one of `CONTAINERS`.
    """
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        *others, last = CONTAINERS
        raise UserError(
            f"{path} cannot be written: its name must end in {', '.join(others)} or {last}"
        )
    return container


def check_output(path: Path, inputs: Iterable[Path] = ()) -> str:
    """Refuse an output that cannot be written.

    Args:
        path: the video to write; an existing one is replaced once the new one is complete.
        inputs: files that are read meanwhile.

    Returns:
        FFmpeg's name of the container.

    Raises:
        UserError: the suffix is not one of `CONTAINERS`, a file cannot be there, or there
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
                f"the output's name has {len(os.fsencode(path.name))} bytes, but only "
                f"{longest - len(os.fsencode(name)) + len(os.fsencode(path.name))} fit "
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
            f"are free in {parent}: free some space or choose another place"
        )
    return container


def _nearest_parent(path: Path) -> Path:
    """The folder that the file will be in, or the nearest existing one above it."""
    for parent in path.absolute().parents:
        if parent.is_dir():
            return parent
        if parent.exists() or parent.is_symlink():
            raise UserError(f"the output {path} cannot be written: {parent} is not a folder")
    return Path(path.absolute().anchor)
