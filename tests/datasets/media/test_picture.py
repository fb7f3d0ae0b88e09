"""Pieces of decoded frames: the same values as in the whole frame, whatever part is asked for."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from datasets.media import Picture
from datasets.media.picture import SMALL_WIDTH, WHOLE_BELOW, Converter, OneShape


def decoded(width: int, height: int, form: str = "yuv420p", colours: int = 1) -> av.VideoFrame:
    """A frame as a decoder gives it: smooth colours and some grain."""
    rng = np.random.default_rng(width)
    coarse = rng.integers(0, 255, (9, 16, 3), np.uint8)
    rgb = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    rgb = np.clip(rgb + rng.integers(-9, 9, rgb.shape), 0, 255).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=form)
    frame.colorspace = colours
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    return frame


@pytest.mark.parametrize(
    ("width", "height", "form"),
    [(1280, 720, "yuv420p"), (1080, 1920, "yuvj420p"), (1002, 778, "yuv420p")],
)
def test_pieces_equal_the_whole(width: int, height: int, form: str) -> None:
    frame = decoded(width, height, form)
    whole = frame.to_ndarray(format="rgb24")
    rng = np.random.default_rng(0)
    converter = Converter()
    for _ in range(40):
        picture = Picture(frame, converter)
        x, y = rng.uniform(-60, width - 2), rng.uniform(-60, height - 2)
        box = (x, y, x + rng.uniform(1, 700), y + rng.uniform(1, 700))
        piece = picture.piece(box)
        inside = (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))
        assert piece.covers(inside)
        rows, columns = piece.rgb.shape[:2]
        assert rows * columns < width * height
        part = whole[piece.top : piece.top + rows, piece.left : piece.left + columns]
        assert (part == piece.rgb).all()


def test_a_piece_is_converted_once() -> None:
    picture = Picture(decoded(1280, 720))
    first = picture.piece((300, 200, 500, 400))
    assert picture.piece((310, 210, 490, 390)) is first
    assert picture.piece((700, 200, 900, 400)) is not first


@pytest.mark.parametrize(
    ("width", "form"),
    [(1280, "yuv422p"), (1280, "yuv420p10le"), (1280, "rgb24"), (1280, "nv12"), (1281, "yuv420p")],
)
def test_other_frames_are_converted_whole(width: int, form: str) -> None:
    frame = decoded(width, 720, form)
    piece = Picture(frame).piece((10, 10, 50, 50))
    assert (piece.left, piece.top) == (0, 0)
    assert (piece.rgb == frame.to_ndarray(format="rgb24")).all()


def test_small_frames_are_converted_whole() -> None:
    frame = decoded(480, 270)
    assert frame.width * frame.height < WHOLE_BELOW
    assert Picture(frame).piece((10, 10, 50, 50)).rgb.shape == (270, 480, 3)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1080, 1920), (480, 270), (200, 100)])
def test_the_small_copy(width: int, height: int) -> None:
    frame = decoded(width, height)
    small = Picture(frame).small()
    whole = frame.to_ndarray(format="rgb24")
    assert small.shape[1] == min(width, SMALL_WIDTH)
    assert small.shape[0] / small.shape[1] == pytest.approx(height / width, rel=0.02)
    expected = cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(small.astype(int) - expected).mean() < 4


def test_a_picture_of_an_array_is_the_array() -> None:
    rgb = np.arange(60 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(60, 80, 3)
    picture = Picture.of(rgb)
    assert picture.rgb is rgb
    assert picture.piece((3, 3, 5, 5)).rgb is rgb
    assert (picture.width, picture.height) == (80, 60)
    assert Picture.of(picture) is picture


def test_refuses_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match=r"uint8 \(h, w, 3\), got float64 \(4, 4, 3\)"):
        Picture.of(np.zeros((4, 4, 3)))


def test_pictures_of_another_shape_are_fitted_in_without_being_stretched() -> None:
    shape = OneShape()
    first = Picture.of(np.full((48, 64, 3), 200, np.uint8))
    assert shape(first) is first
    assert shape(Picture.of(np.zeros((48, 64, 3), np.uint8))).rgb.max() == 0
    upright = shape(Picture.of(np.full((64, 48, 3), 200, np.uint8))).rgb
    assert upright.shape == (48, 64, 3)
    lit = np.flatnonzero(upright[24, :, 0])
    assert (lit[0], lit[-1]) == (14, 49)
    assert (upright[:, 14:50] == 200).all()
    smaller = shape(Picture.of(np.full((24, 32, 3), 90, np.uint8))).rgb
    assert (smaller == 90).all()


@pytest.mark.parametrize(("pixel", "size"), [(16 / 15, (68, 48)), (0.5, (32, 48)), (1.0, (64, 48))])
def test_oblong_pixels_become_square(pixel: float, size: tuple[int, int]) -> None:
    picture = OneShape(pixel)(Picture.of(np.full((48, 64, 3), 7, np.uint8)))
    assert (picture.width, picture.height) == size
    assert picture.rgb.shape == (size[1], size[0], 3)
    assert (picture.rgb == 7).all()
