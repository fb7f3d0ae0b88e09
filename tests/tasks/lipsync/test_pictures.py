"""What of a video's pictures a lip-synced one keeps: colours, bits, HDR, transparency, times."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from datasets.errors import UserError
from datasets.media import FPS, probe, read_frames, write_flac
from datasets.media.canvas import Canvas
from tasks.lipsync import video as lipsync_video
from tasks.lipsync.face_scan import FaceScan
from tasks.lipsync.video import LipSyncResult, lip_sync_video
from tests.support.coded_video import (
    DISPLAYS,
    display_matrix,
    flat_frame,
    frame_of,
    planes_of,
    shown,
    stored,
    write_coded,
)
from tests.support.fake_generator import Brightener
from tests.support.fake_scan import give_scan

SIZE = (192, 160)
COUNT = 8


def frames(form: str, size: tuple[int, int] = SIZE) -> list[av.VideoFrame]:
    """Ramps across and down, in colours that are all there are in BT.709 too."""
    width, height = size
    one = 4 if "10" in form else 1
    across, down = np.linspace(90, 150, width), np.linspace(-6, 6, height)
    luma = np.rint((across[None] + down[:, None]) * one)
    cb = np.rint((124 + 2 * down[::2, None] / 6 + 0 * across[None, ::2]) * one)
    cr = np.rint((132 + 2 * down[::2, None] / 6 + 0 * across[None, ::2]) * one)
    return [frame_of([luma, cb, cr], width, height, form) for _ in range(COUNT)]


def spoken(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch, fps: float = 25, **options: Any
) -> LipSyncResult:
    """Lip-sync whose network only brightens the middle of a face in the middle."""
    speech = source.parent / "speech.flac"
    write_flac(speech, np.full(round(16000 * COUNT / fps), 0.1, np.float32), 16000)
    info = probe(source)
    middle = np.array([[1.0, 0.0, 26 - info.width / 2], [0.0, 1.0, 35 - info.height / 2]])
    times = np.array([frame.time_s for frame in read_frames(source, fps=None)])
    scan = FaceScan(
        times_s=times,
        duration_s=float(times[-1] + 1 / fps),
        shots=[0] * len(times),
        matrices=[middle] * len(times),
        openings=np.full(len(times), 0.2),
        poses=np.zeros((len(times), 4)),
    )
    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: Brightener(64))
    give_scan(monkeypatch, scan)
    return lip_sync_video(source, speech, output, source.parent, match=False, **options)


def decoded(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def around(plane: np.ndarray) -> np.ndarray:
    """A plane without its middle, where the face is."""
    height, width = plane.shape
    kept = np.ones(plane.shape, bool)
    kept[height // 4 : -height // 4, width // 4 : -width // 4] = False
    return plane[kept].astype(int)


@pytest.mark.parametrize(
    ("form", "matrix", "full", "size"),
    [
        ("yuv420p", 2, None, SIZE),
        ("yuv420p", 2, None, (1280, 720)),
        ("yuv420p", 1, False, SIZE),
        ("yuv420p", 6, True, SIZE),
        ("yuv420p", 9, False, SIZE),
        ("yuv420p10le", 2, None, SIZE),
        ("yuv420p10le", 6, False, SIZE),
        ("yuv420p10le", 1, True, SIZE),
    ],
)
def test_what_is_not_repainted_is_as_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    matrix: int,
    full: bool | None,
    size: tuple[int, int],
) -> None:
    source = write_coded(tmp_path / "a.mkv", frames(form, size), matrix=matrix, full=full)
    output = tmp_path / "b.mp4"
    result = spoken(source, output, monkeypatch)
    assert result.faces_found == COUNT
    assert result.notes == ()
    bits = 10 if "10" in form else 8
    before, after = decoded(source), decoded(output)
    for old, new in zip(before, after, strict=True):
        assert new.format.name in (form, form.replace("yuv", "yuvj"))
        for first, second in zip(planes_of(old), planes_of(new), strict=True):
            assert np.abs(around(first) - around(second)).max() <= 2 * 2 ** (bits - 8)
        middle = tuple(each // 2 for each in planes_of(old)[0].shape)
        assert planes_of(new)[0][middle] > planes_of(old)[0][middle] + 5 * 2 ** (bits - 8)
    large = size[0] >= 1280
    expected = (1 if large else 6) if matrix == 2 else matrix
    assert (after[0].colorspace, after[0].color_range) == (expected, 2 if full else 1)


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_stays_hdr_around_and_in_the_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer: int
) -> None:
    source = write_coded(
        tmp_path / "a.mkv",
        frames("yuv420p10le"),
        matrix=9,
        full=False,
        transfer=transfer,
        primaries=9,
    )
    output = tmp_path / "b.mp4"
    assert spoken(source, output, monkeypatch).notes == ()
    before, after = decoded(source), decoded(output)
    for old, new in zip(before, after, strict=True):
        assert (new.format.name, new.color_trc, new.color_primaries) == ("yuv420p10le", transfer, 9)
        for first, second in zip(planes_of(old), planes_of(new), strict=True):
            assert np.abs(around(first) - around(second)).max() <= 8
    # Seen as SDR, the face is brighter by what the network added.
    seen = [next(read_frames(path)).rgb[80, 96].astype(int) for path in (source, output)]
    assert (seen[1] - seen[0]).mean() == pytest.approx(10, abs=3)


def test_tone_mapping_is_told_and_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_coded(
        tmp_path / "a.mkv", frames("yuv420p10le"), matrix=9, transfer=18, primaries=9
    )
    result = spoken(source, tmp_path / "b.mp4", monkeypatch, tone_map=True)
    assert result.notes == ("the video is HDR and was written as SDR, as requested",)
    (first, *_) = decoded(tmp_path / "b.mp4")
    assert (first.format.name, first.color_trc) == ("yuv420p", 1)
    expected = next(read_frames(source)).rgb.astype(int)
    got = next(read_frames(tmp_path / "b.mp4")).rgb.astype(int)
    assert np.abs(expected - got)[:30].max() <= 4


@pytest.mark.parametrize("suffix", ["webm", "mkv", "mov", "mp4"])
def test_transparency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    alpha = np.full(SIZE[::-1], 255)
    alpha[:, :90] = 70
    with_alpha = [
        frame_of([*planes_of(frame), alpha], *SIZE, "yuva420p") for frame in frames("yuv420p")
    ]
    source = write_coded(
        tmp_path / "a.webm",
        with_alpha,
        "libvpx-vp9",
        options={"crf": "4", "auto-alt-ref": "0"},
    )
    output = tmp_path / f"b.{suffix}"
    result = spoken(source, output, monkeypatch)
    if suffix == "mp4":
        assert any("transparency is lost" in note for note in result.notes)
        return
    assert result.notes == ()
    coded = next(read_frames(output)).picture.frame
    bits = coded.format.components[3].bits
    got = planes_of(coded)[3] / 2.0 ** (bits - 8)
    assert np.abs(got - alpha)[:, :80].max() <= 3
    assert np.abs(got - alpha)[:, 100:].max() <= 3


@pytest.mark.parametrize("name", ["left and right swapped", "rows as columns", "half a turn"])
def test_turned_videos_are_written_upright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = write_coded(
        tmp_path / "a.mp4",
        frames("yuv420p"),
        "libx264",
        options={"crf": "2"},
        display=display_matrix(*DISPLAYS[name]),
    )
    output = tmp_path / "b.mp4"
    spoken(source, output, monkeypatch)
    upright = shown(planes_of(decoded(source)[0])[0], *DISPLAYS[name])
    (first, *_) = decoded(output)
    assert first.side_data.get("DISPLAYMATRIX") is None
    written = planes_of(first)[0]
    assert written.shape == upright.shape
    assert np.abs(around(written) - around(upright)).max() <= 3


def test_interlaced_videos_are_made_whole_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_coded(
        tmp_path / "a.mp4",
        frames("yuv420p"),
        "libx264",
        options={"crf": "4", "x264-params": "bff=1"},
    )
    result = spoken(source, tmp_path / "b.mp4", monkeypatch)
    assert result.notes == ("the video is interlaced and was deinterlaced",)
    assert result.frames == COUNT
    assert not any(frame.interlaced_frame for frame in decoded(tmp_path / "b.mp4"))


@pytest.mark.parametrize(
    ("rate", "source_suffix", "suffix"),
    [
        (Fraction(24000, 1001), "mkv", "mp4"),
        (Fraction(24000, 1001), "mp4", "mkv"),
        (Fraction(30000, 1001), "mkv", "mov"),
        (Fraction(60000, 1001), "mp4", "mp4"),
        (Fraction(25), "mkv", "mkv"),
        (Fraction(50), "mkv", "mp4"),
    ],
)
def test_the_rate_is_exactly_the_sources(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rate: Fraction,
    source_suffix: str,
    suffix: str,
) -> None:
    source = write_coded(
        tmp_path / f"a.{source_suffix}", frames("yuv420p"), "libx264", rate, options={"crf": "8"}
    )
    output = tmp_path / f"b.{suffix}"
    spoken(source, output, monkeypatch, fps=float(rate))
    with av.open(str(output)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        base = stream.time_base
        times = [frame.pts for frame in container.decode(video=0)]
    if suffix != "mkv":
        assert base is not None
        steps = set(np.diff(np.array(times, np.int64)).tolist())
        assert len(steps) == 1
        assert steps.pop() * base == 1 / rate


def test_times_of_a_rate_that_changes_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = [0, 40, 70, 140, 150, 200, 240, 300]
    source = write_coded(
        tmp_path / "a.mkv",
        frames("yuv420p"),
        "libx264",
        times=ticks,
        time_base=Fraction(1, 1000),
        options={"crf": "8"},
    )
    output = tmp_path / "b.mp4"
    result = spoken(source, output, monkeypatch)
    read = np.array([frame.time_s for frame in read_frames(output, fps=None)])
    assert read == pytest.approx(np.array(ticks)[: result.frames] / 1000, abs=1e-3)


def test_outputs_that_cannot_be_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.mp4"
    with pytest.raises(UserError, match="its name must end in"):
        lip_sync_video(missing, missing, tmp_path / "out.avi", tmp_path)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        lip_sync_video(missing, missing, tmp_path / "folder.mp4", tmp_path)


def test_an_output_that_is_there_stays_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_coded(tmp_path / "a.mkv", frames("yuv420p"))
    output = tmp_path / "b.mp4"
    output.write_bytes(b"mine")

    def broken(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Canvas, "paint", broken)
        with pytest.raises(KeyboardInterrupt):
            spoken(source, output, monkeypatch)
    assert output.read_bytes() == b"mine"
    spoken(source, output, monkeypatch)
    assert probe(output).fps == FPS


def test_the_red_of_an_untagged_hd_video_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read as BT.601 and written as BT.709: 198, 28, 28 became 182, 10, 29."""
    red = (198, 28, 28)
    source = write_coded(
        tmp_path / "a.mkv", [flat_frame(stored(red, 1), 1280, 720, "yuv420p")] * COUNT
    )
    spoken(source, tmp_path / "b.mp4", monkeypatch)
    rgb = next(read_frames(tmp_path / "b.mp4")).rgb
    assert np.abs(rgb[:100].astype(int) - red).max() <= 2
