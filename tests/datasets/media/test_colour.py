"""Colours of what is read, against the definitions in BT.601, BT.709 and BT.2020."""

from pathlib import Path

import av
import numpy as np
import pytest

from datasets.errors import Reason, SourceError
from datasets.media import Picture, probe, read_frames
from datasets.media.colour import SDR, Colours, Tags, colours_of
from datasets.media.picture import Converter
from tests.support.coded_video import flat_frame, frame_of, stored, write_coded

RED, TEAL, WHITE = (198, 28, 28), (20, 140, 160), (255, 255, 255)
HD, SD = (1280, 720), (640, 360)
NEAR = 3
"""Levels: a third of it is lost where numbers are stored, the rest where they are converted."""


def read(path: Path) -> np.ndarray:
    """The colour of a flat video."""
    rgb = next(read_frames(path)).rgb
    assert (rgb == rgb[0, 0]).all()
    return rgb[0, 0].astype(int)


@pytest.mark.parametrize("colour", [RED, TEAL, WHITE])
@pytest.mark.parametrize("form", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize(
    ("size", "matrix"),
    [(HD, 1), (SD, 6), ((720, 576), 6), ((720, 578), 1), ((1278, 576), 6), ((480, 854), 1)],
)
def test_what_is_not_tagged_is_read_as_players_do(
    tmp_path: Path, colour: tuple[int, ...], form: str, size: tuple[int, int], matrix: int
) -> None:
    values = stored(colour, matrix, bits=10 if "10" in form else 8)
    path = write_coded(tmp_path / "a.mkv", [flat_frame(values, *size, form)])
    assert np.abs(read(path) - colour).max() <= NEAR


@pytest.mark.parametrize("colour", [RED, TEAL, WHITE])
@pytest.mark.parametrize("form", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("size", [(640, 362), (1280, 722)])
def test_tags_decide(
    tmp_path: Path,
    colour: tuple[int, ...],
    form: str,
    full: bool,
    matrix: int,
    size: tuple[int, int],
) -> None:
    values = stored(colour, matrix, full, 10 if "10" in form else 8)
    frame = flat_frame(values, *size, form)
    path = write_coded(tmp_path / "a.mkv", [frame], matrix=matrix, full=full)
    assert np.abs(read(path) - colour).max() <= NEAR


@pytest.mark.parametrize("size", [SD, HD])
def test_the_old_names_of_full_range_mean_it(size: tuple[int, int]) -> None:
    matrix = 1 if size == HD else 6
    frame = flat_frame(stored(TEAL, matrix, full=True), *size, "yuvj420p")
    frame.color_range = 0
    assert colours_of(frame).full
    assert np.abs(Picture(frame).rgb.astype(int) - TEAL).max() <= 2


@pytest.mark.parametrize(("full", "level"), [(None, 126), (True, 126), (False, 128)])
def test_grey_is_full_unless_it_says_otherwise(
    tmp_path: Path, full: bool | None, level: int
) -> None:
    frame = flat_frame((126,), 64, 48, "gray")
    path = write_coded(tmp_path / "a.mkv", [frame], full=full)
    assert read(path) == pytest.approx([level] * 3, abs=1)


@pytest.mark.parametrize("form", ["gbrp", "rgb24", "bgr0", "gbrp10le"])
@pytest.mark.parametrize("size", [SD, HD])
def test_rgb_is_what_it_is(form: str, size: tuple[int, int]) -> None:
    picture = np.full((size[1], size[0], 3), TEAL, np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=form)
    assert np.abs(Picture(frame).rgb.astype(int) - TEAL).max() <= 1


def test_planes_of_green_blue_and_red_are_not_luma_and_chroma() -> None:
    frame = flat_frame((TEAL[1], TEAL[2], TEAL[0]), 64, 48, "yuv444p")
    frame.colorspace, frame.color_range = 0, 2
    assert (Picture(frame).rgb == TEAL).all()
    frame = flat_frame(
        tuple(round(16 + 219 * TEAL[each] / 255) for each in (1, 2, 0)), 64, 48, "yuv444p"
    )
    frame.colorspace = 0
    assert np.abs(Picture(frame).rgb.astype(int) - TEAL).max() <= 1


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("colour", [RED, TEAL, WHITE])
def test_ycgco(colour: tuple[int, ...], bits: int) -> None:
    red, green, blue = (value * (2**bits - 1) / 255 for value in colour)
    middle = 2 ** (bits - 1)
    values = (
        round(green / 2 + (red + blue) / 4),
        round(green / 2 - (red + blue) / 4) + middle,
        round((red - blue) / 2) + middle,
    )
    frame = flat_frame(values, 64, 48, "yuv444p" if bits == 8 else "yuv444p10le")
    frame.colorspace, frame.color_range = 8, 2
    assert np.abs(Picture(frame).rgb.astype(int) - colour).max() <= 2


@pytest.mark.parametrize(
    ("matrix", "name"), [(10, "BT.2020 with constant luminance"), (14, "ICtCp")]
)
def test_other_matrices_are_refused_by_name(tmp_path: Path, matrix: int, name: str) -> None:
    frame = flat_frame((126, 90, 140), 64, 48, "yuv420p")
    path = write_coded(tmp_path / "a.mkv", [frame], matrix=matrix)
    for look in (probe, lambda each: next(read_frames(each))):
        with pytest.raises(SourceError, match=f"stored as {name}") as caught:
            look(path)
        assert caught.value.reason is Reason.UNREADABLE


def test_tags_of_the_stream_are_second_to_those_of_the_frame() -> None:
    frame = flat_frame((126, 90, 140), *HD, "yuv420p")
    stream = Tags(6, 2, 6, 5)
    assert colours_of(frame) == SDR
    assert colours_of(frame, stream) == Colours(6, True, 6, 5)
    frame.colorspace, frame.color_range = 9, 1
    assert colours_of(frame, stream) == Colours(9, False, 6, 5)


def test_tags_of_the_container_alone_are_read(tmp_path: Path) -> None:
    """MPEG-4 has no place for them in this stream, Matroska has one."""
    frames = [flat_frame(stored(TEAL, 6), *HD, "yuv420p") for _ in range(3)]
    path = write_coded(tmp_path / "a.mkv", frames, "mpeg4", matrix=6, full=False)
    assert np.abs(read(path) - TEAL).max() <= 3


@pytest.mark.parametrize("height", [480, 576, 360])
def test_primaries_follow_the_television_system(height: int) -> None:
    frame = flat_frame((126, 90, 140), 640, height, "yuv420p")
    assert colours_of(frame).primaries == {480: 6, 576: 5, 360: 1}[height]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [2, 1, 6, 9])
def test_pieces_and_small_copies_have_the_same_colours(matrix: int, full: bool) -> None:
    values = stored(RED, 1 if matrix == 2 else matrix, full)
    frame = flat_frame(values, *HD, "yuv420p")
    frame.colorspace, frame.color_range = matrix, 2 if full else 0
    picture = Picture(frame, Converter())
    piece = picture.piece((600, 300, 700, 400))
    assert piece.rgb.shape[0] < 720
    assert np.abs(piece.rgb.astype(int) - RED).max() <= 2
    assert np.abs(picture.small().astype(int) - RED).max() <= 2
    assert np.abs(picture.rgb.astype(int) - RED).max() <= 2


def test_a_ramp_keeps_its_ends() -> None:
    """Black and white of limited range are 16 and 235, and values outside are clipped."""
    luma = np.tile(np.repeat(np.array([0, 16, 126, 235, 255], np.uint8), 16), (48, 1))
    grey = np.full((24, 40), 128, np.uint8)
    rgb = Picture(frame_of([luma, grey, grey], 80, 48, "yuv420p")).rgb[0, ::16]
    assert rgb.tolist() == [[level] * 3 for level in (0, 0, 128, 255, 255)]
