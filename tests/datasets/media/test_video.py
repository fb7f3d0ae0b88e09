"""Reading and writing media: timestamps, start times, damage, odd files."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from datasets.errors import Reason, SourceError
from datasets.media import FPS, SAMPLE_RATE, Picture, VideoWriter, probe, read_frames
from datasets.media.container import promised_s
from tests.support.coded_video import DISPLAYS, display_matrix, shown, write_coded


def write_counter(path: Path, count: int, fps: float, size: tuple[int, int] = (64, 48)) -> None:
    """A video whose frame k is grey level 5 * k (modulo 250)."""
    with VideoWriter(path, *size, fps, crf=4, preset="ultrafast") as writer:
        for index in range(count):
            writer.write(np.full((size[1], size[0], 3), 5 * index % 250, np.uint8))


def level(rgb: np.ndarray) -> int:
    return round(float(rgb.mean()) / 5)


def test_frames_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a b ü.mp4"
    write_counter(path, 40, 25)
    frames = list(read_frames(path))
    assert [frame.index for frame in frames] == list(range(40))
    assert [level(frame.rgb) for frame in frames] == list(range(40))
    info = probe(path)
    assert (info.width, info.height, info.has_audio) == (64, 48, False)
    assert info.fps == pytest.approx(25)
    assert info.duration_s == pytest.approx(1.6)


@pytest.mark.parametrize("fps", [30, 30000 / 1001, 50, 15])
def test_other_rates_become_25_by_time(tmp_path: Path, fps: float) -> None:
    path = tmp_path / "a.mp4"
    write_counter(path, 45, fps)
    frames = list(read_frames(path))
    assert abs(len(frames) - 45 / fps * FPS) <= 0.5
    for frame in frames:
        shown_at = level(frame.rgb) / fps
        assert abs(shown_at - frame.index / FPS) <= 0.5 / fps + 1e-6


def test_irregular_times_are_honoured(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    times = [0.0, 0.1, 0.12, 0.5, 0.6, 1.0]
    with VideoWriter(path, 64, 48, 25, crf=4) as writer:
        for index, time in enumerate(times):
            writer.write(np.full((48, 64, 3), 5 * index, np.uint8), time)
    shown = [level(frame.rgb) for frame in read_frames(path)]
    expected = [int(np.argmin([abs(k / FPS - time) for time in times])) for k in range(25)]
    assert shown[:25] == expected
    native = list(read_frames(path, fps=None))
    assert [frame.time_s for frame in native] == pytest.approx(times, abs=1e-4)


def test_a_part_is_the_same_as_in_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_counter(path, 48, 24)
    whole = {frame.index: level(frame.rgb) for frame in read_frames(path)}
    part = {f.index: level(f.rgb) for f in read_frames(path, start_s=0.8, end_s=1.4)}
    assert part == {index: whole[index] for index in range(20, 35)}
    # Frames as they are: the start belongs to a part, the end does not.
    own = list(read_frames(path, fps=None, start_s=12 / 24, end_s=20 / 24))
    assert [level(frame.rgb) for frame in own] == list(range(12, 20))
    assert [frame.index for frame in own] == list(range(8))


def test_a_file_that_is_cut_off_gives_what_it_has(tmp_path: Path) -> None:
    path, cut = tmp_path / "a.ts", tmp_path / "cut.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(50):
            picture = noise.integers(0, 255, (240, 320, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    assert 10 < len(list(read_frames(cut))) < 45


@pytest.mark.parametrize("kind", ["mp4", "avi", "matroska"])
def test_a_file_that_ends_before_its_header_says_is_told(tmp_path: Path, kind: str) -> None:
    path, cut = tmp_path / f"a.{kind}", tmp_path / f"cut.{kind}"
    options = {"movflags": "faststart"} if kind == "mp4" else {}
    with av.open(str(path), "w", format=kind, options=options) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        noise = np.random.default_rng(0)
        for _ in range(100):
            picture = noise.integers(0, 255, (240, 320, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    told: list[tuple[float, float]] = []

    def tell(end_s: float, promised_s: float) -> None:
        told.append((end_s, promised_s))

    list(read_frames(path, on_cut_off=tell))
    list(read_frames(cut, end_s=1.0, on_cut_off=tell))
    assert not told, "a whole file, and a part that is there"
    count = len(list(read_frames(cut, on_cut_off=tell)))
    list(read_frames(cut, start_s=1.0, on_cut_off=tell))
    assert told == [(pytest.approx(count / 25, abs=0.05), pytest.approx(4.0, abs=0.05))] * 2
    assert 30 < count < 70


def write_late(path: Path, kind: str, late_ms: int, tags: dict[str, str] | None = None) -> Path:
    """Four seconds of noise that begin late, next to sound that starts at the beginning."""
    options = {"movflags": "faststart"} if kind in ("mp4", "mov") else {}
    with av.open(str(path), "w", format=kind, options=options) as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.metadata.update(tags or {})
        sound: Any = container.add_stream("mp2" if kind == "mpegts" else "aac", rate=48000)
        sound.codec_context.layout = "mono"
        nothing: Any = np.zeros((1, 48000), np.int16 if kind == "mpegts" else np.float32)
        silence = av.AudioFrame.from_ndarray(
            nothing, format="s16" if kind == "mpegts" else "fltp", layout="mono"
        )
        silence.sample_rate = 48000
        noise = np.random.default_rng(0)
        for index in range(100):
            if index % 25 == 0:
                silence.pts = index // 25 * 48000
                container.mux(sound.encode(silence))
            picture = noise.integers(0, 255, (240, 320, 3), np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture)):
                packet.pts = packet.dts = 40 * index + late_ms
                packet.time_base, packet.duration = Fraction(1, 1000), 40
                container.mux(packet)
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("late_ms", [0, 1000, 3000])
@pytest.mark.parametrize("kind", ["matroska", "mp4", "mov", "mpegts"])
def test_a_video_that_starts_late_is_whole(tmp_path: Path, kind: str, late_ms: int) -> None:
    """Matroska says when a stream ends on the container's clock, others how long it is."""
    path, cut = write_late(tmp_path / "a", kind, late_ms), tmp_path / "cut"
    told: list[tuple[float, float]] = []

    def tell(end_s: float, promised_s: float) -> None:
        told.append((end_s, promised_s))

    frames = list(read_frames(path, on_cut_off=tell))
    assert len(frames) == pytest.approx(100, abs=3)
    assert not told
    assert probe(path).duration_s == pytest.approx(len(frames) / 25, abs=0.1)
    if kind == "mpegts":
        return  # It does not say how long it is.
    content = path.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    count = len(list(read_frames(cut, on_cut_off=tell)))
    assert 20 < count < 80
    ((end, promised),) = told
    assert promised - end == pytest.approx(4 - count / 25, abs=0.15)


def test_lengths_that_mkvmerge_writes_are_lengths(tmp_path: Path) -> None:
    about = {"_STATISTICS_WRITING_APP": "mkvmerge", "DURATION": "00:00:04.000000000"}
    with av.open(str(write_late(tmp_path / "a.mkv", "matroska", 1000, about))) as container:
        stream = container.streams.video[0]
        assert stream.metadata["DURATION"] == "00:00:05.000000000", "FFmpeg writes its own"
        assert promised_s(stream) == pytest.approx(5, abs=0.1)
    with av.open(str(write_late(tmp_path / "b.mkv", "matroska", 1000))) as container:
        assert promised_s(container.streams.video[0]) == pytest.approx(4, abs=0.1)


def test_what_is_no_media_says_so(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    write_counter(whole, 20, 25)
    text, empty, truncated = (tmp_path / name for name in ("t.mp4", "e.mp4", "c.mp4"))
    text.write_text("just words\n" * 200)
    empty.touch()
    truncated.write_bytes(whole.read_bytes()[:400])
    sound = tmp_path / "sound.mp4"
    soundfile.write(tmp_path / "s.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    (tmp_path / "s.wav").rename(sound)
    picture = tmp_path / "p.mp4"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    expected = {
        text: Reason.NOT_MEDIA,
        empty: Reason.EMPTY_FILE,
        truncated: Reason.UNREADABLE,
        sound: Reason.NO_VIDEO,
        picture: Reason.NOT_MEDIA,
        tmp_path / "missing.mp4": Reason.UNREADABLE,
    }
    for path, reason in expected.items():
        with pytest.raises(SourceError) as caught:
            probe(path)
        assert caught.value.reason is reason, path.name


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    write_counter(tmp_path / "a.mp4", 20, 25)
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile {tmp_path / 'a.mp4'}\n")
    with pytest.raises(SourceError):
        probe(playlist)


@pytest.mark.parametrize("size", [(63, 47), (64, 47)])
def test_odd_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    write_counter(tmp_path / "a.mp4", 5, 25, size)
    frame = next(read_frames(tmp_path / "a.mp4"))
    assert frame.rgb.shape == (size[1], size[0], 3)


def test_colours_survive(tmp_path: Path) -> None:
    colours = np.zeros((48, 64, 3), np.uint8)
    colours[:, :32], colours[:, 32:] = (200, 60, 30), (20, 90, 220)
    with VideoWriter(tmp_path / "a.mp4", 64, 48, 25, crf=4) as writer:
        writer.write(colours)
    back = next(read_frames(tmp_path / "a.mp4")).rgb
    for place, colour in ((16, (200, 60, 30)), (48, (20, 90, 220))):
        assert np.abs(back[24, place].astype(int) - colour).max() <= 4


def test_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_counter(tmp_path / name, 30, 25)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with VideoWriter(tmp_path / "a.mp4", 64, 48, 25) as writer:
            writer.write(np.zeros((48, 64, 3), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="does not fit"),
        VideoWriter(tmp_path / "a.mp4", 64, 48, 25) as writer,
    ):
        writer.write(np.zeros((48, 48, 3), np.uint8))


def test_times_must_increase(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    with VideoWriter(tmp_path / "a.mp4", 64, 48, 25) as writer:
        writer.write(picture, 0.5)
        with pytest.raises(ValueError, match="not later"):
            writer.write(picture, 0.5)


@pytest.mark.parametrize("fps", [12.5, 23.976, 25, 29.97, 60])
def test_the_last_picture_lasts_as_long_as_the_others(tmp_path: Path, fps: float) -> None:
    write_counter(tmp_path / "a.mp4", 13, fps)
    info = probe(tmp_path / "a.mp4")
    assert info.duration_s == pytest.approx(13 / fps, abs=1e-3)
    assert info.fps == pytest.approx(fps, abs=0.01)


CORNERS = np.array([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [250, 250, 10]]], np.uint8)
"""Red, green; blue, yellow."""


def cornered(width: int, height: int) -> av.VideoFrame:
    """Four quarters of four colours."""
    picture = np.repeat(np.repeat(CORNERS, height // 2, axis=0), width // 2, axis=1)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=1 if width >= 1280 else 5)


def assert_corners(rgb: np.ndarray, expected: np.ndarray) -> None:
    height, width = rgb.shape[:2]
    for row in (0, 1):
        for column in (0, 1):
            there = rgb[(height - 1) * row, (width - 1) * column].astype(int)
            assert np.abs(there - expected[row, column]).max() < 20, (row, column)


@pytest.mark.parametrize("size", [(96, 64), (1280, 720)])
@pytest.mark.parametrize("name", DISPLAYS)
def test_pictures_stand_as_the_display_matrix_says(
    tmp_path: Path, name: str, size: tuple[int, int]
) -> None:
    """All eight ways; front cameras write mirrored ones."""
    display = DISPLAYS[name]
    path = write_coded(
        tmp_path / "a.mp4",
        [cornered(*size) for _ in range(3)],
        "libx264",
        options={"crf": "4"},
        display=display_matrix(*display),
    )
    expected = shown(CORNERS, *display)
    across = display[0] == 0
    upright = size[::-1] if across else size
    info = probe(path)
    assert (info.width, info.height) == upright
    frames = list(read_frames(path, fps=None))
    assert len(frames) == 3
    for number, frame in enumerate(frames):
        picture = frame.picture
        assert (picture.width, picture.height) == upright
        if number == 0:
            for row in (0, 1):
                for column in (0, 1):
                    x, y = (upright[0] - 9) * column + 2, (upright[1] - 9) * row + 2
                    piece = picture.piece((x, y, x + 4, y + 4))
                    there = piece.rgb[y + 2 - piece.top, x + 2 - piece.left].astype(int)
                    assert np.abs(there - expected[row, column]).max() < 20, (row, column)
        assert_corners(picture.small(), expected)
        assert frame.rgb.shape == (upright[1], upright[0], 3)
        assert_corners(frame.rgb, expected)


@pytest.mark.parametrize(
    ("degrees", "mirrored", "name"),
    [
        (10, False, "upright"),
        (80, False, "a quarter to the right"),
        (-60, False, "a quarter to the left"),
        (200, False, "half a turn"),
        (0, True, "left and right swapped"),
        (20, True, "left and right swapped"),
        (100, True, "rows as columns, half a turn"),
    ],
)
def test_other_angles_are_taken_to_the_nearest_quarter(
    tmp_path: Path, degrees: float, mirrored: bool, name: str
) -> None:
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    numbers = (-cosine, -sine, -sine, cosine) if mirrored else (cosine, sine, -sine, cosine)
    matrix = [round(65536 * each) for each in numbers]
    path = write_coded(
        tmp_path / "a.mp4",
        [cornered(96, 64)],
        "libx264",
        options={"crf": "4"},
        display=display_matrix(*matrix),
    )
    assert_corners(next(read_frames(path)).rgb, shown(CORNERS, *DISPLAYS[name]))


def test_a_matrix_of_zeros_is_none(tmp_path: Path) -> None:
    path = write_coded(
        tmp_path / "a.mp4", [cornered(96, 64)], "libx264", display=display_matrix(0, 0, 0, 0)
    )
    assert_corners(next(read_frames(path)).rgb, CORNERS)


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mpg", "ts", "h264"])
def test_containers_without_times_of_their_own(tmp_path: Path, suffix: str) -> None:
    """Some have no timestamps, some start at odd ones; none may lose frames or seek wrongly."""
    path = tmp_path / f"a.{suffix}"
    codec = {"avi": "mpeg4", "mpg": "mpeg1video"}.get(suffix, "libx264")
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 2_000_000
        for index in range(50):
            grey = np.full((48, 64, 3), 5 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey)))
        container.mux(stream.encode(None))
    frames = list(read_frames(path))
    assert [level(frame.rgb) for frame in frames] == pytest.approx(list(range(50)), abs=1)
    for fps in (25, None):
        part = [(f.time_s, level(f.rgb)) for f in read_frames(path, fps, start_s=1.2, end_s=1.6)]
        whole = [(f.time_s, level(f.rgb)) for f in read_frames(path, fps)]
        inside = [pair for pair in whole if 1.2 - 1e-6 <= pair[0] < 1.6 - 1e-6]
        assert len(part) == 10
        assert np.array(part) == pytest.approx(np.array(inside))


def test_broken_timestamps_neither_flood_nor_starve(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(30):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * index, np.uint8))
            for packet in stream.encode(picture):
                # Ten hours pass between two pictures.
                packet.pts = packet.dts = index * 40 + (36_000_000 if index >= 20 else 0)
                packet.time_base = Fraction(1, 1000)
                container.mux(packet)
    levels = [level(frame.rgb) for frame in read_frames(path)]
    assert levels == pytest.approx(list(range(30)), abs=1)


def test_text_that_a_decoder_would_take_for_subtitles_is_no_media(tmp_path: Path) -> None:
    texts = {
        "srt": "1\n00:00:01,000 --> 00:00:04,000\nHello\n\n",
        "vtt": "WEBVTT\n\n00:01.000 --> 00:04.000\nHello\n",
        "ass": "[Script Info]\n\n[Events]\nDialogue: 0,0:00:01.00,0:00:02.00,,,0,0,0,,a\n",
        "m3u": "#EXTM3U\n#EXTINF:9,\nhttp://localhost/a.ts\n",
        "html": "<html><body>404</body></html>",
        "json": "{}",
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}.mp4"
        path.write_text(text)
        with pytest.raises(SourceError) as caught:
            next(read_frames(path))
        assert caught.value.reason is Reason.NOT_MEDIA, name
        assert str(tmp_path) not in caught.value.detail


def test_a_name_that_looks_like_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_counter(Path("http:a %03d.mp4"), 5, 25)
    assert len(list(read_frames(Path("http:a %03d.mp4")))) == 5


def test_pictures_that_are_not_looked_at_are_not_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = []

    def counted(picture: Picture) -> np.ndarray:
        converted.append(picture)
        return np.zeros((48, 64, 3), np.uint8)

    write_counter(tmp_path / "a.mp4", 100, 50)
    monkeypatch.setattr(Picture, "rgb", property(counted))
    frames = list(read_frames(tmp_path / "a.mp4", start_s=1.0))
    assert len(frames) == 25
    assert converted == []
    assert len({frame.picture for frame in frames}) == 25


def expected_seconds(facts: dict[str, dict[str, str] | float]) -> float:
    """Length of a clip's video by the manifest: by its frames where it counts them."""
    video = facts["video"]
    assert isinstance(video, dict)
    if video["frames"]:
        return float(int(video["frames"]) / Fraction(video["avg_fps"]))
    assert isinstance(facts["duration_s"], float)
    return facts["duration_s"]


CLIPS = (
    "grid_bbaf2n.mpg",
    "retalk_1.mp4",
    "retalk_5.mp4",
    "syncnet_example.avi",
    "clearvoice_001_2faces.avi",
    "hamilton_multiscene_2997.mp4",
    "iplap_129_noaudio_30fps.mp4",
    "liveportrait_d18_silent_track_30fps.mp4",
    "hdtf_WDA_AlexandriaOcasioCortez_000.mp4",
)


@pytest.mark.real
@pytest.mark.parametrize("name", CLIPS)
def test_real_files_have_the_length_they_say(shared: Path, name: str) -> None:
    facts = json.loads((shared / "manifest.json").read_text())[f"clips/{name}"]
    path, frame = shared / "clips" / name, 1 / FPS
    seconds = sum(1 for _ in read_frames(path)) / FPS
    assert seconds == pytest.approx(expected_seconds(facts), abs=frame)
    info = probe(path)
    assert info.start_s == pytest.approx(float(facts["video"]["start"]), abs=1e-3)
    assert (info.width, info.height) == (facts["video"]["w"], facts["video"]["h"])
    assert info.has_audio == (facts["audio"] is not None)
    if info.has_audio:
        assert (info.audio_codec, info.audio_rate, info.audio_channels) == (
            facts["audio"]["codec"],
            facts["audio"]["rate"],
            facts["audio"]["ch"],
        )


@pytest.mark.real
def test_real_portrait_in_hevc(shared: Path) -> None:
    path = shared / "clips" / "latentsync_demo3_30fps.mp4"
    part = list(read_frames(path, start_s=2.0, end_s=2.4))
    assert [frame.index for frame in part] == list(range(50, 60))
    assert all(frame.rgb.shape == (1920, 1080, 3) for frame in part)
    assert 40 < part[0].rgb.mean() < 215


def test_oblong_pixels_become_square(tmp_path: Path) -> None:
    path = tmp_path / "dv.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    assert [frame.rgb.shape for frame in read_frames(path)] == [(48, 96, 3)] * 3
    assert (probe(path).width, probe(path).height) == (96, 48)
