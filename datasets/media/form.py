"""How pictures are stored in a file: a source's properties, and those an output can keep."""

import struct
from dataclasses import dataclass, replace
from typing import Any

from datasets.errors import UserError
from datasets.media.colour import (
    BT709,
    RGB,
    SDR,
    UNTAGGED,
    WEIGHTS,
    Colours,
    Tags,
    bits_of,
    colours_of,
    has_alpha,
)

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
"""FFmpeg's names of what can be written, by the file's suffix."""
ALPHA_MODE = "alpha_mode"
"""Matroska's note that a second stream of VP8 or VP9 holds transparency."""
H264, HEVC, VP9, PRORES = "h264", "hevc", "vp9", "prores"
CODECS = {
    H264: ("mp4", "mov", "matroska"),
    HEVC: ("mp4", "mov", "matroska"),
    VP9: ("matroska", "webm"),
    PRORES: ("mov",),
}
"""What can be asked for, and the containers that it can be in."""
MAX_CRF = 51
"""Largest of x264 and x265; VP9's scale goes on to 63, but nobody wants that."""
MASTERING, LIGHT = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"
"""Side data of HDR10: what display it was made on, and how bright it gets."""


@dataclass(frozen=True)
class Kind:
    """Properties of the first picture of a video."""

    colours: Colours = SDR
    bits: int = 8
    alpha: bool = False
    """Whether it stores the transparency of each pixel."""
    interlaced: bool = False
    mastering: str = ""
    """The display that HDR was made on, as x265 writes it; empty if unknown."""
    light: str = ""
    """Brightest pixel and brightest mean of a picture in nits, as x265 writes them."""

    @staticmethod
    def of(frame: Any, tags: Tags = UNTAGGED) -> "Kind":
        """The properties of a decoded frame.

        Raises:
            SourceError: UNREADABLE if its colours cannot be read.
        """
        return Kind(
            colours_of(frame, tags),
            bits_of(frame.format),
            has_alpha(frame.format),
            bool(frame.interlaced_frame),
            _mastering(frame),
            _light(frame),
        )


def _mastering(frame: Any) -> str:
    data = frame.side_data.get(MASTERING)
    if data is None:
        return ""
    # AVMasteringDisplayMetadata: x and y of red, green, blue and white, darkest, brightest; then
    # whether the first eight and the last two are there.
    numbers = struct.unpack("22i", bytes(data)[:88])
    fractions = [numbers[at] / (numbers[at + 1] or 1) for at in range(0, 20, 2)]
    if not (numbers[20] and numbers[21]):
        return ""
    red, green, blue, white = (
        ",".join(str(round(50_000 * value)) for value in fractions[first : first + 2])
        for first in (0, 2, 4, 6)
    )
    darkest, brightest = (round(10_000 * value) for value in fractions[8:])
    return f"G({green})B({blue})R({red})WP({white})L({brightest},{darkest})"


def _light(frame: Any) -> str:
    data = frame.side_data.get(LIGHT)
    return "" if data is None else "{},{}".format(*struct.unpack("2I", bytes(data)[:8]))


@dataclass(frozen=True)
class Form:
    """How pictures are written."""

    pix_fmt: str
    colours: Colours = SDR
    mastering: str = ""
    light: str = ""
    notes: tuple[str, ...] = ()
    """Sentences about properties of the source that are not kept."""
    codec: str = ""
    """One of `CODECS`; empty: what suits the container and the pictures."""

    @property
    def bits(self) -> int:
        """Of a sample."""
        return 10 if self.pix_fmt.endswith("10le") else 8

    @property
    def alpha(self) -> bool:
        """Whether there is a plane of transparency."""
        return self.pix_fmt.startswith("yuva")

    @property
    def halved(self) -> bool:
        """Whether chroma has half the columns and lines."""
        return "420" in self.pix_fmt


def plain_form(width: int, height: int, container: str = "mp4") -> Form:
    """The form of RGB pictures: 8 bits, BT.709. Sizes with an odd side are stored without chroma
    subsampling, which players of H.264 cannot show otherwise; VP9 has no such limit."""
    odd = (width % 2 or height % 2) and container != "webm"
    return Form("yuv444p" if odd else "yuv420p")


def form_for(
    kind: Kind, width: int, height: int, container: str = "mp4", tone_map: bool = False
) -> Form:
    """The form in which an output keeps a source's colours and bits, and transparency if possible.

    Args:
        kind: properties of the source.
        width, height: of the pictures as they are shown, pixels.
        container: one of `CONTAINERS`.
        tone_map: write HDR as SDR.

    Raises:
        UserError: HDR cannot be written into that container.
    """
    form = plain_form(width, height, container)
    notes = []
    hdr = kind.colours.is_hdr and not tone_map
    if hdr and container == "webm":
        raise UserError(
            "HDR cannot be written as .webm: name the output .mp4, .mov or .mkv, or use "
            "--tone-map for an ordinary picture"
        )
    deep = kind.bits > 8 and not (kind.colours.is_hdr and tone_map)
    if kind.interlaced:
        notes.append("the video is interlaced and was deinterlaced")
    if kind.alpha and container == "mov" and not tone_map:
        form = replace(form, pix_fmt="yuva444p10le")
    elif kind.alpha and container in ("webm", "matroska") and not hdr:
        form = replace(form, pix_fmt="yuva420p")
    elif hdr or (deep and container != "webm"):
        form = replace(form, pix_fmt=f"{form.pix_fmt}10le")
    if kind.alpha and not form.alpha:
        notes.append(
            "the video's transparency is lost: .mov keeps it, and .webm and .mkv do for SDR"
        )
    if deep and form.bits == 8:
        notes.append(f"the video's {kind.bits} bits per sample were reduced to 8: .mov keeps 10")
    if kind.colours.is_hdr and tone_map:
        notes.append("the video is HDR and was written as SDR, as requested")
        return replace(form, notes=tuple(notes))
    colours = kind.colours
    if colours.matrix not in WEIGHTS:
        matrix = colours.primaries if hdr and colours.primaries in WEIGHTS else BT709
        colours = replace(colours, matrix=matrix, full=False)
    if kind.colours.matrix == RGB and not hdr:
        colours = SDR
    mastering, light = (kind.mastering, kind.light) if hdr else ("", "")
    return Form(form.pix_fmt, colours, mastering, light, tuple(notes))


def check_coding(codec: str, crf: int, bits: int | None) -> None:
    """Raise a `UserError` for what no encoder does."""
    if codec and codec not in CODECS:
        raise UserError(f"codec must be one of {', '.join(CODECS)}, got {codec!r}")
    if not 0 <= crf <= MAX_CRF:
        raise UserError(f"crf must be between 0 and {MAX_CRF}, got {crf}: lower is better")
    if bits not in (None, 8, 10):
        raise UserError(f"bits must be 8 or 10, got {bits}")


def with_coding(form: Form, container: str, codec: str, bits: int | None) -> Form:
    """A form with another codec or other bits per sample than it would have.

    Args:
        form: as `form_for` gives it.
        container: one of `CONTAINERS`.
        codec: one of `CODECS`; empty: what suits the rest.
        bits: 8 or 10; None: as they are.

    Raises:
        UserError: they do not go together.
    """
    if not codec and bits is None:
        return form
    if codec and container not in CODECS[codec]:
        names = [suffix for suffix, name in CONTAINERS.items() if name in CODECS[codec]]
        raise UserError(f"{codec} cannot be in that file: name the output {' or '.join(names)}")
    if form.alpha:
        own = PRORES if container == "mov" else VP9
        if codec not in ("", own) or bits not in (None, form.bits):
            raise UserError(
                f"the video's transparency is kept by {own} with {form.bits} bits: leave codec "
                "and bits out, or name the output .mp4, which does not keep it"
            )
        return form
    if codec == PRORES:
        if bits == 8:
            raise UserError("prores holds 10 bits: leave bits out, or choose h264")
        return replace(form, pix_fmt="yuv444p10le", codec=codec)
    bits = bits or form.bits
    if bits == 8 and form.colours.is_hdr:
        raise UserError("HDR needs 10 bits: leave bits out, or give --tone-map")
    holds_ten = codec in ("", HEVC) and container != "webm"
    if bits == 10 and not holds_ten:
        raise UserError(
            f"{codec or 'a .webm'} holds 8 bits: choose hevc in .mp4, .mov or .mkv for 10"
        )
    plain = form.pix_fmt.removesuffix("10le")
    return replace(form, pix_fmt=f"{plain}10le" if bits == 10 else plain, codec=codec)
