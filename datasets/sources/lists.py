"""Listing the content of sources: `list_source("hdtf", "lists/")` and so on.

    folder      videos below a folder or at s3://, gs://; the first level names the speakers
    urls        a text file of addresses, each a file or a page with a video
    hdtf        the data set's own lists
    voxceleb2   the data set's own layout: clips, zip archives of clips, or box files
    lrs2, lrs3  the data sets' own layouts, for those who hold them

Listing does not fetch videos, though it may ask servers whether theirs have changed. A speaker
is on one side of the split: if a data set decides for one item of a speaker, all
of the speaker's items follow.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from datasets.errors import SourceError, UserError
from datasets.progress import Progress
from datasets.redact import redact, without_signature
from datasets.sources.addresses import OPAQUE, AddressPolicy
from datasets.sources.hdtf import list_hdtf
from datasets.sources.items import SIDECARS, How, SourceItem, list_folder
from datasets.sources.locations import (
    HTTP,
    cache_name,
    file_system,
    join,
    object_version,
    read_text,
    scheme,
    shown,
)
from datasets.sources.lrs import list_lrs2, list_lrs3
from datasets.sources.versions import with_versions
from datasets.sources.voxceleb2 import list_voxceleb2

SOURCES = ("folder", "urls", "hdtf", "voxceleb2", "lrs2", "lrs3")
CUT = ("lrs2", "lrs3")
"""Sources whose clips are short, one shot each, and in sync."""
MEDIA = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".webm", ".wmv"),
)
"""An http address whose path ends like this is a file; any other is a page for yt-dlp."""


@dataclass(frozen=True)
class ListOptions:
    """Options of listing."""

    progress: Progress | None = None
    """Called while many small files are read, or many servers asked."""
    ask_servers: bool = True
    """Whether servers are asked if the files of `urls` have changed."""
    addresses: AddressPolicy = field(default_factory=AddressPolicy)
    """Which addresses the lines of `urls` may name."""


def list_source(source: str, input: str, *, options: ListOptions | None = None) -> list[SourceItem]:
    """All items of a source, in a fixed order, with different keys.

    Args:
        source: one of `SOURCES`.
        input: a path, or an address that fsspec opens (http(s) for single lists only).

    Raises:
        UserError: there is no such source, or what it needs is missing or cannot be read; the
            text names the line or file.
    """
    options = options or ListOptions()
    if source == "folder":
        items = list_remote_folder(input) if scheme(input) else list_folder(Path(input))
    elif source == "urls":
        items = list_urls(input, options.addresses)
        if options.ask_servers:
            items = with_versions(items, options.progress, policy=options.addresses)
    elif source == "hdtf":
        items = list_hdtf(input)
    elif source == "voxceleb2":
        items = list_voxceleb2(input, options.progress)
    elif source == "lrs2":
        items = list_lrs2(input)
    elif source == "lrs3":
        items = list_lrs3(input)
    else:
        raise UserError(f"there is no source {source!r}: choose {' or '.join(SOURCES)}")
    return one_side_each(items)


def one_side_each(items: list[SourceItem]) -> list[SourceItem]:
    """The items, each with the split of its speaker.

    Raises:
        UserError: the source puts a speaker into both splits.
    """
    sides: dict[str, str] = {}
    for item in items:
        if item.split and sides.setdefault(item.speaker, item.split) != item.split:
            raise UserError(
                f"speaker {item.speaker} is both in train and in test, for example with "
                f"{item.relative}: leave one of the two out"
            )
    return [
        item
        if item.split == sides.get(item.speaker, "")
        else replace(item, split=sides[item.speaker])
        for item in items
    ]


def list_remote_folder(address: str) -> list[SourceItem]:
    """Every object below an address, like `list_folder` for a folder.

    Raises:
        UserError: the address cannot be listed or is empty.
    """
    if scheme(address) in HTTP:
        raise UserError(
            f"{shown(address)} cannot be listed, since web servers have no standard way to: write "
            "the addresses of the videos into a file and use the source 'urls'"
        )
    files, base = file_system(address)
    try:
        found = files.find(base, detail=True)
    except OSError as error:
        raise UserError(f"{shown(address)} cannot be listed: {error}") from error
    below = {path.removeprefix(base.rstrip("/")).lstrip("/"): path for path in sorted(found)}
    names = {
        name: PurePosixPath(name)
        for name in below
        if name and not any(part.startswith(".") for part in PurePosixPath(name).parts)
    }
    media = {path.with_suffix("") for path in names.values() if path.suffix.lower() not in SIDECARS}
    items = []
    for name, path in names.items():
        if path.suffix.lower() in SIDECARS and path.with_suffix("") in media:
            continue
        info = found[below[name]]
        items.append(
            SourceItem(
                key=name,
                location=files.unstrip_protocol(below[name]),
                relative=name,
                speaker=path.parts[0] if len(path.parts) > 1 else path.stem,
                how=How.FILE,
                expected_bytes=int(info.get("size") or 0),
                version=object_version(info),
            )
        )
    if not items:
        raise UserError(f"{shown(address)} is empty: put videos there, in one folder per speaker")
    return items


def list_urls(listing: str, policy: AddressPolicy | None = None) -> list[SourceItem]:
    """The addresses in a text file, in its order.

    A line is an address, then, separated by spaces (or by tabs, if names have spaces), the
    speaker and the file's sha256, both optional and in any order; `#` begins a comment.
    Addresses are http(s), s3, gs, or paths of files in the list's folder, relative to it; what
    the policy refuses becomes an item that says why. Without a speaker's name a video counts as a
    person of its own, so give names if people appear twice. Addresses that differ only in their
    signature are one.

    Raises:
        UserError: the list is missing or empty, or a line cannot be read.
    """
    policy = policy or AddressPolicy()
    text = read_text(listing, missing=": give a text file with one address per line")
    items: dict[str, SourceItem] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        if not line:
            continue
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        sums = [field.lower() for field in fields[1:] if re.fullmatch(r"[0-9a-fA-F]{64}", field)]
        names = [field for field in fields[1:] if field and field.lower() not in sums]
        if len(names) > 1 or len(sums) > 1:
            raise UserError(
                f"line {number} of {shown(listing)} has {len(fields)} columns: expected an "
                "address, a speaker and a sha256; separate them by tabs if names have spaces"
            )
        item = _url_item(fields[0], listing, policy)
        item = replace(
            item,
            speaker=names[0] if names else item.key,
            sha256=sums[0] if sums else "",
            version=sums[0] if sums else "",
        )
        first = items.setdefault(item.key, item)
        if replace(item, location=first.location) != first:
            raise UserError(
                f"line {number} of {shown(listing)} has {item.key} again, with another speaker "
                "or sha256: keep one of the lines"
            )
    if not items:
        raise UserError(f"{shown(listing)} has no address: give one per line")
    return list(items.values())


def _url_item(address: str, listing: str, policy: AddressPolicy) -> SourceItem:
    name, how, location = _named(address, listing)
    item = SourceItem(name, location, name, name, how)
    try:
        return _checked(item, address, listing, policy)
    except SourceError as error:
        # The name is the one it would have if allowed, so that another policy finds the same item.
        return replace(item, reason=error.reason, detail=error.detail)


def _named(address: str, listing: str) -> tuple[str, How, str]:
    """The name of an address in the ledger, how to get it, and from where."""
    kind = scheme(address)
    if not kind:
        if OPAQUE.match(address):
            return redact(address)[:200], How.LOCAL, address
        # Next to a list on a server it is an address as well, and may be signed.
        return without_signature(address) if scheme(listing) else address, How.LOCAL, address
    whole = re.sub(r"://[^/?#]*@", "://", address)
    if kind == "file":
        return whole, How.LOCAL, address
    rest = whole.split("://", 1)[1]
    path = rest.partition("#")[0].partition("?")[0]
    page = kind in HTTP and not path.lower().endswith(MEDIA)
    if page:
        # Pages differ in their query, which may hold more than that.
        return without_signature(rest), How.PAGE, address
    known = without_signature(whole)
    query = known.partition("#")[0].partition("?")[2]
    name = shown(known).split("://", 1)[1] if _splits(known) else redact(known)[:200]
    return (f"{name}?{cache_name(query)[-8:]}" if query else name), How.FILE, address


def _splits(address: str) -> bool:
    """Whether a text has the form of an address."""
    try:
        return bool(urlsplit(address).netloc)
    except ValueError:
        return False


def _checked(item: SourceItem, address: str, listing: str, policy: AddressPolicy) -> SourceItem:
    """The item of an address, with its place.

    Raises:
        SourceError: the policy refuses it.
    """
    kind = scheme(address)
    if kind == "file":
        parts = urlsplit(address)
        if scheme(listing) or parts.netloc not in ("", "localhost"):
            policy.check(address)
        path = policy.check_path(unquote(parts.path), Path(listing).absolute().parent)
        return replace(item, location=str(path))
    if kind:
        policy.check(address)
        return item
    folder = Path(listing).absolute().parent
    if OPAQUE.match(address) and (scheme(listing) or not (folder / address).exists()):
        policy.check(address)
    if scheme(listing):
        policy.check_name(address)
        return replace(item, location=join(listing.rsplit("/", 1)[0], address), how=How.FILE)
    policy.check_path(address, folder)
    return replace(item, location=str(folder / address))
