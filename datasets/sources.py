"""Where videos come from: a folder of files, each with a speaker's name."""

import os
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import UserError

SIDECARS = (".json", ".txt")
"""Suffixes of notes that lie beside a media file of the same name."""


@dataclass(frozen=True)
class SourceItem:
    """One input file."""

    key: str
    """Unique in its source: the relative path."""
    path: Path
    """Where the file is."""
    relative: str
    """Path below the source's folder, with forward slashes; bytes of the name that are no
    UTF-8 are written as \\xNN."""
    speaker: str
    """The first folder below the source's, or the file's own name at the top."""


def list_folder(folder: Path) -> list[SourceItem]:
    """Every file below a folder, sorted by path, hidden ones and notes left out.

    Files of other kinds than video are listed too: the ledger says why they are refused.

    Raises:
        UserError: the folder is missing, no folder, may not be read, or holds no file.
    """
    if not folder.exists():
        raise UserError(f"there is no {folder}: give a folder with videos")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: give the folder that holds the videos")
    try:
        files = _files(folder)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be listed: {error.strerror}") from error
    media = {path.with_suffix("") for path in files if path.suffix.lower() not in SIDECARS}
    items = []
    for path in files:
        if path.suffix.lower() in SIDECARS and path.with_suffix("") in media:
            continue
        relative = path.relative_to(folder)
        speaker = relative.parts[0] if len(relative.parts) > 1 else relative.stem
        name = _text(relative.as_posix())
        items.append(SourceItem(name, path, name, _text(speaker)))
    if not items:
        raise UserError(f"{folder} holds no file: put videos there, in one folder per speaker")
    return items


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _files(folder: Path) -> list[Path]:
    """Regular files below `folder`, sorted; a folder with several names is entered once, by
    its own name rather than by a link's."""
    found: list[Path] = []
    entered: set[Path] = set()
    folders: list[Path] = [folder]
    links: list[Path] = []
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        real = here.resolve()
        if real in entered:
            continue
        entered.add(real)
        for path in sorted(here.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            elif path.is_file():
                found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
