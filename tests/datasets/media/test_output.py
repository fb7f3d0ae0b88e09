"""What a video can be written as and where, and what is in the file."""

import shutil
from collections import namedtuple
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from datasets.errors import UserError
from datasets.media import VideoWriter, probe, read_audio, read_frames
from datasets.media.colour import SDR, Colours
from datasets.media.form import CONTAINERS, Kind, form_for
from datasets.media.output import check_output
from datasets.media.rates import constant_rate, exact_rate

SUFFIXES = [".mp4", ".m4v", ".mov", ".mkv", ".webm"]


def write_grey(
    path: Path, count: int, fps: float | Fraction = 25, audio: Path | None = None
) -> Path:
    with VideoWriter(path, 64, 48, fps, crf=8, preset="ultrafast", audio=audio) as writer:
        for index in range(count):
            writer.write(np.full((48, 64, 3), 5 * index % 250, np.uint8))
    return path


def sound(path: Path, channels: int = 1, rate: int = 44100, seconds: float = 2.0) -> Path:
    """A tone of its own on each channel."""
    time = np.arange(round(rate * seconds)) / rate
    tones = [0.3 * np.sin(2 * np.pi * (300 + 110 * each) * time) for each in range(channels)]
    soundfile.write(path, np.stack(tones, axis=1), rate)
    return path


@pytest.mark.parametrize(
    ("suffix", "container", "video", "audio"),
    [
        (".mp4", "mov,mp4,m4a,3gp,3g2,mj2", "h264", "aac"),
        (".M4V", "mov,mp4,m4a,3gp,3g2,mj2", "h264", "aac"),
        (".mov", "mov,mp4,m4a,3gp,3g2,mj2", "h264", "pcm_s16le"),
        (".mkv", "matroska,webm", "h264", "pcm_s16le"),
        (".webm", "matroska,webm", "vp9", "opus"),
    ],
)
def test_the_suffix_decides_what_is_written(
    tmp_path: Path, suffix: str, container: str, video: str, audio: str
) -> None:
    path = tmp_path / f"a{suffix}"
    write_grey(path, 40, audio=sound(tmp_path / "s.wav", 2))
    with av.open(str(path)) as file:
        assert file.format.name == container
        assert file.streams.video[0].codec_context.name == video
        assert file.streams.audio[0].codec_context.name in (audio, f"lib{audio}")
    head = path.read_bytes()[:60]
    assert (b"qt  " in head) == (suffix == ".mov")
    assert (b"webm" in head) == (suffix == ".webm")
    assert (b"matroska" in head) == (suffix == ".mkv")
    levels = [round(float(frame.rgb.mean()) / 5) for frame in read_frames(path)]
    assert levels == pytest.approx(list(range(40)), abs=1)
    heard = read_audio(path)
    spectrum = np.abs(np.fft.rfft(heard[4000:20000]))
    assert np.argsort(spectrum)[-1] in (300, 410)
    # Packets that are copied are not cut.
    assert len(heard) / 16000 == pytest.approx(1.6, abs=0.1)


@pytest.mark.parametrize(
    ("suffix", "source", "kept"),
    [
        (".mp4", "flac", "aac"),
        (".mov", "flac", "aac"),
        (".mkv", "flac", "flac"),
        (".webm", "flac", "opus"),
    ],
)
def test_sound_is_copied_where_the_container_holds_it(
    tmp_path: Path, suffix: str, source: str, kept: str
) -> None:
    path = write_grey(tmp_path / f"a{suffix}", 30, audio=sound(tmp_path / f"s.{source}"))
    assert probe(path).audio_codec in (kept, f"lib{kept}")


def test_opus_is_copied_into_webm(tmp_path: Path) -> None:
    first = write_grey(tmp_path / "a.webm", 50, audio=sound(tmp_path / "s.wav"))
    again = write_grey(tmp_path / "b.webm", 50, audio=first)
    before, after = (read_audio(path)[2000:28000] for path in (first, again))
    assert np.abs(before - after).max() < 0.02


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_sound_keeps_its_place(tmp_path: Path, suffix: str) -> None:
    click = np.zeros(44100 * 2)
    click[44100:44500] = 0.8
    soundfile.write(tmp_path / "s.wav", click, 44100)
    path = write_grey(tmp_path / f"a{suffix}", 45, audio=tmp_path / "s.wav")
    loud = np.flatnonzero(np.abs(read_audio(path)) > 0.3)
    assert loud[0] == pytest.approx(16000, abs=80)
    # And once more, copied.
    again = write_grey(tmp_path / f"b{suffix}", 45, audio=path)
    loud = np.flatnonzero(np.abs(read_audio(again)) > 0.3)
    assert loud[0] == pytest.approx(16000, abs=80)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_surround_sound_keeps_its_channels(tmp_path: Path, suffix: str) -> None:
    path = write_grey(tmp_path / f"a{suffix}", 45, audio=sound(tmp_path / "s.wav", 6, 48000))
    with av.open(str(path)) as container:
        context: Any = container.streams.audio[0].codec_context
        assert context.channels == 6
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
    # The front pair has tones of its own; encoders may order the others in their own way.
    whole = np.concatenate(parts, axis=1)
    if whole.shape[0] == 1:
        whole = whole.reshape(-1, 6).T
    for channel in (0, 1):
        spectrum = np.abs(np.fft.rfft(whole[channel, 8000:56000].astype(float)))
        assert np.argmax(spectrum) == pytest.approx(300 + 110 * channel, abs=2)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (23.976, Fraction(24000, 1001)),
        (24000 / 1001, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        (24, Fraction(24)),
        (25, Fraction(25)),
        (50, Fraction(50)),
        (12.5, Fraction(25, 2)),
    ],
)
def test_the_rate_is_exact(tmp_path: Path, suffix: str, fps: float, rate: Fraction) -> None:
    path = write_grey(tmp_path / f"a{suffix}", 47, fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        said = stream.average_rate
        base = stream.time_base
        times = [frame.pts for frame in container.decode(video=0)]
    assert base is not None
    assert said is not None
    # Matroska stores a frame's nanoseconds, which FFmpeg makes a fraction below 30000 of.
    coarse = suffix in (".mkv", ".webm") and rate.numerator > 30000
    assert (exact_rate(float(said)) if coarse else said) == rate
    steps = set(np.diff(np.array(times, np.int64)).tolist())
    if suffix in (".mkv", ".webm"):
        # These count milliseconds.
        assert np.array(times) * float(base) == pytest.approx(np.arange(47) / float(rate), abs=6e-4)
    else:
        assert len(steps) == 1
        assert steps.pop() * base == 1 / rate


def test_times_of_a_rate_that_changes_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.12, 0.5, 0.6, 1.0]
    for fps in (25, 23.976, 24.73):
        path = tmp_path / "a.mp4"
        with VideoWriter(path, 64, 48, fps) as writer:
            for time in times:
                writer.write(np.zeros((48, 64, 3), np.uint8), time)
        read = [frame.time_s for frame in read_frames(path, fps=None)]
        assert read == pytest.approx(times, abs=2e-5)


def test_rates_that_are_meant() -> None:
    assert exact_rate(23.976) == exact_rate(23.9760239) == Fraction(24000, 1001)
    assert exact_rate(24.0) == 24
    assert exact_rate(29.97) == Fraction(30000, 1001)
    assert exact_rate(29.9996) == 30
    assert exact_rate(23.81) == Fraction(2381, 100)
    assert exact_rate(7.5) == Fraction(15, 2)


def test_a_constant_rate_is_seen_through_milliseconds() -> None:
    film = np.arange(5000) * 1001 / 24000
    assert constant_rate(np.round(film, 3), 23.976) == Fraction(24000, 1001)
    assert constant_rate(np.floor(film * 1000) / 1000, 23.98) == Fraction(24000, 1001)
    assert constant_rate(np.arange(100) / 25, 50.0) == 25
    assert constant_rate(np.arange(1) / 25, 50.0) == 50
    skipped = np.delete(film, 2000)
    assert constant_rate(skipped, 23.976) is None
    assert constant_rate(np.array([0.0, 0.1, 0.12, 0.5]), 25) is None


@pytest.mark.parametrize("name", ["a.avi", "a", "a.mpg", "a.ts", "a.gif", "a.mp4.part"])
def test_other_suffixes_are_refused_at_once(tmp_path: Path, name: str) -> None:
    sentence = r"its name must end in .mp4, .m4v, .mov, .mkv or .webm"
    with pytest.raises(UserError, match=sentence):
        check_output(tmp_path / name)
    with pytest.raises(UserError, match=sentence):
        VideoWriter(tmp_path / name, 64, 48, 25)
    assert not list(tmp_path.iterdir())


def test_places_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, file = tmp_path / "folder.mp4", tmp_path / "file"
    folder.mkdir()
    file.write_bytes(b"12345")
    given = tmp_path / "given.mp4"
    given.write_bytes(b"x" * 40)
    (tmp_path / "link.mp4").symlink_to(given)
    for path, sentence in (
        (folder, "is a folder"),
        (file / "a.mp4", r"file is not a folder"),
        (file / "deeper" / "a.mp4", r"file is not a folder"),
        (tmp_path / f"{'n' * 250}.mp4", "has 254 bytes, but only 241 fit"),
        (tmp_path / f"{'ü' * 125}.mp4", "has 254 bytes"),
        (tmp_path / f"{'n' * 300}.mp4", "too long|bytes"),
        (given, "is one of the inputs"),
        (tmp_path / "link.mp4", "is one of the inputs"),
    ):
        with pytest.raises(UserError, match=sentence):
            check_output(path, [given])
    assert check_output(tmp_path / "new" / "deeper" / "a.mp4", [given]) == "mp4"
    assert check_output(tmp_path / f"{'n' * 237}.mp4") == "mp4"
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="no permission in"):
        check_output(tmp_path / "a.mp4")


def test_a_full_disk_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "given.mp4"
    with given.open("wb") as file:
        file.truncate(100_000_000)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 20_000_000))
    with pytest.raises(UserError, match=r"about 25 MB or more, and 20.0 MB are free"):
        check_output(tmp_path / "a.mp4", [given])
    assert check_output(tmp_path / "a.mp4") == "mp4"


def test_what_is_not_kept_is_said() -> None:
    pq = Colours(9, False, 16, 9)
    with pytest.raises(UserError, match=r"HDR cannot be written as .webm"):
        form_for(Kind(pq, 10), 64, 48, "webm")
    assert form_for(Kind(pq, 10), 64, 48, "webm", tone_map=True).colours == SDR
    (note,) = form_for(Kind(SDR, 10), 64, 48, "webm").notes
    assert note.startswith("the video's 10 bits per sample were reduced to 8")
    (note,) = form_for(Kind(interlaced=True), 64, 48).notes
    assert note.startswith("the video is interlaced")
    (note,) = form_for(Kind(pq, 10, alpha=True), 64, 48, "matroska").notes
    assert note.startswith("the video's transparency is lost")
    for container in set(CONTAINERS.values()):
        assert form_for(Kind(), 64, 48, container).notes == ()


def test_odd_sizes_in_every_container(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        with VideoWriter(path, 63, 47, 25) as writer:
            for _ in range(3):
                writer.write(np.full((47, 63, 3), 90, np.uint8))
        info = probe(path)
        assert (info.width, info.height) == (63, 47)
        assert np.abs(next(read_frames(path)).rgb.astype(int) - 90).max() <= 2
