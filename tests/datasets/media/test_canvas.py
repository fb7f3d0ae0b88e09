"""Pictures on their way into another file: what is not painted stays, what is painted is right."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from datasets.media import Picture, VideoWriter, probe, read_frames
from datasets.media.canvas import Canvas, Patch
from datasets.media.colour import SDR, Colours
from datasets.media.form import Form, form_for
from datasets.media.output import check_output
from datasets.media.picture import Converter, OneShape, Turn
from tests.support.coded_video import (
    DISPLAYS,
    MATRICES,
    display_matrix,
    flat_frame,
    frame_of,
    planes_of,
    shown,
    stored,
    write_coded,
)

SIZE = (96, 64)


def noise(form: str, size: tuple[int, int] = SIZE, seed: int = 0) -> av.VideoFrame:
    """A frame of smooth noise with numbers in the range that colours use."""
    rng = np.random.default_rng(seed)
    frame = av.VideoFrame(*size, form)
    one = 4 if "10" in form else 1
    planes = []
    for plane in frame.planes:
        coarse = rng.uniform(60, 190, (5, 6)).astype(np.float32)
        fine = cv2.resize(coarse, (plane.width, plane.height), interpolation=cv2.INTER_CUBIC)
        planes.append(np.rint(np.clip(fine, 40, 210) * one))
    return frame_of(planes, *size, form)


def tagged(frame: av.VideoFrame, matrix: int, full: bool, transfer: int = 1) -> av.VideoFrame:
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    frame.color_trc, frame.color_primaries = transfer, 9 if matrix == 9 else 1
    return frame


def canvas_of(frame: av.VideoFrame, pix_fmt: str | None = None) -> Canvas:
    picture = Picture(frame)
    return Canvas(picture, Form(pix_fmt or frame.format.name, picture.colours))


def patch(
    colour: tuple[int, ...], left: int, top: int, width: int, height: int, weight: float = 1.0
) -> Patch:
    return Patch(
        left,
        top,
        np.full((height, width, 3), colour, np.float32),
        np.full((height, width), weight, np.float32),
    )


@pytest.mark.parametrize("form", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_what_is_not_painted_is_the_decoders_own(form: str, matrix: int, full: bool) -> None:
    frame = tagged(noise(form), matrix, full)
    before = planes_of(frame)
    canvas = canvas_of(frame)
    canvas.paint(patch((200, 90, 60), 31, 21, 20, 10))
    after = planes_of(canvas.frame())
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        step = 1 if number == 0 else 2
        rows = slice(21 // step, -(-31 // step))
        columns = slice(31 // step, -(-51 // step))
        assert (old[rows, columns] != new[rows, columns]).any()
        kept = old.copy()
        kept[rows, columns] = new[rows, columns]
        assert (kept == new).all()
    assert all((old == new).all() for old, new in zip(before, planes_of(frame), strict=True))


@pytest.mark.parametrize("form", ["yuv420p", "yuv420p10le", "yuv444p", "yuv444p10le"])
@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("colour", [(198, 28, 28), (20, 140, 160), (255, 255, 255)])
def test_a_patch_has_its_colour_by_the_sources_matrix(
    form: str, matrix: int, full: bool, colour: tuple[int, ...]
) -> None:
    bits = 10 if "10" in form else 8
    canvas = canvas_of(
        tagged(flat_frame(stored((90, 110, 130), matrix, full, bits), *SIZE, form), matrix, full)
    )
    canvas.paint(patch(colour, 20, 10, 40, 30))
    expected = stored(colour, matrix, full, bits)
    for number, plane in enumerate(canvas.planes):
        step = SIZE[1] // plane.shape[0]
        inside = plane[10 // step : 40 // step, 20 // step : 60 // step].astype(int)
        assert np.abs(inside - expected[number]).max() <= 2 * 2 ** (bits - 8)
    assert (canvas.rgb[10:40, 20:60] == colour).all()


def test_chroma_changes_by_the_share_of_its_pixels() -> None:
    """One pixel of four: a quarter of the way."""
    frame = tagged(flat_frame(stored((90, 110, 130), 1), *SIZE, "yuv420p"), 1, False)
    canvas = canvas_of(frame)
    canvas.paint(patch((198, 28, 28), 21, 11, 1, 1))
    before, after = stored((90, 110, 130), 1), stored((198, 28, 28), 1)
    for number in (1, 2):
        expected = before[number] + (after[number] - before[number]) / 4
        assert canvas.planes[number][5, 10] == pytest.approx(expected, abs=1)
    assert canvas.planes[0][11, 21] == pytest.approx(after[0], abs=1)


def test_weights_mix() -> None:
    frame = tagged(flat_frame(stored((90, 110, 130), 1), *SIZE, "yuv420p"), 1, False)
    canvas = canvas_of(frame)
    canvas.paint(patch((190, 110, 30), 20, 10, 20, 20, 0.5))
    expected = stored((140, 110, 80), 1)
    there = [
        plane[20 // step, 30 // step] for plane, step in zip(canvas.planes, (1, 2, 2), strict=True)
    ]
    assert there == pytest.approx(expected, abs=2)
    assert np.abs(canvas.rgb[20, 30].astype(int) - (140, 110, 80)).max() <= 1


@pytest.mark.parametrize(("form", "transfer"), [("yuv420p10le", 16), ("yuv420p10le", 18)])
def test_an_unchanged_face_changes_nothing_in_hdr(form: str, transfer: int) -> None:
    frame = tagged(noise(form, seed=3), 9, False, transfer)
    before = planes_of(frame)
    canvas = canvas_of(frame)
    same = canvas.rgb[10:50, 20:70].astype(np.float32)
    canvas.paint(Patch(20, 10, same, np.ones(same.shape[:2], np.float32)))
    for old, new in zip(before, canvas.planes, strict=True):
        assert (old == new).all()
    # And a level more or less, as resampling leaves it, is about as much in the bright picture.
    canvas.paint(Patch(20, 10, same + 1, np.ones(same.shape[:2], np.float32)))
    for old, new in zip(before, canvas.planes, strict=True):
        assert np.abs(old.astype(int) - new).max() <= 4 * 3


@pytest.mark.parametrize("transfer", [16, 18])
def test_a_patch_in_hdr_looks_as_it_was_meant(transfer: int) -> None:
    grey = stored((120, 120, 120), 9, bits=10)
    canvas = canvas_of(tagged(flat_frame(grey, *SIZE, "yuv420p10le"), 9, False, transfer))
    canvas.paint(patch((150, 100, 80), 20, 10, 40, 40))
    again = Picture(canvas.frame()).rgb[20:40, 30:50].astype(int)
    assert np.abs(again - (150, 100, 80)).max() <= 3


@pytest.mark.parametrize("name", DISPLAYS)
def test_planes_stand_upright(tmp_path: Path, name: str) -> None:
    frame = noise("yuv420p")
    path = write_coded(
        tmp_path / "a.mov",
        [frame],
        "libx264",
        options={"qp": "0"},
        matrix=6,
        full=False,
        display=display_matrix(*DISPLAYS[name]),
    )
    before = planes_of(frame)
    picture = next(read_frames(path)).picture
    canvas = Canvas(picture, Form("yuv420p", picture.colours))
    for old, new in zip(before, planes_of(canvas.frame()), strict=True):
        assert (new == shown(old, *DISPLAYS[name])).all()


@pytest.mark.parametrize(
    ("form", "into"),
    [
        ("yuvj420p", "yuv420p"),
        ("yuv422p", "yuv420p"),
        ("yuv444p", "yuv420p"),
        ("nv12", "yuv420p"),
        ("gray", "yuv420p"),
        ("yuv422p10le", "yuv420p10le"),
        ("yuv444p10le", "yuv420p10le"),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_luma_is_kept_in_other_formats(form: str, into: str, full: bool) -> None:
    rng = np.random.default_rng(0)
    kind: Any = np.uint16 if "10" in form else np.uint8
    most = 1023 if "10" in form else 255
    frame: Any = av.VideoFrame(*SIZE, form)
    for plane in frame.planes:
        view = np.frombuffer(plane, kind)
        view[:] = rng.integers(0, most, view.shape)
    frame.colorspace, frame.color_range = 1, 2 if full or "j" in form else 1
    width = frame.planes[0].line_size // np.dtype(kind).itemsize
    luma = np.frombuffer(frame.planes[0], kind).reshape(-1, width)[:, : SIZE[0]].copy()
    assert (canvas_of(frame, into).planes[0] == luma).all()


@pytest.mark.parametrize("form", ["rgb24", "gbrp", "bgra"])
def test_rgb_becomes_bt709(form: str) -> None:
    picture = np.full((SIZE[1], SIZE[0], 3), (198, 28, 28), np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=form)
    canvas = Canvas(Picture(frame), Form("yuv420p", SDR))
    assert [int(plane[5, 5]) for plane in canvas.planes] == pytest.approx(
        stored((198, 28, 28), 1), abs=1
    )


def test_colours_that_change_on_the_way_are_converted() -> None:
    frame = tagged(flat_frame(stored((198, 28, 28), 6, True), *SIZE, "yuv420p"), 6, True)
    canvas = Canvas(Picture(frame), Form("yuv420p", SDR))
    assert [int(plane[5, 5]) for plane in canvas.planes] == pytest.approx(
        stored((198, 28, 28), 1), abs=2
    )


def test_pictures_of_another_shape_have_black_around_them() -> None:
    shape, converter = OneShape(), Converter()
    shape(Picture(tagged(noise("yuv420p", (96, 64)), 1, False), converter))
    upright = tagged(flat_frame(stored((198, 28, 28), 1), 64, 96, "yuv420p"), 1, False)
    canvas = Canvas(shape(Picture(upright, converter)), Form("yuv420p", SDR))
    luma, cb, cr = canvas.planes
    lit = np.flatnonzero(luma[32] > 30)
    assert (lit[0], lit[-1]) == (26, 68)
    assert (luma[:, :26] == 16).all()
    assert (cb[:, :13] == 128).all()
    assert (cr[:, 35:] == 128).all()
    assert [luma[32, 48], cb[16, 24], cr[16, 24]] == list(stored((198, 28, 28), 1))
    assert (
        np.abs(Picture(canvas.frame()).rgb.astype(int) - canvas.rgb).max(axis=(0, 2))[30:66].max()
        <= 3
    )


def test_oblong_pixels_become_square() -> None:
    frame = tagged(flat_frame(stored((198, 28, 28), 1), 96, 64, "yuv420p"), 1, False)
    canvas = Canvas(OneShape(1.5)(Picture(frame)), Form("yuv420p", SDR))
    assert [plane.shape for plane in canvas.planes] == [(64, 144), (32, 72), (32, 72)]
    assert [int(plane[9, 9]) for plane in canvas.planes] == list(stored((198, 28, 28), 1))


def test_odd_sizes_have_all_their_chroma() -> None:
    frame = tagged(noise("yuv420p", (63, 47)), 1, False)
    canvas = canvas_of(frame, "yuv444p")
    assert (canvas.planes[0] == planes_of(frame)[0]).all()
    canvas.paint(patch((198, 28, 28), 40, 30, 23, 17))
    assert [int(plane[46, 62]) for plane in canvas.planes] == pytest.approx(
        stored((198, 28, 28), 1), abs=2
    )


def test_half_planes_of_odd_sizes(tmp_path: Path) -> None:
    """VP9 holds them."""
    frame = tagged(noise("yuv420p", (63, 47)), 1, False)
    canvas = canvas_of(frame)
    before = planes_of(frame)
    canvas.paint(patch((198, 28, 28), 40, 30, 23, 17))
    assert (canvas.planes[1][:15] == before[1][:15]).all()
    assert canvas.planes[2][23, 31] == pytest.approx(stored((198, 28, 28), 1)[2], abs=2)


def test_transparency_goes_along() -> None:
    rng = np.random.default_rng(0)
    frame = noise("yuva420p")
    alpha = rng.integers(0, 256, (64, 96)).astype(np.uint8)
    frame = frame_of([*planes_of(frame)[:3], alpha], *SIZE, "yuva420p")
    canvas = canvas_of(tagged(frame, 1, False))
    canvas.paint(patch((198, 28, 28), 20, 10, 40, 30))
    assert (planes_of(canvas.frame())[3] == alpha).all()


SMALL, LARGE = (640, 360), (1280, 720)
KINDS = [
    *(("mp4", SMALL, matrix, full) for matrix in (2, *MATRICES) for full in (None, False, True)),
    *(("mp4", LARGE, matrix, full) for matrix in (2, 6) for full in (None, True)),
    *((suffix, SMALL, 6, full) for suffix in ("mkv", "mov", "webm") for full in (False, True)),
]


@pytest.mark.parametrize("form", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize(("suffix", "size", "matrix", "full"), KINDS)
def test_files_show_the_colours_of_their_source(
    tmp_path: Path, matrix: int, full: bool | None, form: str, size: tuple[int, int], suffix: str
) -> None:
    assumed = (1 if size[0] == 1280 else 6) if matrix == 2 else matrix
    bits = 10 if "10" in form else 8
    colour = (198, 28, 28)
    frame = flat_frame(stored(colour, assumed, bool(full), bits), *size, form)
    source = write_coded(tmp_path / "a.mkv", [frame], matrix=matrix, full=full)
    output = tmp_path / f"b.{suffix}"
    rewrite(source, output)
    kind = probe(output).kind
    deep = bits == 10 and suffix != "webm"
    assert kind.bits == (10 if deep else 8)
    assert kind.colours.full == bool(full)
    with av.open(str(output)) as container:
        coded = next(container.decode(video=0))
    same = {5: (5, 6), 6: (5, 6)}.get(assumed, (assumed,))
    assert coded.colorspace in same
    assert coded.color_range == (2 if full else 1)
    expected = stored(colour, assumed, bool(full), 10 if deep else 8)
    near = 2 * 2 ** (kind.bits - 8)
    for plane, value in zip(planes_of(coded), expected, strict=True):
        assert np.abs(plane.astype(int) - value).max() <= near
    assert np.abs(next(read_frames(output)).rgb.astype(int) - colour).max() <= 5


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_videos_of_a_few_pictures(tmp_path: Path, count: int, suffix: str) -> None:
    frames = [noise("yuv420p10le", seed=index) for index in range(count)]
    source = write_coded(tmp_path / "a.mkv", frames)
    rewrite(source, tmp_path / f"b.{suffix}")
    times = [frame.time_s for frame in read_frames(tmp_path / f"b.{suffix}", fps=None)]
    assert times == pytest.approx(np.arange(count) / 25, abs=1e-3)


def rewrite(source: Path, output: Path, tone_map: bool = False) -> Form:
    """A video through canvases into another file, unpainted."""
    info = probe(source)
    form = form_for(info.kind, info.width, info.height, check_output(output), tone_map)
    with VideoWriter(output, info.width, info.height, info.fps, crf=2, form=form) as writer:
        for frame in read_frames(source, fps=None):
            writer.write(Canvas(frame.picture, form), frame.time_s)
    return form


def frames_of(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


MASTER = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_hdr_stays_hdr(tmp_path: Path, transfer: int, suffix: str) -> None:
    source = write_coded(
        tmp_path / "a.mp4",
        [noise("yuv420p10le", seed=index) for index in range(3)],
        "libx265",
        matrix=9,
        full=False,
        transfer=transfer,
        primaries=9,
        options={"x265-params": f"log-level=error:master-display={MASTER}:max-cll=1000,400"},
    )
    output = tmp_path / f"b.{suffix}"
    form = rewrite(source, output)
    assert (form.mastering, form.light) == (MASTER, "1000,400")
    before, after = frames_of(source), frames_of(output)
    assert len(after) == 3
    for old, new in zip(before, after, strict=True):
        assert new.format.name == "yuv420p10le"
        assert (new.colorspace, new.color_trc, new.color_primaries) == (9, transfer, 9)
        difference = np.abs(planes_of(old)[0].astype(int) - planes_of(new)[0])
        assert difference.max() <= 12
        assert difference.mean() <= 2
    kind = probe(output).kind
    assert (kind.mastering, kind.light) == (MASTER, "1000,400")
    if suffix != "mkv":
        with av.open(str(output)) as container:
            context: Any = container.streams.video[0].codec_context
            assert (context.name, context.codec_tag, context.profile) == ("hevc", "hvc1", "Main 10")


def test_hdr_is_written_as_sdr_where_that_is_asked_for(tmp_path: Path) -> None:
    signal = 0.5081  # 100 nits
    source = write_coded(
        tmp_path / "a.mkv",
        [flat_frame(stored((255 * signal,) * 3, 9, bits=10), *SIZE, "yuv420p10le")],
        matrix=9,
        full=False,
        transfer=16,
        primaries=9,
    )
    output = tmp_path / "b.mp4"
    form = rewrite(source, output, tone_map=True)
    assert form.notes == ("the video is HDR and was written as SDR, as requested",)
    (frame,) = frames_of(output)
    assert frame.format.name == "yuv420p"
    assert (frame.colorspace, frame.color_trc, frame.color_primaries) == (1, 1, 1)
    level = 0.86 * (100 / 203) ** (1 / 2.4)
    assert planes_of(frame)[0].mean() == pytest.approx(16 + 219 * level, abs=1.5)


def with_alpha(form: str, codec: str, path: Path, **more: Any) -> tuple[Path, list[np.ndarray]]:
    """Three frames whose right half fades out."""
    one = {"yuva420p": 1, "yuva444p10le": 4}[form]
    frames, alphas = [], []
    for index in range(3):
        frame = noise(form, seed=7)
        alpha = np.full((64, 96), 255 * one, np.uint16)
        alpha[:, 48:] = (40 + 60 * index) * one
        frames.append(frame_of([*planes_of(frame)[:3], alpha], *SIZE, form))
        alphas.append(alpha / one)
    return write_coded(path, frames, codec, **more), alphas


@pytest.mark.parametrize("suffix", ["webm", "mkv", "mov"])
@pytest.mark.parametrize("kind", ["vp9", "prores"])
def test_transparency_is_kept_where_the_container_can(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    if kind == "vp9":
        source, alphas = with_alpha(
            "yuva420p", "libvpx-vp9", tmp_path / "a.webm", options={"crf": "4", "auto-alt-ref": "0"}
        )
    else:
        source, alphas = with_alpha(
            "yuva444p10le", "prores_ks", tmp_path / "a.mov", options={"profile": "4444"}
        )
    assert probe(source).kind.alpha
    output = tmp_path / f"b.{suffix}"
    form = rewrite(source, output)
    assert form.alpha
    assert probe(output).kind.alpha
    read = list(read_frames(output, fps=None))
    assert len(read) == 3
    for frame, alpha in zip(read, alphas, strict=True):
        coded = frame.picture.frame
        bits = coded.format.components[3].bits
        got = planes_of(coded)[3] / 2.0 ** (bits - 8)
        assert np.abs(got - alpha)[:, 4:44].max() <= 3
        assert np.abs(got - alpha)[:, 52:92].max() <= 3


def test_transparency_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    source, _ = with_alpha(
        "yuva420p", "libvpx-vp9", tmp_path / "a.webm", options={"crf": "4", "auto-alt-ref": "0"}
    )
    form = rewrite(source, tmp_path / "b.mp4")
    assert not form.alpha
    (note,) = form.notes
    assert note.startswith("the video's transparency is lost")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "webm"])
def test_bytes_are_the_same_every_time(tmp_path: Path, suffix: str) -> None:
    for form in ("yuv420p", "yuv420p10le", "yuva420p"):
        frames = [tagged(noise(form, seed=index), 1, False) for index in range(6)]
        kind = probe(write_coded(tmp_path / "a.mkv", [noise("yuv420p")])).kind
        contents = []
        for number in (1, 2):
            output = tmp_path / f"{number}.{suffix}"
            wanted = form_for(
                type(kind)(SDR, 10 if "10" in form else 8, "a" in form),
                *SIZE,
                {"mkv": "matroska"}.get(suffix, suffix),
            )
            with VideoWriter(output, *SIZE, Fraction(25), form=wanted) as writer:
                for frame in frames:
                    writer.write(Canvas(Picture(frame), wanted))
            contents.append(output.read_bytes())
        assert contents[0] == contents[1], form


def test_a_canvas_of_another_form_is_refused(tmp_path: Path) -> None:
    canvas = canvas_of(tagged(noise("yuv420p"), 1, True))
    with (
        pytest.raises(ValueError, match="does not fit a video"),
        VideoWriter(tmp_path / "a.mp4", *SIZE, 25) as writer,
    ):
        writer.write(canvas)


def test_turns_are_views() -> None:
    plane = np.arange(6).reshape(2, 3)
    assert Turn(True, True, False)(plane).tolist() == [[2, 5], [1, 4], [0, 3]]
    assert Colours(1, True, 1, 1).range == 2


@pytest.mark.parametrize("suffix", ["mov", "webm", "mkv"])
def test_transparency_of_rgb_is_kept(tmp_path: Path, suffix: str) -> None:
    picture = np.full((64, 96, 4), (198, 28, 28, 255), np.uint8)
    picture[:, 48:, 3] = 70
    frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="bgra")
    rewrite(write_coded(tmp_path / "a.mkv", [frame]), tmp_path / f"b.{suffix}")
    read = next(read_frames(tmp_path / f"b.{suffix}")).picture
    alpha = planes_of(read.frame)[3] / 2.0 ** (read.frame.format.components[3].bits - 8)
    assert np.abs(read.rgb.astype(int) - (198, 28, 28)).max() <= 2
    assert alpha[5, 5] == pytest.approx(255, abs=1)
    assert alpha[5, 80] == pytest.approx(70, abs=1)


@pytest.mark.parametrize(
    ("form", "value", "bits", "tags"),
    [
        ("gray", 126, 8, {"full": False}),
        ("gray", 126, 8, {"full": True}),
        ("gray10le", 504, 10, {"full": True}),
    ],
)
def test_grey_is_written_with_its_own_levels(
    tmp_path: Path, form: str, value: int, bits: int, tags: dict[str, Any]
) -> None:
    source = write_coded(tmp_path / "a.mkv", [flat_frame((value,), *SIZE, form)] * 2, **tags)
    rewrite(source, tmp_path / "b.mp4")
    frame = frames_of(tmp_path / "b.mp4")[0]
    luma, *chroma = planes_of(frame)
    assert np.abs(luma.astype(int) - value).max() <= 2
    assert all(np.abs(plane.astype(int) - 2 ** (bits - 1)).max() <= 2 for plane in chroma)
    assert frame.color_range == (2 if tags["full"] else 1)
