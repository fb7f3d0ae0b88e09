"""How the state of a source is known, by its stamp or by its bytes."""

import socket
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets.errors import Reason, SourceError
from datasets.sources.items import How, SourceItem
from datasets.sources.locations import shown
from datasets.store.atomic import content_digest
from datasets.store.manifest import config_digest


def plain(name: str) -> str:
    """A name that any encoding can hold: bytes that are no UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def stamp_of(item: SourceItem) -> list[Any]:
    """What changes when a source does, without reading it; its last value is a digest of what
    the source says of it."""
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
    """Whether two stamps are of the same state; a server that did not answer says nothing."""
    silent = len(now) == len(before) == 4 and now[1] == "" and isinstance(now[0], str)
    return now == before or (silent and [now[0], *now[2:]] == [before[0], *before[2:]])


def written_since(item: SourceItem, before: list[Any]) -> bool:
    """Whether a local file has got another size or time of writing since a stamp."""
    now = stamp_of(item)
    return item.how is How.LOCAL and len(now) == len(before) == 4 and now[:2] != before[:2]


def digest_of(item: SourceItem) -> str:
    """sha256 of a local file; empty where it cannot be read."""
    try:
        return content_digest(item.path)
    except OSError:
        return ""


def readable_digest(path: Path, sound: Path) -> str:
    """sha256 of a file that can be read, as the file of its sound can.

    Raises:
        SourceError: NOT_READ where this machine does not get at one, UNREADABLE for what is no
            regular file.
    """
    try:
        for each in {path, sound}:
            # Opening a pipe would wait for ever.
            if not stat.S_ISREG(each.stat().st_mode):
                raise SourceError(Reason.UNREADABLE, "no regular file")
        return content_digest(path)
    except OSError as error:
        text = f"{error.strerror or error} on {socket.gethostname()}"
        raise SourceError(Reason.NOT_READ, text) from error
