"""Reading and writing media: timestamps, start times, damage, odd files."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from datasets.errors import Reason, SourceError
from datasets.media import (
    FPS,
    SAMPLE_RATE,
    VideoWriter,
    probe,
    read_audio,
    read_frames,
    shift_audio,
    write_flac,
)


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
    assert len(frames) == round(45 / fps * FPS)
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


def test_sound_goes_along_and_keeps_its_time(tmp_path: Path) -> None:
    wav, path = tmp_path / "click.wav", tmp_path / "a.mp4"
    sound = np.zeros(44100 * 2, np.float32)
    sound[44100:44500] = 0.8  # a click at one second
    soundfile.write(wav, np.stack([sound, sound], axis=1), 44100)
    with VideoWriter(path, 64, 48, 25, audio=wav) as writer:
        for _ in range(40):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    info = probe(path)
    assert (info.audio_rate, info.audio_channels, info.audio_codec) == (44100, 2, "aac")
    audio = read_audio(path)
    assert len(audio) == pytest.approx(1.6 * SAMPLE_RATE, abs=1100)
    loud = np.flatnonzero(np.abs(audio) > 0.3)
    assert loud[0] == pytest.approx(SAMPLE_RATE, abs=80)
    # Once more from there: now the stream is copied and not encoded a second time.
    copy = tmp_path / "b.mp4"
    with VideoWriter(copy, 64, 48, 25, audio=path) as writer:
        for _ in range(40):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    again = np.flatnonzero(np.abs(read_audio(copy)) > 0.3)
    assert again[0] == pytest.approx(loud[0], abs=32)


def test_sound_of_other_rates(tmp_path: Path) -> None:
    for rate in (8000, 22050, 16000):
        path = tmp_path / f"{rate}.wav"
        time = np.arange(rate) / rate
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * time), rate)
        audio = read_audio(path)
        assert len(audio) == pytest.approx(SAMPLE_RATE, abs=40)
        spectrum = np.abs(np.fft.rfft(audio[:SAMPLE_RATE]))
        assert np.argmax(spectrum) * SAMPLE_RATE / len(audio) == pytest.approx(440, abs=2)
        assert len(read_audio(path, duration_s=1.5)) == 24000


def test_a_video_without_sound_says_so(tmp_path: Path) -> None:
    write_counter(tmp_path / "a.mp4", 10, 25)
    with pytest.raises(SourceError) as caught:
        read_audio(tmp_path / "a.mp4")
    assert caught.value.reason is Reason.NO_AUDIO


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


@pytest.mark.parametrize("frames", [-9, -0.5, 0, 3, 9])
def test_shifts_are_exact_to_the_sample(frames: float) -> None:
    audio = np.arange(20000, dtype=np.float32) / 20000
    late = round(frames * 640)
    moved = shift_audio(audio, frames)
    assert len(moved) == len(audio)
    middle = np.arange(6000, 14000)
    assert np.array_equal(moved[middle], audio[middle + late])


def test_flac_is_lossless_in_16_bits(tmp_path: Path) -> None:
    audio = (np.random.default_rng(0).integers(-9999, 9999, 5000) / 32768).astype(np.float32)
    write_flac(tmp_path / "a.flac", audio, SAMPLE_RATE)
    assert np.array_equal(read_audio(tmp_path / "a.flac"), audio)


def test_real_files_have_the_length_they_say(shared: Path) -> None:
    manifest = json.loads((shared / "manifest.json").read_text())
    for name in ("grid_bbaf2n.mpg", "retalk_1.mp4", "syncnet_example.avi", "retalk_5.mp4"):
        path = shared / "clips" / name
        seconds = sum(1 for _ in read_frames(path)) / FPS
        assert seconds == pytest.approx(manifest[f"clips/{name}"]["duration_s"], abs=0.05)
        assert len(read_audio(path)) / SAMPLE_RATE == pytest.approx(seconds, abs=0.1)


def test_the_video_that_starts_late_is_the_zero_of_its_sound(shared: Path) -> None:
    path = shared / "clips" / "hamilton_multiscene_2997.mp4"
    assert probe(path).start_s == pytest.approx(0.852, abs=0.001)
    frames = sum(1 for _ in read_frames(path))
    assert len(read_audio(path)) / SAMPLE_RATE == pytest.approx(frames / FPS, abs=0.1)
