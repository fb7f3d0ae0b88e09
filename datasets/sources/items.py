"""Where videos come from: what a source lists, before anything is fetched or decoded.

A `SourceItem` is one video (or one member of an archive) with a speaker's name. It says
how to get the file and, if a data set annotates only parts of it, which ones.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from datasets.errors import Reason, UserError

SIDECARS = (".json", ".txt")
"""Suffixes of notes next to a media file of the same name."""


class How(StrEnum):
    """How to get the file of an item."""

    LOCAL = "local"
    """A file on this machine (or on a file system that all workers share)."""
    FILE = "file"
    """A file at an http(s), s3, gs or other address that fsspec opens."""
    PAGE = "page"
    """A web page with a video, such as YouTube's: yt-dlp fetches it."""
    MEMBER = "member"
    """A file inside a zip archive, which may come in parts."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the picture, in fractions of it or in pixels of a stated height."""

    left: float
    top: float
    right: float
    bottom: float
    height: int | None = None
    """Height of the picture that the pixels were measured in; None: the numbers are
    fractions of width and height, 0 to 1."""

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in a picture of this size, clipped to it.

        Pixels are scaled by the height only: the shape of the picture stays the same if a
        video is offered in another size.

        Raises:
            ValueError: no part of the rectangle is inside.
        """
        if self.height is None:
            across, down = float(width), float(height)
        else:
            across = down = height / self.height
        left, right = max(round(self.left * across), 0), min(round(self.right * across), width)
        top, bottom = max(round(self.top * down), 0), min(round(self.bottom * down), height)
        if right <= left or bottom <= top:
            raise ValueError(f"{self} is outside a picture of {width}x{height}")
        return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Part:
    """A span of a video that a data set annotates."""

    name: str
    """Unique in its item."""
    start_s: float
    end_s: float
    """Seconds into the video; the end is not included."""
    region: Region | None = None
    """The speaker's region; None: anywhere in the picture."""
    reason: Reason = Reason.NONE
    """Why this span cannot be used: it only becomes a row of the ledger."""
    detail: str = ""
    """What exactly is missing, for the row."""


@dataclass(frozen=True, slots=True)
class Member:
    """The place of a file inside a zip archive: enough to read it without the directory,
    which for a million files is as large as a video."""

    name: str
    offset: int
    """Position of its local header, in bytes from the start of the (joined) archive."""
    packed_bytes: int
    bytes: int
    method: int
    """0: stored, 8: deflated."""
    crc32: int
    problem: str = ""
    """Why it cannot be read from there; empty if it can."""


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One video of a source."""

    key: str
    """Unique in its source."""
    location: str
    """A path, an address, or the archive (its first part) that holds the member."""
    relative: str
    """The name of the item in the ledger, with forward slashes; bytes of a file's name that
    are not UTF-8 are written as \\xNN."""
    speaker: str
    """The speaker, as far as the source knows. Two items of one person have the same speaker: the
    split into training and testing depends on it."""
    how: How = How.LOCAL
    split: str = ""
    """`train` or `test` if the data set itself decides; otherwise empty."""
    parts: tuple[Part, ...] = ()
    """Annotated spans; empty: the whole file."""
    expected_bytes: int = 0
    """Size of the file; 0: not known before it is fetched."""
    expected_seconds: float = 0.0
    """Seconds to be used; 0: not known."""
    version: str = ""
    """Changes with the content, where a listing shows that without fetching (the ETag of an
    object, the CRC of a member); empty: it does not."""
    sha256: str = ""
    """sha256 that the fetched file must have; empty: not known."""
    member: Member | None = None
    """Place of the file in its archive, for `How.MEMBER`."""
    sound: "SourceItem | None" = None
    """The file with its audio, if that is not in the video itself."""
    reason: Reason = Reason.NONE
    """Why the whole item cannot be used; it is then not fetched but recorded in one row."""
    detail: str = ""
    """What exactly is missing, for the row."""

    @property
    def path(self) -> Path:
        """The file of a local item.

        Raises:
            ValueError: the item must be fetched first.
        """
        if self.how is not How.LOCAL:
            raise ValueError(f"{self.key} is not a local file: {self.location} must be fetched")
        return Path(self.location)

    @property
    def wanted(self) -> bool:
        """Whether there is any reason to fetch and decode it."""
        return not self.reason and (not self.parts or any(not part.reason for part in self.parts))


def local_item(path: Path, relative: str, speaker: str) -> SourceItem:
    """A file on this machine; its key is its relative path."""
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    return SourceItem(relative, os.fspath(path), relative, speaker, expected_bytes=size)


def list_folder(folder: Path) -> list[SourceItem]:
    """Every file below a folder, sorted by path, hidden ones and notes left out.

    Files of other kinds than video are listed too: the ledger says why they are refused.

    Raises:
        UserError: the folder is missing, is not a folder, may not be read, or holds no files.
    """
    if not folder.exists():
        raise UserError(
            f"there is no folder '{folder}' ({folder.absolute()}): choose a folder with videos"
        )
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: choose the folder that holds the videos")
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
        items.append(local_item(path, name, _text(speaker)))
    if not items:
        raise UserError(f"{folder} is empty: put videos there, in one folder per speaker")
    return items


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _files(folder: Path) -> list[Path]:
    """What lies below `folder` besides folders, sorted.

    Pipes and links that lead nowhere are there, too, since the ledger says why they are refused. A
    folder with several names is entered once, by its own name rather than by a link's.
    """
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
            else:
                found.append(path)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
