"""The boxes of an mp4, and the sequence parameter set of its H.264, opened to be falsified."""

from collections.abc import Iterator
from dataclasses import dataclass

HOLDERS = {
    b"moov": 8,
    b"trak": 8,
    b"mdia": 8,
    b"minf": 8,
    b"stbl": 8,
    b"stsd": 16,
    b"avc1": 86,
}
"""Boxes that hold boxes, and the bytes before the first of them."""


@dataclass(frozen=True)
class Box:
    """The place of a box; `start` is that of its size field."""

    name: bytes
    start: int
    size: int
    parents: tuple["Box", ...]


def boxes(
    data: bytes, start: int = 0, stop: int = -1, parents: tuple[Box, ...] = ()
) -> Iterator[Box]:
    """All boxes of a file with sound sizes, parents first."""
    stop = len(data) if stop < 0 else stop
    while start + 8 <= stop:
        size = int.from_bytes(data[start : start + 4], "big")
        box = Box(data[start + 4 : start + 8], start, size, parents)
        yield box
        if box.name in HOLDERS:
            yield from boxes(data, start + HOLDERS[box.name], start + size, (*parents, box))
        start += size


def find(data: bytes, track: int, name: bytes) -> Box:
    """A box of track number `track`; of the file where there is just one of that name."""
    found = [box for box in boxes(data) if box.name == name]
    return found[min(track, len(found) - 1)]


def patched(data: bytes, track: int, name: bytes, at: int, value: bytes) -> bytes:
    """The file with `value` at byte `at` behind the name of a box."""
    place = find(data, track, name).start + 8 + at
    return data[:place] + value + data[place + len(value) :]


def with_sps_size(data: bytes, width: int, height: int) -> bytes:
    """The file with pictures that claim to be of `width` by `height`, multiples of 16.

    The header must lie behind the pictures, whose places then stay.
    """
    box = find(data, 0, b"avcC")
    start = box.start + 8 + 6
    length = int.from_bytes(data[start : start + 2], "big")
    old = data[start + 2 : start + 2 + length]
    new = _resized(old, width // 16, height // 16)
    grown = len(new) - len(old)
    out = bytearray(data)
    for each in (*box.parents, box):
        out[each.start : each.start + 4] = (each.size + grown).to_bytes(4, "big")
    out[start : start + 2] = len(new).to_bytes(2, "big")
    out[start + 2 : start + 2 + length] = new
    return bytes(out)


class _Bits:
    """Reads the codes of ITU-T H.264, 9.1."""

    def __init__(self, bits: str) -> None:
        self.bits, self.at = bits, 0

    def take(self, count: int) -> int:
        self.at += count
        return int(self.bits[self.at - count : self.at], 2)

    def golomb(self) -> int:
        zeros = self.bits.index("1", self.at) - self.at
        self.at += zeros
        return self.take(zeros + 1) - 1


def _resized(sps: bytes, columns: int, rows: int) -> bytes:
    """A sequence parameter set (ITU-T H.264, 7.3.2.1.1) with another size in macroblocks."""
    raw = sps.replace(b"\0\0\x03", b"\0\0")
    bits = _Bits("".join(f"{byte:08b}" for byte in raw))
    bits.take(8)
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile >= 100:
        assert bits.golomb() == 1, "4:2:0 is expected"
        bits.golomb()
        bits.golomb()
        assert bits.take(2) == 0, "no scaling matrix is expected"
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    assert order != 1
    bits.golomb()
    bits.take(1)
    before = bits.at
    bits.golomb()
    bits.golomb()
    size = _golomb(columns - 1) + _golomb(rows - 1)
    rest = bits.bits[bits.at :].rstrip("0")
    text = bits.bits[:before] + size + rest
    text += "0" * (-len(text) % 8)
    content = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))
    return _escaped(content)


def _golomb(value: int) -> str:
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits


def _escaped(content: bytes) -> bytes:
    """With the byte 3 after two zeros where a start code could be read into it."""
    out = bytearray()
    for byte in content:
        if byte <= 3 and out[-2:] == b"\0\0":
            out.append(3)
        out.append(byte)
    return bytes(out)
