"""A decoded picture of which only the requested parts are converted to RGB.

Converting a whole 1080p frame costs as much as finding the landmarks of a face in it, and more
for 4K. A `Picture` keeps the decoder's frame and converts a piece, or a small copy, on
request; the values are the same as in the whole converted frame.
"""

from dataclasses import dataclass, field
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from datasets.media.colour import BT709, RGB, UNTAGGED, Colours, Tags, colours_of, planes_of, to_rgb

PLANAR = ("yuv420p", "yuvj420p")
"""Pixel formats whose pieces are converted on their own; they cover nearly all video."""
WHOLE_BELOW = 500_000
"""Pixels of a frame up to which converting all of it is as cheap as converting a piece."""
SMALL_WIDTH = 256
"""Width of the small copy, pixels: the width to which PySceneDetect shrinks frames."""
STEP = 64
"""Pieces are a multiple of this wide and high, so that few sizes occur."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, pixels."""


@dataclass(frozen=True)
class Piece:
    """A part of a picture."""

    rgb: NDArray[np.uint8]
    """(h, w, 3)."""
    left: int
    """First column in the picture."""
    top: int
    """First row in the picture."""

    def covers(self, box: Box) -> bool:
        """Whether the whole pixels of a box lie inside."""
        height, width = self.rgb.shape[:2]
        return (
            self.left <= box[0]
            and self.top <= box[1]
            and self.left + width >= box[2]
            and self.top + height >= box[3]
        )


@dataclass(frozen=True)
class Turn:
    """How a stored picture is brought upright: one of the eight orientations of a square."""

    transposed: bool = False
    """Whether rows become columns, before mirroring."""
    rows_back: bool = False
    columns_back: bool = False

    def __call__(self, plane: NDArray[Any]) -> NDArray[Any]:
        """A plane (h, w) or picture (h, w, 3) upright; a view."""
        if self.transposed:
            plane = plane.swapaxes(0, 1)
        return plane[:: -1 if self.rows_back else 1, :: -1 if self.columns_back else 1]


UPRIGHT = Turn()


def turn_of(frame: Any) -> Turn:
    """The orientation by the display matrix of a decoded frame, to the nearest quarter turn."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return UPRIGHT
    # A point (x, y) of the stored picture is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(side_data), np.int32)[:5].tolist()
    straight = (abs(a) + abs(d), Turn(False, d < 0, a < 0))
    across = (abs(b) + abs(c), Turn(True, b < 0, c < 0))
    return straight[1] if straight[0] >= across[0] else across[1]


@dataclass
class Converter:
    """swscale's set-up for the latest sizes, shared by a video's pictures."""

    tags: Tags = UNTAGGED
    """What the stream says about its colours."""
    whole: VideoReformatter = field(default_factory=VideoReformatter)
    pieces: VideoReformatter = field(default_factory=VideoReformatter)
    small: VideoReformatter = field(default_factory=VideoReformatter)
    _known: dict[tuple[Any, ...], Colours] = field(default_factory=dict)

    def colours(self, frame: Any) -> Colours:
        """`colours_of` a frame; nearly all frames of a video have the same."""
        key = (frame.format.name, frame.width, frame.height, Tags.of(frame))
        if key not in self._known:
            self._known[key] = colours_of(frame, self.tags)
        return self._known[key]


class Picture:
    """One frame of a video.

    Args:
        frame: frame from the decoder.
        converter: shared by the pictures of a video, so that set-up is not repeated.

    Raises:
        SourceError: UNREADABLE if its colours cannot be read.
    """

    def __init__(self, frame: Any, converter: Converter | None = None) -> None:
        self.frame: Any = frame
        self.converter = converter or Converter()
        self.colours = self.converter.colours(frame)
        self.turn = turn_of(frame)
        self._pieces: list[Piece] = []
        self._whole: NDArray[np.uint8] | None = None
        self._small: NDArray[np.uint8] | None = None
        width, height = frame.width, frame.height
        self.width, self.height = (height, width) if self.turn.transposed else (width, height)

    def size_with(self, pixel: float) -> tuple[int, int]:
        """Width and height after making pixels square that are `pixel` times as wide as high."""
        if pixel == 1:
            return self.width, self.height
        if self.turn.transposed:
            return self.width, _even(self.height * pixel)
        return _even(self.width * pixel), self.height

    @staticmethod
    def of(image: "np.ndarray | Picture") -> "Picture":
        """A picture from one, or from uint8 (h, w, 3)."""
        return image if isinstance(image, Picture) else _ArrayPicture(image)

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The whole picture, uint8 (height, width, 3), rotated by the display matrix."""
        if self._whole is None:
            rgb = to_rgb(self.frame, self.colours, self.converter.whole)
            self._whole = np.ascontiguousarray(self.turn(rgb))
        return self._whole

    def piece(self, box: Box) -> Piece:
        """A part that holds at least the area of a box that is inside the picture."""
        if self._whole is None and not self._in_parts():
            self.rgb  # noqa: B018 - converts it
        if self._whole is not None:
            return Piece(self._whole, 0, 0)
        box = (
            min(max(box[0], 0), self.width - 1),
            min(max(box[1], 0), self.height - 1),
            max(min(box[2], self.width), 1),
            max(min(box[3], self.height), 1),
        )
        for piece in self._pieces:
            if piece.covers(box):
                return piece
        left, width = _span(box[0], box[2], self.width)
        top, height = _span(box[1], box[3], self.height)
        piece = Piece(self._converted(left, top, width, height), left, top)
        self._pieces.append(piece)
        return piece

    def small(self) -> NDArray[np.uint8]:
        """A copy about `SMALL_WIDTH` wide, uint8 (h, w, 3); itself if it is no wider."""
        if self._small is None:
            self._small = self._shrunk()
        return self._small

    def _shrunk(self) -> NDArray[np.uint8]:
        if self.width <= SMALL_WIDTH:
            return self.rgb
        size = (SMALL_WIDTH, max(2, round(self.height * SMALL_WIDTH / self.width / 2) * 2))
        if self._whole is not None or not self._in_parts():
            return cv2.resize(self.rgb, size, interpolation=cv2.INTER_LINEAR)
        picture = av.VideoFrame(*size, "yuv420p")
        for number, plane in enumerate(planes_of(self.frame)):
            side = size if number == 0 else (size[0] // 2, size[1] // 2)
            shrunk = cv2.resize(plane, side, interpolation=cv2.INTER_LINEAR)
            _writable(picture, number)[: side[1], : side[0]] = shrunk
        return to_rgb(picture, self.colours, self.converter.small)

    def _in_parts(self) -> bool:
        return (
            self.turn == UPRIGHT
            and self.width % 2 == self.height % 2 == 0
            and self.width * self.height > WHOLE_BELOW
            and self.frame.format.name in PLANAR
        )

    def _converted(self, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """A part that begins at an even row and column, where chroma has its pixels."""
        part = av.VideoFrame(width, height, "yuv420p")
        for number, plane in enumerate(planes_of(self.frame)):
            each = 1 if number == 0 else 2
            rows, columns = (
                slice(top // each, (top + height) // each),
                slice(left // each, (left + width) // each),
            )
            _writable(part, number)[: height // each, : width // each] = plane[rows, columns]
        return to_rgb(part, self.colours, self.converter.pieces)


class _ArrayPicture(Picture):
    """A picture that is RGB already."""

    def __init__(self, rgb: NDArray[np.uint8]) -> None:
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise ValueError(f"a picture is uint8 (h, w, 3), got {rgb.dtype} {rgb.shape}")
        self._whole = rgb
        self._small = None
        self.frame = None
        self.colours = Colours(RGB, True, BT709, BT709)
        self.turn = UPRIGHT
        self.height, self.width = rgb.shape[:2]


class FittedPicture(Picture):
    """A picture scaled to another size, with black at the sides.

    Args:
        picture: the stored picture.
        shape: width and height that it should have.
        size: width and height of what it is fitted into.
    """

    def __init__(self, picture: Picture, shape: tuple[int, int], size: tuple[int, int]) -> None:
        self.picture, self.shape = picture, shape
        self.frame, self.colours, self.turn = None, picture.colours, UPRIGHT
        self.width, self.height = size
        self._whole = None
        self._small = None

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The whole picture, uint8 (height, width, 3)."""
        if self._whole is None:
            self._whole = fitted(self.picture.rgb, self.shape, (self.width, self.height))
        return self._whole

    def _in_parts(self) -> bool:
        return False


class OneShape:
    """Gives all pictures of a video the size of the first one.

    Recordings of calls change size with the network, and shape when a phone is turned: later
    pictures are scaled to fit, with black at the sides, so that faces are not stretched.

    Args:
        pixel: width of a pixel over its height; unless it is 1, pictures are widened, or
            heightened if they are upright, until pixels are square.
    """

    def __init__(self, pixel: float = 1.0) -> None:
        self._pixel = pixel
        self._size: tuple[int, int] | None = None

    def __call__(self, picture: Picture) -> Picture:
        """The fitted picture; the picture itself if it already fits."""
        width, height = picture.size_with(self._pixel)
        self._size = self._size or (width, height)
        if (picture.width, picture.height) == (width, height) == self._size:
            return picture
        return FittedPicture(picture, (width, height), self._size)


def size_of(frame: Any, pixel: float, tags: Tags = UNTAGGED) -> tuple[int, int]:
    """Width and height of a decoded frame, upright and with square pixels.

    Args:
        frame: frame from the decoder.
        pixel: width of a pixel over its height.
        tags: what its stream says about its colours.

    Raises:
        SourceError: UNREADABLE if its colours cannot be read.
    """
    return Picture(frame, Converter(tags)).size_with(pixel)


def _even(length: float) -> int:
    return max(2, round(length / 2) * 2)


def placed(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of a picture of width and height `shape`, as large as
    fits into the middle of `size`."""
    scale = min(size[0] / shape[0], size[1] / shape[1])
    width, height = (max(1, min(round(n * scale), m)) for n, m in zip(shape, size, strict=True))
    return (size[0] - width) // 2, (size[1] - height) // 2, width, height


def fitted(
    rgb: NDArray[np.uint8], shape: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """A picture of width and height `shape`, fitted into one of `size`."""
    left, top, width, height = placed(shape, size)
    inside = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    framed = np.zeros((size[1], size[0], 3), np.uint8)
    framed[top : top + height, left : left + width] = inside
    return framed


def _span(low: float, high: float, limit: int) -> tuple[int, int]:
    """Even start and length, a multiple of `STEP` if possible, of a range that covers low to high.

    The limit is even."""
    length = min(-(-(int(np.ceil(high)) - int(low) + 6) // STEP) * STEP, limit)
    start = int((low + high - length) / 2)
    return min(max(start, 0), limit - length) // 2 * 2, length


def _writable(frame: Any, number: int) -> NDArray[np.uint8]:
    plane = frame.planes[number]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
