"""Small videos whose stored numbers are given: planes, tags, display matrix, codec."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""What red and blue count in luma: BT.709, BT.601 twice, BT.2020."""


def stored(
    rgb: tuple[float, ...], matrix: int, full: bool = False, bits: int = 8
) -> tuple[int, int, int]:
    """Y, Cb and Cr of a colour in levels of 0 to 255, by the definitions in BT.601 and BT.709."""
    red, green, blue = (value / 255 for value in rgb)
    of_red, of_blue = MATRICES[matrix]
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    cb, cr = (blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)
    one = 2 ** (bits - 8)
    if full:
        most = 2**bits - 1
        return round(luma * most), round(cb * most + 128 * one), round(cr * most + 128 * one)
    return (
        round((16 + 219 * luma) * one),
        round((128 + 224 * cb) * one),
        round((128 + 224 * cr) * one),
    )


def flat_frame(values: tuple[int, ...], width: int, height: int, form: str) -> av.VideoFrame:
    """A frame whose planes are filled with one number each."""
    frame = av.VideoFrame(width, height, form)
    for plane, value in zip(frame.planes, values, strict=True):
        plane_of(frame, plane)[:] = value
    return frame


def frame_of(planes: list[np.ndarray], width: int, height: int, form: str) -> av.VideoFrame:
    """A frame of given planes."""
    frame = av.VideoFrame(width, height, form)
    for plane, values in zip(frame.planes, planes, strict=True):
        plane_of(frame, plane)[:] = values
    return frame


def plane_of(frame: Any, plane: Any) -> np.ndarray:
    """A plane's numbers, writable."""
    kind = np.dtype(np.uint16 if frame.format.components[0].bits > 8 else np.uint8)
    rows = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)
    return rows[:, : plane.width]


def planes_of(frame: Any) -> list[np.ndarray]:
    """All planes of a frame, copied."""
    return [plane_of(frame, plane).copy() for plane in frame.planes]


def write_coded(
    path: Path,
    frames: list[av.VideoFrame],
    codec: str = "ffv1",
    rate: Fraction | int = 25,
    *,
    matrix: int = 2,
    full: bool | None = None,
    transfer: int = 2,
    primaries: int = 2,
    display: tuple[int, ...] | None = None,
    options: dict[str, str] | None = None,
    flags: int = 0,
    metadata: dict[str, str] | None = None,
    times: list[int] | None = None,
    time_base: Fraction | None = None,
) -> Path:
    """Write frames as they are; tags that are not given are not written."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        context = stream.codec_context
        context.options = options or {}
        context.flags |= flags
        context.colorspace, context.color_trc, context.color_primaries = matrix, transfer, primaries
        if full is not None:
            context.color_range = 2 if full else 1
        if display is not None:
            stream.set_display_matrix(display)
        stream.metadata.update(metadata or {})
        base = time_base or 1 / Fraction(rate)
        if time_base:
            stream.time_base = context.time_base = time_base
        for index, frame in enumerate(frames):
            frame.colorspace, frame.color_trc, frame.color_primaries = matrix, transfer, primaries
            if full is not None:
                frame.color_range = 2 if full else 1
            frame.pts, frame.time_base = times[index] if times else index, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


ONE = 1 << 16
DISPLAYS = {
    "upright": (ONE, 0, 0, ONE),
    "left and right swapped": (-ONE, 0, 0, ONE),
    "top and bottom swapped": (ONE, 0, 0, -ONE),
    "half a turn": (-ONE, 0, 0, -ONE),
    "a quarter to the right": (0, ONE, -ONE, 0),
    "a quarter to the left": (0, -ONE, ONE, 0),
    "rows as columns": (0, ONE, ONE, 0),
    "rows as columns, half a turn": (0, -ONE, -ONE, 0),
}
"""a, b, c, d of a display matrix: a point (x, y) is shown at (a x + c y, b x + d y)."""


def display_matrix(a: int, b: int, c: int, d: int) -> tuple[int, ...]:
    """All nine numbers."""
    return (a, b, 0, c, d, 0, 0, 0, 1 << 30)


def shown(picture: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """A picture as a display matrix of whole quarters says, pixel by pixel."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    x = (np.sign(a) * columns + np.sign(c) * rows).ravel()
    y = (np.sign(b) * columns + np.sign(d) * rows).ravel()
    x, y = x - x.min(), y - y.min()
    out = np.zeros((y.max() + 1, x.max() + 1, *picture.shape[2:]), picture.dtype)
    out[y, x] = picture.reshape(-1, *picture.shape[2:])
    return out
