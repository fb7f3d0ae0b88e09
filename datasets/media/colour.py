"""What the numbers of a decoded frame mean as colours, and their conversion to RGB.

Tags in the file say so. Without tags it is read as players read it: large pictures as
BT.709, small ones as BT.601. FFmpeg's own conversion takes everything untagged for BT.601, so
frames are converted only here.

Numbers of matrices, transfers and primaries are those of ITU-T H.273, which FFmpeg uses as well.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from datasets.errors import Reason, SourceError
from datasets.media.hdr import HLG, PQ, to_sdr

UNSPECIFIED, RESERVED = 2, 3
RGB, BT709, FCC, BT470BG, SMPTE170M, SMPTE240M, YCGCO, BT2020 = 0, 1, 4, 5, 6, 7, 8, 9
LIMITED, FULL = 1, 2
"""FFmpeg's numbers for levels of 16 to 235 and of 0 to 255."""
HD_WIDTH, HD_HEIGHT = 1280, 576
"""Pictures at least this wide, or higher than this, are BT.709 unless tagged otherwise."""
PAL_HEIGHT, NTSC_HEIGHTS = 576, (480, 486, 488)
"""Lines of the two television systems, whose primaries differ."""
WEIGHTS = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}
"""Weights of red and blue in luma, H.273 table 4."""
OTHERS = {
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085 (Y'D'zD'x)",
    12: "a matrix derived from the primaries",
    13: "a matrix derived from the primaries, with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
"""Matrices that cannot be read."""
SAME_AS_FFMPEG = {BT470BG: 5, SMPTE170M: 5}
"""swscale's number of a matrix, if it differs."""


@dataclass(frozen=True)
class Tags:
    """What a stream or a frame says about its colours."""

    matrix: int = UNSPECIFIED
    range: int = 0
    transfer: int = UNSPECIFIED
    primaries: int = UNSPECIFIED

    @staticmethod
    def of(source: Any) -> "Tags":
        """The tags of a frame, or of a codec's context."""
        return Tags(source.colorspace, source.color_range, source.color_trc, source.color_primaries)


UNTAGGED = Tags()


@dataclass(frozen=True)
class Colours:
    """What the numbers of a frame mean."""

    matrix: int
    """Between RGB and what is stored; `RGB` where that is RGB itself."""
    full: bool
    """Whether black and white are the smallest and largest number."""
    transfer: int
    primaries: int

    @property
    def is_hdr(self) -> bool:
        """Whether there are brighter colours than white."""
        return self.transfer in (PQ, HLG)

    @property
    def range(self) -> int:
        """FFmpeg's number for `full`."""
        return FULL if self.full else LIMITED


SDR = Colours(BT709, False, BT709, BT709)
"""The colours to write if there are no others to keep."""


def colours_of(frame: Any, stream: Tags = UNTAGGED) -> Colours:
    """The colours of a decoded frame, not yet cropped or rotated.

    Args:
        frame: frame from the decoder.
        stream: tags of all frames; a frame's own tags take precedence.

    Raises:
        SourceError: UNREADABLE if the matrix cannot be read.
    """
    own, name = Tags.of(frame), frame.format.name
    if own.matrix in OTHERS:
        raise SourceError(
            Reason.UNREADABLE,
            f"its colours are stored as {OTHERS[own.matrix]}, which cannot be read: convert it to "
            "BT.709 first",
        )
    matrix, transfer, primaries = (
        _said(first, second)
        for first, second in (
            (own.matrix, stream.matrix),
            (own.transfer, stream.transfer),
            (own.primaries, stream.primaries),
        )
    )
    range_ = own.range or stream.range
    large = frame.width >= HD_WIDTH or frame.height > HD_HEIGHT
    if is_rgb(frame.format) or is_grey(frame.format):
        full = range_ != LIMITED
        matrix = RGB if is_rgb(frame.format) else matrix
    else:
        full = range_ == FULL or name.startswith("yuvj")
    if matrix in (UNSPECIFIED, RESERVED) or (matrix not in WEIGHTS and matrix not in (RGB, YCGCO)):
        wide = primaries == BT2020 or transfer in (PQ, HLG)
        matrix = BT2020 if wide else BT709 if large else SMPTE170M
    if primaries == UNSPECIFIED:
        primaries = _primaries_for(matrix, frame.height)
    if transfer == UNSPECIFIED:
        transfer = BT709
    return Colours(matrix, full, transfer, primaries)


def _said(first: int, second: int) -> int:
    return second if first in (UNSPECIFIED, RESERVED) else first


def _primaries_for(matrix: int, height: int) -> int:
    if matrix == BT2020:
        return BT2020
    if matrix in (BT470BG, SMPTE170M, FCC):
        if height == PAL_HEIGHT:
            return BT470BG
        if height in NTSC_HEIGHTS:
            return SMPTE170M
    return BT709


def is_rgb(form: Any) -> bool:
    """Whether a pixel format holds red, green and blue, or indices into a palette of them."""
    return bool(form.is_rgb) or form.has_palette


def is_grey(form: Any) -> bool:
    """Whether a pixel format holds only luma, with or without transparency."""
    return not is_rgb(form) and len(form.components) < 3


def has_alpha(form: Any) -> bool:
    """Whether a pixel format tells how transparent each pixel is."""
    return any(component.is_alpha for component in form.components)


def bits_of(form: Any) -> int:
    """Bits of a sample."""
    return max(component.bits for component in form.components)


def matrix_of(matrix: int) -> NDArray[np.float64]:
    """(3, 3) from R'G'B' to Y'CbCr, with Y' in [0, 1] and chroma in [-0.5, 0.5]."""
    if matrix == YCGCO:
        # H.273 equations 58 to 60, in the order of the planes: Y, Cg, Co.
        return np.array([[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0, -0.5]])
    red, blue = WEIGHTS[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack(
        [
            luma,
            (np.array([0, 0, 1.0]) - luma) / (2 * (1 - blue)),
            (np.array([1.0, 0, 0]) - luma) / (2 * (1 - red)),
        ]
    )


def levels(full: bool, bits: int) -> tuple[float, float, float, float]:
    """The number stored for black and what white adds to it, and the same for chroma's middle and
    its whole range."""
    one = float(2 ** (bits - 8))
    most = float(2**bits - 1)
    if full:
        return 0.0, most, 128 * one, most
    return 16 * one, 219 * one, 128 * one, 224 * one


def can_scale(colours: Colours) -> bool:
    """Whether swscale knows the matrix of what is stored as luma and chroma."""
    return colours.matrix in WEIGHTS


def swscale_matrix(matrix: int) -> int:
    """The number that PyAV's reformatter has for a matrix."""
    return SAME_AS_FFMPEG.get(matrix, matrix)


def to_rgb(frame: Any, colours: Colours, by: VideoReformatter) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) of a frame or a part of one, not rotated; HDR as SDR.

    Args:
        frame: frame from the decoder.
        colours: the meaning of its numbers.
        by: swscale's set-up, reused for frames of the same kind.
    """
    if colours.is_hdr:
        return to_sdr(_rgb48(frame, colours, by), colours.transfer, colours.primaries == BT2020)
    # More threads would only wait for each other, since this takes a fraction of a millisecond.
    if is_rgb(frame.format) or is_grey(frame.format):
        rgb = by.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return rgb if colours.full else STRETCHED[rgb]  # type: ignore[return-value]
    if not can_scale(colours):
        return _by_matrix(frame, colours, by)
    converted: NDArray[np.uint8] = by.reformat(  # type: ignore[assignment]
        frame,
        format="rgb24",
        src_colorspace=swscale_matrix(colours.matrix),
        src_color_range=colours.range,
        threads=1,
    ).to_ndarray()
    return converted


STRETCHED = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
"""Levels of 16 to 235 as levels of 0 to 255."""


def _rgb48(frame: Any, colours: Colours, by: VideoReformatter) -> NDArray[np.uint16]:
    if is_rgb(frame.format) or is_grey(frame.format):
        return by.reformat(frame, format="rgb48le", threads=1).to_ndarray()  # type: ignore[return-value]
    if bits_of(frame.format) <= 8 or not can_scale(colours):
        # swscale converts 8 bits to 16-bit numbers that are too small.
        plain = replace(colours, transfer=BT709)
        return to_rgb(frame, plain, by).astype(np.uint16) * np.uint16(257)
    deep: NDArray[np.uint16] = by.reformat(  # type: ignore[assignment]
        frame,
        format="rgb48le",
        src_colorspace=swscale_matrix(colours.matrix),
        src_color_range=colours.range,
        threads=1,
    ).to_ndarray()
    return deep


def _by_matrix(frame: Any, colours: Colours, by: VideoReformatter) -> NDArray[np.uint8]:
    """The same for matrices that swscale does not have: green, blue and red as planes, and
    YCgCo."""
    bits = bits_of(frame.format)
    deep = "yuv444p" if bits == 8 else f"yuv444p{max(bits, 10)}le"
    # The same matrix on both sides, so only the chroma is enlarged.
    same = by.reformat(
        frame,
        format=deep,
        src_colorspace=BT709,
        dst_colorspace=BT709,
        src_color_range=colours.range,
        dst_color_range=colours.range,
        threads=1,
    )
    black, white, middle, _ = levels(colours.full, max(bits, 10) if bits > 8 else 8)
    first, second, third = (plane.astype(np.float32) for plane in planes_of(same))
    if colours.matrix == RGB:
        rgb = (np.stack([third, first, second], axis=-1) - black) / white
    else:
        stored = np.stack(
            # H.273 computes YCgCo from the numbers of R, G and B: all three have luma's range.
            [(first - black) / white, (second - middle) / white, (third - middle) / white],
            axis=-1,
        )
        rgb = stored @ np.linalg.inv(matrix_of(colours.matrix)).T.astype(np.float32)
    return np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)


def planes_of(frame: Any) -> list[NDArray[Any]]:
    """The planes of a planar frame, views of its memory; uint8, or uint16 for deeper ones."""
    kind = np.dtype(np.uint8) if bits_of(frame.format) <= 8 else np.dtype(np.uint16)
    return [
        np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)[:, : plane.width]
        for plane in frame.planes
    ]
