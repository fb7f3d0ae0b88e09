"""Damaged videos: what disks, networks, broken muxers and liars do to good ones.

    sources = make_sources(folder)
    for mutant in mutants(sources): (folder / mutant.name).write_bytes(mutant.data)

Every mutant depends on its number and the seed alone. The good videos are an mp4 (H.264 and
AAC), an avi (MJPEG and PCM), a Matroska (H.264 and FLAC) and an MPEG transport stream
(MPEG-2 and MP2), each a face that sways with noise for a voice: in the mp4 long enough for a
clip, in the others not.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.support.boxes import patched, with_sps_size
from tests.support.portrait import moving

SIDE = 192
FRAMES = {"mp4": 55, "avi": 25, "mkv": 25, "ts": 25}
COUNT = 200
KINDS = {
    "mp4": ("libx264", "aac", "yuv420p"),
    "avi": ("mjpeg", "pcm_s16le", "yuvj420p"),
    "mkv": ("libx264", "flac", "yuv420p"),
    "ts": ("mpeg2video", "mp2", "yuv420p"),
}
"""Container -> codecs of pictures and sound, and the pictures' format."""

Sources = Mapping[str, bytes]
Rng = np.random.Generator


@dataclass(frozen=True)
class Mutant:
    """A file that is not what it should be."""

    name: str
    """`NUMBER-DAMAGE.SUFFIX`."""
    damage: str
    data: bytes


def make_sources(folder: Path) -> dict[str, bytes]:
    """The good videos, by container."""
    return {kind: _video(folder / f"good.{kind}").read_bytes() for kind in KINDS}


def _video(path: Path) -> Path:
    picture_codec, sound_codec, pixels = KINDS[path.suffix[1:]]
    count = FRAMES[path.suffix[1:]]
    rng = np.random.default_rng(3)
    # Without this, Matroska's numbers and mp4's times differ from run to run.
    with av.open(str(path), "w", options={"fflags": "bitexact"}) as output:
        video: Any = output.add_stream(picture_codec, rate=25)
        video.width = video.height = SIDE
        video.pix_fmt, video.bit_rate = pixels, 600_000
        video.codec_context.thread_count = 1
        if picture_codec == "libx264":
            video.codec_context.options = {"crf": "23", "x264-params": "cpu-independent=1"}
        sound: Any = output.add_stream(sound_codec, rate=44100, layout="mono")
        for index, picture in enumerate(moving(count, SIDE)):
            shown = av.VideoFrame.from_ndarray(picture, format="rgb24")
            shown.pts, shown.time_base = index, Fraction(1, 25)
            output.mux(video.encode(shown))
        output.mux(video.encode(None))
        noise = (rng.normal(0, 3000, (1, 44100 * count // 25))).astype(np.int16)
        step = sound.codec_context.frame_size or 1024
        for start in range(0, noise.shape[1], step):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(noise[:, start : start + step]), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
            output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
    return path


def mutants(sources: Sources, seed: int = 0) -> Iterator[Mutant]:
    """All `COUNT` damaged files, one after the other."""
    makers = [(name, make) for name, (count, make) in FAMILIES.items() for _ in range(count)]
    makers += list(CLAIMS.items())
    assert len(makers) == COUNT, len(makers)
    for number, (damage, make) in enumerate(makers):
        rng = np.random.default_rng([seed, number])
        kind = list(KINDS)[number % len(KINDS)]
        suffix, data = make(sources, kind, rng)
        yield Mutant(f"{number:03d}-{damage}.{suffix}", damage, data)


Made = tuple[str, bytes]
Make = Callable[[Sources, str, Rng], Made]


def _truncated(sources: Sources, kind: str, rng: Rng) -> Made:
    data = sources[kind]
    return kind, data[: int(rng.integers(1, len(data)))]


def _flipped(data: bytes, rng: Rng, start: int, stop: int, bits: int) -> bytes:
    array = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(start, stop, bits)
    np.bitwise_xor.at(array, places, (1 << rng.integers(0, 8, bits)).astype(np.uint8))
    return array.tobytes()


def _header_bits(sources: Sources, kind: str, rng: Rng) -> Made:
    """An mp4 keeps its header at the end, the others at the beginning."""
    data = sources[kind]
    start = data.rfind(b"moov") if kind == "mp4" else 0
    stop = len(data) if kind == "mp4" else min(1200, len(data))
    return kind, _flipped(data, rng, start, stop, int(rng.integers(1, 33)))


def _middle_bits(sources: Sources, kind: str, rng: Rng) -> Made:
    data = sources[kind]
    share = len(data) // 10
    return kind, _flipped(data, rng, share, len(data) - share, int(rng.integers(1, 400)))


def _zeroed(sources: Sources, kind: str, rng: Rng) -> Made:
    data = bytearray(sources[kind])
    for _ in range(int(rng.integers(1, 6))):
        start = int(rng.integers(0, len(data)))
        size = min(int(rng.integers(1, len(data) // 3)), len(data) - start)
        data[start : start + size] = bytes(size)
    return kind, bytes(data)


def _wrong_extension(sources: Sources, kind: str, rng: Rng) -> Made:
    others = ("jpg", "wav", "txt", "mp4", "avi", "mpg", "m3u8", "zip", "h264", "")
    return others[int(rng.integers(len(others)))] or "x", sources[kind]


def _tiny(sources: Sources, kind: str, rng: Rng) -> Made:
    return kind, sources[kind][: int(rng.integers(0, 24))]


def _other(sources: Sources, kind: str, rng: Rng) -> Made:
    """Text, pages, playlists and archives that are called videos."""
    texts = (
        b"no video\n" * 100,
        b"<!DOCTYPE html><html><head><title>403 Forbidden</title></head></html>\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        b"PK\x03\x04" + bytes(200),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff\xff\xff\xff\xff\xff\xff\x08\x02\0\0\0" + bytes(99),
        b"GIF89a\xff\xff\xff\xff\xf7\0\0" + bytes(2000),
        b"\xff" * 5000,
        b"\0" * 100_000,
    )
    return kind, texts[int(rng.integers(len(texts)))]


def _noise(sources: Sources, kind: str, rng: Rng) -> Made:
    """The beginning of a container, then nothing that fits it."""
    start = int(rng.integers(8, 600))
    return kind, sources[kind][:start] + rng.bytes(int(rng.integers(1000, 60_000)))


def _garbage_behind(sources: Sources, kind: str, rng: Rng) -> Made:
    return kind, sources[kind] + rng.bytes(int(rng.integers(1, 1 << 20)))


def _halves_swapped(sources: Sources, kind: str, rng: Rng) -> Made:
    data = sources[kind]
    at = int(rng.integers(len(data) // 4, 3 * len(data) // 4))
    return kind, data[at:] + data[:at]


def _piece_missing(sources: Sources, kind: str, rng: Rng) -> Made:
    data = sources[kind]
    start, stop = sorted(int(place) for place in rng.integers(0, len(data), 2))
    return kind, data[:start] + data[stop:]


def _two_in_one(sources: Sources, kind: str, rng: Rng) -> Made:
    return kind, sources[kind] + sources[list(KINDS)[int(rng.integers(len(KINDS)))]]


FAMILIES: dict[str, tuple[int, Make]] = {
    "truncated": (24, _truncated),
    "header-bits": (32, _header_bits),
    "middle-bits": (20, _middle_bits),
    "zeroed": (20, _zeroed),
    "wrong-extension": (10, _wrong_extension),
    "tiny": (6, _tiny),
    "other": (12, _other),
    "noise": (8, _noise),
    "garbage-behind": (6, _garbage_behind),
    "halves-swapped": (6, _halves_swapped),
    "piece-missing": (8, _piece_missing),
    "two-in-one": (4, _two_in_one),
}
"""Damage by chance: how many files, and how one is made."""


def _boxes(track: int, name: bytes, at: int, value: bytes) -> Make:
    """The mp4 with other bytes in a box of its header."""
    return lambda sources, kind, rng: ("mp4", patched(sources["mp4"], track, name, at, value))


def _sps(width: int, height: int, container: str = "mp4") -> Make:
    return lambda sources, kind, rng: ("mp4", with_sps_size(sources["mp4"], width, height))


def _jpeg_size(width: int, height: int) -> Make:
    """Every picture of the avi claims another size."""
    old = b"\xff\xc0\x00\x11\x08" + SIDE.to_bytes(2, "big") * 2
    new = old[:5] + height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return lambda sources, kind, rng: ("avi", _replaced(sources["avi"], old, new))


def _mpeg2_size(width: int, height: int) -> Make:
    """Every sequence header of the transport stream claims another size (12 bits each)."""
    mark = b"\0\0\x01\xb3"
    old = mark + (SIDE << 12 | SIDE).to_bytes(3, "big")
    new = mark + (width << 12 | height).to_bytes(3, "big")
    return lambda sources, kind, rng: ("ts", _replaced(sources["ts"], old, new))


def _avi_sound(at: int, value: bytes) -> Make:
    """Other bytes in the avi's WAVEFORMATEX: channels at 2, rate at 4, block size at 12."""

    def make(sources: Sources, kind: str, rng: Rng) -> Made:
        data = sources["avi"]
        place = data.index(b"strf", data.index(b"auds")) + 8 + at
        return "avi", data[:place] + value + data[place + len(value) :]

    return make


def _avi_header(stream: bytes, at: int, value: bytes) -> Make:
    """Other bytes in a stream header of the avi: scale at 20, rate at 24, length at 32."""

    def make(sources: Sources, kind: str, rng: Rng) -> Made:
        data = sources["avi"]
        place = data.index(stream) + at
        return "avi", data[:place] + value + data[place + len(value) :]

    return make


def _mkv_size(width: int, height: int) -> Make:
    """PixelWidth and PixelHeight of the Matroska, two bytes each or one."""

    def make(sources: Sources, kind: str, rng: Rng) -> Made:
        data = sources["mkv"]
        for mark, value in ((b"\xb0\x81", width), (b"\xba\x81", height)):
            assert mark + bytes([SIDE]) in data
            # One byte alone would say 255 at most, so the next element is overwritten too.
            data = _replaced(data, mark + bytes([SIDE]), mark[:1] + b"\x82" + bytes([value >> 8]))
        return "mkv", data

    return make


def _replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old in data
    return data.replace(old, new)


VIDEO, SOUND = 0, 1
HUGE = b"\x7f\xff\xff\xff"
MOST = b"\xff\xff\xff\xff"


def _le(value: int) -> bytes:
    return value.to_bytes(4, "little")


CLAIMS: dict[str, Make] = {
    "display-65535": _boxes(VIDEO, b"tkhd", 76, b"\xff\xff\0\0" * 2),
    "display-0": _boxes(VIDEO, b"tkhd", 76, bytes(8)),
    "entry-65535": _boxes(VIDEO, b"avc1", 24, b"\xff\xff\xff\xff"),
    "entry-16384": _boxes(VIDEO, b"avc1", 24, b"\x40\x00\x40\x00"),
    "sps-16384": _sps(16384, 16384),
    "sps-16000": _sps(16000, 16000),
    "sps-12000": _sps(12000, 9000),
    "sps-65536": _sps(65536, 65536),
    "jpeg-65535": _jpeg_size(65535, 65535),
    "jpeg-16000": _jpeg_size(16000, 16000),
    "jpeg-12000": _jpeg_size(12000, 12000),
    "jpeg-1": _jpeg_size(1, 1),
    "jpeg-0": _jpeg_size(0, 0),
    "mpeg2-2048": _mpeg2_size(2048, 2048),
    "mkv-65280": _mkv_size(65280, 65280),
    "movie-length-huge": _boxes(VIDEO, b"mvhd", 16, MOST),
    "movie-clock-0": _boxes(VIDEO, b"mvhd", 12, bytes(4)),
    "video-length-huge": _boxes(VIDEO, b"mdhd", 16, MOST),
    "video-clock-0": _boxes(VIDEO, b"mdhd", 12, bytes(4)),
    "video-clock-1": _boxes(VIDEO, b"mdhd", 12, b"\0\0\0\x01"),
    "sound-clock-1": _boxes(SOUND, b"mdhd", 12, b"\0\0\0\x01"),
    "sound-clock-huge": _boxes(SOUND, b"mdhd", 12, HUGE),
    "samples-most": _boxes(VIDEO, b"stsz", 8, MOST),
    "samples-huge": _boxes(VIDEO, b"stsz", 8, b"\x10\0\0\0"),
    "sound-samples-huge": _boxes(SOUND, b"stsz", 8, b"\x3f\xff\xff\xff"),
    "sample-size-huge": _boxes(VIDEO, b"stsz", 4, HUGE),
    "times-huge": _boxes(VIDEO, b"stts", 4, HUGE),
    "time-step-0": _boxes(VIDEO, b"stts", 12, bytes(4)),
    "time-step-1s": _boxes(VIDEO, b"stts", 8, b"\0\0\0\x37\0\0\x32\0"),
    "time-step-most": _boxes(VIDEO, b"stts", 12, MOST),
    "sound-step-50s": _boxes(SOUND, b"stts", 12, (44100 * 50).to_bytes(4, "big")),
    "chunks-huge": _boxes(VIDEO, b"stco", 4, HUGE),
    "chunk-offset-most": _boxes(VIDEO, b"stco", 8, MOST),
    "chunk-map-huge": _boxes(VIDEO, b"stsc", 4, b"\x0f\xff\xff\xff"),
    "sound-rate-0": _boxes(SOUND, b"mp4a", 24, bytes(4)),
    "sound-rate-65535": _boxes(SOUND, b"mp4a", 24, b"\xff\xff\0\0"),
    "sound-channels-0": _boxes(SOUND, b"mp4a", 16, bytes(2)),
    "sound-channels-most": _boxes(SOUND, b"mp4a", 16, b"\xff\xff"),
    "pcm-rate-0": _avi_sound(4, _le(0)),
    "pcm-rate-1": _avi_sound(4, _le(1)),
    "pcm-rate-50": _avi_sound(4, _le(50)),
    "pcm-rate-most": _avi_sound(4, _le(0xFFFFFFFF)),
    "pcm-channels-255": _avi_sound(2, b"\xff\x00"),
    "avi-clock-0": _avi_header(b"vids", 20, _le(0)),
}
"""Headers that lie, one file each."""
