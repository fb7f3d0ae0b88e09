"""The state of a source, by its stamp or by its bytes."""

import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets.errors import Reason, SourceError
from datasets.sources.items import How, Part, SourceItem
from datasets.sources.locations import shown
from datasets.store.atomic import content_digest
from datasets.store.manifest import config_digest


def plain(name: str) -> str:
    """A name that any encoding can hold: bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def stamp_of(item: SourceItem) -> list[Any]:
    """Values that change when a source does, found without reading it; the last is a digest of what
    the list says about it."""
    told = {
        "parts": [asdict(part) for part in item.parts],
        "speaker": item.speaker,
        "split": item.split,
        "reason": item.reason,
        "sound": stamp_of(item.sound) if item.sound else [],
    }
    told_digest = config_digest(told)
    if item.how is not How.LOCAL:
        return [shown(item.location), item.version, item.sha256, told_digest]
    try:
        found = Path(item.location).stat()
    except OSError:
        return [told_digest]
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, told_digest]


def same_stamp(now: list[Any], before: list[Any]) -> bool:
    """Whether two stamps mean the same state; a server that did not answer does not count."""
    silent = len(now) == len(before) == 4 and now[1] == "" and isinstance(now[0], str)
    return now == before or (silent and [now[0], *now[2:]] == [before[0], *before[2:]])


def written_since(item: SourceItem, before: list[Any]) -> bool:
    """Whether a local file's size or time of writing has changed since a stamp."""
    now = stamp_of(item)
    return item.how is How.LOCAL and len(now) == len(before) == 4 and now[:2] != before[:2]


def digest_of(item: SourceItem) -> str:
    """sha256 of a local file; empty if it cannot be read."""
    try:
        return content_digest(item.path)
    except OSError:
        return ""


def content_of(digest: str, sound_digest: str, parts: Sequence[Part]) -> str:
    """A digest that sources with the same content have in common.

    Args:
        digest: sha256 of the file; for an empty one the result is empty.
        sound_digest: sha256 of the file with the audio, if that comes separately.
        parts: annotated spans; their names and speakers do not matter.
    """
    used = [(each.start_s, each.end_s, each.region) for each in parts if not each.reason]
    if not digest or not (sound_digest or used):
        return digest
    spans = [[start, end, asdict(region) if region else None] for start, end, region in used]
    return config_digest({"file": digest, "sound": sound_digest, "spans": spans})


def readable_digest(path: Path, sound: Path) -> str:
    """sha256 of a file, after checking that it and its sound file can be read.

    Raises:
        SourceError: NOT_READ if this machine cannot access one, UNREADABLE if it is not a
            regular file.
    """
    try:
        for each in {path, sound}:
            if each.is_symlink() and not each.exists():
                where = os.readlink(each)
                raise SourceError(Reason.NOT_READ, f"a link to {where}, which is not there")
            # Opening a pipe would block for ever.
            if not stat.S_ISREG(each.stat().st_mode):
                raise SourceError(Reason.UNREADABLE, "not a regular file")
        return content_digest(path)
    except OSError as error:
        text = f"{error.strerror or error} on {socket.gethostname()}"
        raise SourceError(Reason.NOT_READ, text) from error
