"""Zip archives read in place: whole, or cut into parts that are only joined virtually.

VoxCeleb2 comes as `vox2_mp4_partaa`, `vox2_mp4_partab` and so on, hundreds of gigabytes that
make one archive when joined. Neither the joined file nor the unpacked members are needed: the
directory is read once, when a source is listed, and each member is then read by its place alone.
"""

import functools
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from datasets.errors import Reason, SourceError, UserError
from datasets.sources.items import Member
from datasets.sources.locations import HTTP, exists, file_system, scheme, shown

PART = re.compile(r"(?P<stem>.+?)(?P<mark>[._-]part|\.zip\.)(?P<number>[a-z]{2}|\d{1,3})")
"""Name of a part: `..._partaa`, `....zip.partaa`, `....part1`, `....zip.001`."""
BLOCK = 1 << 20
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
"""Signature, ..., lengths of name and extra field (APPNOTE.TXT, section 4.3.7)."""


def archives(names: Iterable[str]) -> list[list[str]]:
    """The archives among file names: for each its parts in order (only one if it is whole).

    Raises:
        UserError: a part before the last existing one is missing.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    whole = []
    for name in sorted(names):
        folder, _, base = name.rpartition("/")
        part = PART.fullmatch(base)
        if part:
            series = f"{folder}/{part['stem']}{part['mark']}"
            found.setdefault(series, []).append((part["number"], name))
        elif base.lower().endswith(".zip"):
            whole.append([name])
    joined = []
    for series, parts in found.items():
        parts.sort(key=lambda part: (_number(part[0]), part[0]))
        first = 0 if parts[0][0].isalpha() or _number(parts[0][0]) == 0 else 1
        for expected, (number, _) in enumerate(parts, start=first):
            if _number(number) != expected:
                raise UserError(
                    f"parts of {series}... are missing before {number}: fetch all parts, "
                    "since together they are one archive"
                )
        joined.append([name for _, name in parts])
    return sorted([*whole, *joined])


def _number(suffix: str) -> int:
    if suffix.isdigit():
        return int(suffix)
    return (ord(suffix[0]) - ord("a")) * 26 + ord(suffix[1]) - ord("a")


def parts_of(first: str) -> list[str]:
    """All parts of the archive whose first part is at this path or address, in order.

    Raises:
        UserError: the folder cannot be listed, or a part is missing.
    """
    files, path = file_system(first)
    if not PART.fullmatch(path.rpartition("/")[2]):
        return [first]
    if scheme(first) in HTTP:
        return list(_parts_on_server(first))
    try:
        names = files.ls(path.rpartition("/")[0] or "/", detail=False)
    except OSError as error:
        raise UserError(f"the folder of {shown(first)} cannot be listed: {error}") from error
    mine = [parts for parts in archives(names) if path in parts]
    if not mine:
        return [first]
    return [files.unstrip_protocol(name) for name in mine[0]] if scheme(first) else mine[0]


@functools.lru_cache(maxsize=64)
def _parts_on_server(first: str) -> tuple[str, ...]:
    """Web servers do not list, so parts are asked for one after another until one is missing."""
    part = PART.fullmatch(first)
    assert part is not None
    stem, suffix = first[: part.start("number")], part["number"]
    found = [first]
    while exists(stem + (suffix := _after(suffix))):
        found.append(stem + suffix)
    return tuple(found)


def _after(suffix: str) -> str:
    if suffix.isdigit():
        return f"{int(suffix) + 1:0{len(suffix)}d}"
    number = _number(suffix) + 1
    return chr(ord("a") + number // 26) + chr(ord("a") + number % 26)


@functools.lru_cache(maxsize=256)
def _size_on_server(location: str) -> int:
    files, path = file_system(location)
    size = files.size(path)
    if size is None:
        raise OSError(f"the server does not say how large {shown(location)} is")
    return int(size)


def _size(location: str) -> int:
    """Bytes of a part; a server is asked once, not for every member."""
    if scheme(location) in HTTP:
        return _size_on_server(location)
    files, path = file_system(location)
    return int(files.size(path))


class JoinedFile(io.RawIOBase):
    """Several files read as if they were joined end to end.

    Args:
        locations: paths or addresses, in order.
    """

    def __init__(self, locations: list[str]) -> None:
        self._places = [file_system(location) for location in locations]
        self._starts = [0]
        for location in locations:
            self._starts.append(self._starts[-1] + _size(location))
        self._open: tuple[int, Any] | None = None
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Bytes up to the end of the part that the position is in; 0 at the very end."""
        if self._at >= self._starts[-1] or not len(buffer):
            return 0
        index = max(i for i, start in enumerate(self._starts[:-1]) if start <= self._at)
        # Empty parts are skipped by taking the last one that starts here.
        file = self._part(index)
        file.seek(self._at - self._starts[index])
        data = file.read(min(len(buffer), self._starts[index + 1] - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _part(self, index: int) -> Any:
        if self._open is None or self._open[0] != index:
            self._shut()
            files, path = self._places[index]
            self._open = (index, files.open(path, "rb"))
        return self._open[1]

    def _shut(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def close(self) -> None:
        self._shut()
        super().close()


def list_members(locations: list[str]) -> list[Member]:
    """The files in an archive, in the order of its directory; one that cannot be read
    says why.

    Raises:
        UserError: the parts do not make an archive.
    """
    name = shown(locations[0])
    try:
        joined = io.BufferedReader(JoinedFile(locations), BLOCK)
        with joined, zipfile.ZipFile(joined) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{name} is not a complete zip archive ({error}): fetch it again, and if it comes in "
            f"parts ({len(locations)} found), all of them"
        ) from error
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error}") from error
    return [
        Member(
            info.filename,
            info.header_offset,
            info.compress_size,
            info.file_size,
            info.compress_type,
            info.CRC,
            _problem(info),
        )
        for info in infos
    ]


def _problem(info: zipfile.ZipInfo) -> str:
    """Why a member is refused; empty if it is not."""
    # The name in the archive as well, since Python cuts names at a zero byte.
    for name in (info.filename, info.orig_filename):
        plain = name.replace("\\", "/")
        if plain.startswith("/") or ".." in plain.split("/") or re.match("[A-Za-z]:/", plain):
            return "its name in the archive leads out of it"
        if any(ord(sign) < 32 for sign in name):
            return "its name in the archive holds characters that are not text"
    if info.flag_bits & 1:
        return "it is encrypted in the archive"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "it is packed in a way other than stored or deflated"
    return ""


def read_member(locations: list[str], member: Member) -> Iterator[bytes]:
    """The bytes of a member, block by block.

    Raises:
        SourceError: they are not what the directory says, or are missing.
    """
    with JoinedFile(locations) as raw, io.BufferedReader(raw, BLOCK) as joined:
        joined.seek(member.offset)
        head = joined.read(LOCAL_HEADER.size)
        if len(head) < LOCAL_HEADER.size or head[:4] != b"PK\x03\x04":
            raise SourceError(Reason.UNREADABLE, f"{member.name} is not where the archive says")
        *_, name_length, extra_length = LOCAL_HEADER.unpack(head)
        joined.seek(name_length + extra_length, io.SEEK_CUR)
        left, size, crc = member.packed_bytes, 0, 0
        unpack = None if member.method == zipfile.ZIP_STORED else zlib.decompressobj(-15)
        while left > 0 and size <= member.bytes:
            packed = joined.read(min(BLOCK, left))
            if not packed:
                break
            left -= len(packed)
            for block in (packed,) if unpack is None else _inflate(unpack, packed, member):
                size, crc = size + len(block), zlib.crc32(block, crc)
                if size > member.bytes:
                    break
                yield block
    if left or size != member.bytes or crc != member.crc32:
        text = f"{member.name} is damaged in the archive ({size} of {member.bytes} bytes)"
        raise SourceError(Reason.UNREADABLE, text)


def _inflate(unpack: Any, packed: bytes, member: Member) -> Iterator[bytes]:
    """Unpacked blocks of bounded size, however small the packed ones are."""
    try:
        full = True
        # A full block may be followed by more even if no input is left.
        while packed or full:
            block = unpack.decompress(packed, BLOCK)
            packed, full = unpack.unconsumed_tail, len(block) == BLOCK
            yield block
    except zlib.error as error:
        text = f"{member.name} is damaged in the archive ({error})"
        raise SourceError(Reason.UNREADABLE, text) from error
