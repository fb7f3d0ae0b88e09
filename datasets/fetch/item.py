"""Fetch one item into a cache folder: complete, checked, and by one process at a time.

    fetched = fetch(item, Path("cache"), DownloadSettings(max_height=720))

Items with the same address share a place in the cache, so they are fetched once. A
fetch that was interrupted goes on where it stopped. What has been fetched stays until `discard`;
members of archives are unpacked again by every run, since that is quick.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from datasets.errors import Reason, SourceError
from datasets.fetch.http import fetch_http
from datasets.fetch.objects import fetch_object
from datasets.fetch.page import fetch_page
from datasets.fetch.policy import (
    DISK_FULL,
    Clock,
    Deadline,
    DownloadSettings,
    PassingError,
    Throttle,
    persist,
)
from datasets.fetch.slot import Fetched, Slot, local_file
from datasets.redact import without_signature
from datasets.sources.items import How, SourceItem
from datasets.sources.locations import HTTP, cache_name, scheme
from datasets.sources.zip_parts import parts_of, read_member
from datasets.store.atomic import content_digest


def fetch(
    item: SourceItem,
    folder: Path,
    settings: DownloadSettings | None = None,
    clock: Clock | None = None,
) -> Fetched:
    """The file of an item, fetched unless it is already in the cache.

    Args:
        item: what to fetch; a local item stays in its place.
        folder: the cache, created if it does not exist; it belongs to this program alone.
        settings: patience and rate.
        clock: for tests.

    Raises:
        SourceError: UNAVAILABLE (gone, private, not shown here: final), DOWNLOAD_FAILED
            (attempts used up, or not what was asked for), TIMED_OUT (the deadline), or
            UNREADABLE (a damaged archive), or NOT_ALLOWED (by `settings.addresses`, or larger
            than `settings.max_bytes`).
        OSError: the disk is full.
        UserError: a library for the address is missing.
    """
    if item.how is How.LOCAL:
        return local_file(item.path)
    settings, clock = settings or DownloadSettings(), clock or Clock()
    deadline = Deadline(settings.deadline_s, clock)
    if scheme(item.location) in HTTP and item.how is not How.MEMBER:
        settings.addresses.check(item.location)
    slot = _slot(item, folder, settings)
    with slot.held(deadline):
        kept = slot.kept()
        if kept and _current(kept, item):
            return kept
        if item.how is How.PAGE:
            return _page(item, slot, settings, deadline)
        if item.how is How.MEMBER:
            return _member(item, slot, settings, deadline)
        return _file(item, slot, settings, deadline)


def discard(item: SourceItem, folder: Path, settings: DownloadSettings | None = None) -> None:
    """Remove what was fetched for an item, complete or partial; a local item's file stays."""
    if item.how is How.LOCAL or not folder.is_dir():
        return
    slot = _slot(item, folder, settings or DownloadSettings())
    with slot.held(Deadline(60.0, Clock())):
        slot.discard(_suffix(item.member.name) if item.member else "")
        slot.leave()


def _slot(item: SourceItem, folder: Path, settings: DownloadSettings) -> Slot:
    if item.how is How.MEMBER:
        assert item.member is not None
        readable = "-".join(PurePosixPath(item.member.name).with_suffix("").parts[-3:])
        exact = cache_name(item.location, f"{item.member.name}|{item.version}")[-16:]
        return Slot(folder, f"{cache_name(readable)[:-17]}-{exact}")
    salt = str(settings.max_height) if item.how is How.PAGE else ""
    # An address with a new signature for the same file finds what was fetched before.
    return Slot(folder, cache_name(without_signature(item.location), salt))


def _current(kept: Fetched, item: SourceItem) -> bool:
    """Whether a file in the cache is still the one that the source lists."""
    if item.sha256 and kept.sha256 != item.sha256:
        return False
    # Listings of objects give their version; a fetched web page or http file stays as it is.
    listed = item.version if item.how is How.FILE and item.version != item.sha256 else ""
    return not listed or kept.version == listed


def _file(item: SourceItem, slot: Slot, settings: DownloadSettings, deadline: Deadline) -> Fetched:
    bring = fetch_http if scheme(item.location) in HTTP else fetch_object
    throttle = Throttle(settings.own_rate, deadline.clock)
    wrong: set[str] = set()

    def attempt() -> Fetched:
        version = bring(item.location, slot, settings, deadline, throttle)
        digest = content_digest(slot.part)
        if item.sha256 and digest != item.sha256:
            slot.forget_part()
            text = f"its sha256 is {digest}, {item.sha256} is expected"
            if digest in wrong:
                raise SourceError(Reason.DOWNLOAD_FAILED, text)
            wrong.add(digest)
            raise PassingError(text)
        if not slot.part.stat().st_size:
            raise SourceError(Reason.EMPTY_FILE, "the server's file has no bytes")
        return slot.publish(slot.part, _suffix(urlsplit(item.location).path), version, digest)

    return persist(attempt, settings, deadline)


def _page(item: SourceItem, slot: Slot, settings: DownloadSettings, deadline: Deadline) -> Fetched:
    slot.need(0, settings.keep_free_bytes)
    path = persist(
        lambda: fetch_page(item.location, slot.part, settings, deadline), settings, deadline
    )
    return slot.publish(path, path.suffix, "")


def _member(
    item: SourceItem, slot: Slot, settings: DownloadSettings, deadline: Deadline
) -> Fetched:
    assert item.member is not None
    member = item.member
    settings.check_size(member.bytes)
    slot.need(member.bytes, settings.keep_free_bytes)

    def blocks() -> Iterator[bytes]:
        for block in read_member(parts_of(item.location), member):
            deadline.check()
            yield block

    def attempt() -> Fetched:
        try:
            with slot.part.open("wb") as file:
                file.writelines(blocks())
        except FileNotFoundError as problem:
            raise SourceError(Reason.UNAVAILABLE, "the archive is not there") from problem
        except OSError as problem:
            if problem.errno in DISK_FULL:
                raise
            raise PassingError(str(problem)) from problem
        return slot.lend(slot.part, _suffix(member.name), item.version)

    return persist(attempt, settings, deadline)


def _suffix(path: str) -> str:
    suffix = PurePosixPath(path).suffix.lower()
    return suffix if suffix[1:].isalnum() and len(suffix) <= 6 else ""
