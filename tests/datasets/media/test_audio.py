"""Sound on the timeline of its video: reading, shifting, storing, going along."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.signal import correlate

from datasets.errors import Reason, SourceError
from datasets.media import FPS, SAMPLE_RATE, VideoWriter, probe, read_audio, read_frames, write_flac
from datasets.media.audio import AudioWindow, fit_length, loud_frames

MILLISECONDS = Fraction(1, 1000)
BLACK = np.zeros((48, 64, 3), np.uint8)


def write_black(path: Path, count: int, audio: Path | None = None) -> Path:
    with VideoWriter(path, 64, 48, 25, preset="ultrafast", audio=audio) as writer:
        for _ in range(count):
            writer.write(BLACK)
    return path


def chirp(seconds: float, rate: int) -> NDArray[np.float64]:
    """A rising tone: no stretch of it looks like another one."""
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (200 * time + 300 * time**2))


def lag(heard: NDArray[np.float32], true: NDArray[np.float64], reach: int = 800) -> int:
    """Samples by which `heard` is later than `true`."""
    count = min(len(heard), len(true)) - 2 * reach
    middle = heard[reach : reach + count]
    fits = correlate(true[: count + 2 * reach], middle, mode="valid", method="fft")
    return reach - int(np.argmax(fits))


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
    write_black(tmp_path / "a.mp4", 10)
    with pytest.raises(SourceError) as caught:
        read_audio(tmp_path / "a.mp4")
    assert caught.value.reason is Reason.NO_AUDIO


def test_flac_is_lossless_in_16_bits(tmp_path: Path) -> None:
    audio = (np.random.default_rng(0).integers(-9999, 9999, 5000) / 32768).astype(np.float32)
    write_flac(tmp_path / "a.flac", audio, SAMPLE_RATE)
    assert np.array_equal(read_audio(tmp_path / "a.flac"), audio)


@pytest.mark.real
def test_the_video_that_starts_late_is_the_zero_of_its_sound(shared: Path) -> None:
    path = shared / "clips" / "hamilton_multiscene_2997.mp4"
    assert probe(path).start_s == pytest.approx(0.852, abs=0.001)
    frames = sum(1 for _ in read_frames(path))
    assert len(read_audio(path)) / SAMPLE_RATE == pytest.approx(frames / FPS, abs=0.1)


@pytest.mark.parametrize("channels", [1, 2])
def test_as_many_channels_as_there_are_the_loudness_stays(tmp_path: Path, channels: int) -> None:
    sound = 0.95 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    soundfile.write(tmp_path / "a.wav", np.stack([sound] * channels, axis=1), 44100)
    assert np.abs(read_audio(tmp_path / "a.wav")[800:-800]).max() == pytest.approx(0.95, abs=0.01)


def test_surround_is_mixed_and_not_wrapped(tmp_path: Path) -> None:
    sound = np.zeros((48000, 6))
    sound[:, 2] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)
    soundfile.write(tmp_path / "a.wav", sound, 48000)
    centre = np.abs(read_audio(tmp_path / "a.wav")).max()
    assert 0.3 < centre < 0.6
    sound[:] = 0.9
    soundfile.write(tmp_path / "b.wav", sound, 48000)
    assert read_audio(tmp_path / "b.wav").max() <= 1


@pytest.mark.parametrize(("video_ms", "audio_ms"), [(0, 500), (840, 0), (0, 0), (600, 600)])
def test_whichever_stream_starts_first_zero_is_the_first_picture(
    tmp_path: Path, video_ms: int, audio_ms: int
) -> None:
    path = tmp_path / "a.mkv"
    sound = chirp(3, SAMPLE_RATE)
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = container.add_stream("pcm_s16le", rate=SAMPLE_RATE)
        audio.codec_context.layout = "mono"
        for index in range(50):
            picture = av.VideoFrame.from_ndarray(BLACK)
            for packet in video.encode(picture):
                packet.pts = packet.dts = index * 40 + video_ms
                packet.time_base = MILLISECONDS
                container.mux(packet)
            block = (32767 * sound[index * 640 : (index + 1) * 640]).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            for packet in audio.encode(frame):
                packet.pts = packet.dts = index * 40 + audio_ms
                packet.time_base = MILLISECONDS
                container.mux(packet)
    assert len(list(read_frames(path))) == 50
    heard = read_audio(path)
    late = (audio_ms - video_ms) * SAMPLE_RATE // 1000
    assert len(heard) == pytest.approx(2 * SAMPLE_RATE + late, abs=32)
    if late > 0:
        assert not heard[: late - 32].any()
    expected = np.concatenate([np.zeros(max(0, late)), sound[max(0, -late) :]])
    assert np.abs(heard[:16000] - expected[:16000]).max() < 0.01


def write_blocks(path: Path, sound: NDArray[np.float64], places: list[tuple[int, int]]) -> None:
    """Sound in blocks of 40 ms: the stamp of each, and where it begins in `sound`, in ms."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=SAMPLE_RATE)
        stream.codec_context.layout = "mono"
        for at, true in places:
            first = true * SAMPLE_RATE // 1000
            block = (32767 * sound[first : first + 640]).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            for packet in stream.encode(frame):
                packet.pts = packet.dts = at
                packet.time_base = MILLISECONDS
                container.mux(packet)


def test_holes_become_silence_and_overlaps_do_not_push(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    sound = chirp(3, SAMPLE_RATE)
    starts = [0, 40, 80, 400, 440, 480, 490, 36_000_000, 36_000_040]
    far = 36_000_000 - 530
    write_blocks(path, sound, [(at, at if at < 1000 else at - far) for at in starts])
    heard = read_audio(path)
    assert len(heard) == 610 * 16
    expected = sound[: len(heard)].copy()
    expected[120 * 16 : 400 * 16] = 0
    assert np.abs(heard - expected).max() < 0.02


def test_jitter_of_the_timestamps_does_not_reach_the_samples(tmp_path: Path) -> None:
    """Up to 20 ms from the end of the earlier sound; sound further away is placed by its time."""
    sound = chirp(3, SAMPLE_RATE)
    jitter = [0, 9, -7, 15, -12, 3, -15, 18, 0, -2]
    places = [(40 * k + jitter[k % 10], 40 * k) for k in range(30)]
    write_blocks(tmp_path / "a.mkv", sound, places)
    heard = read_audio(tmp_path / "a.mkv")
    assert len(heard) == 30 * 640
    assert np.abs(heard - sound[: len(heard)]).max() < 0.01
    late = [(40 * k + 30 * (k >= 10), 40 * k) for k in range(20)]
    write_blocks(tmp_path / "b.mkv", sound, late)
    heard = read_audio(tmp_path / "b.mkv")
    assert not heard[6400 : 6400 + 480].any()
    assert np.abs(heard[6880 : 6880 + 6400] - sound[6400:12800]).max() < 0.01


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000])
def test_sound_that_goes_along_is_not_moved(tmp_path: Path, rate: int) -> None:
    true = chirp(3, SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", chirp(3, rate), rate)
    once = write_black(tmp_path / "once.mp4", 50, tmp_path / "a.wav")
    twice = write_black(tmp_path / "twice.mp4", 50, once)
    for path in (once, twice):
        info = probe(path)
        assert (info.audio_rate, info.audio_channels, info.start_s) == (rate, 1, 0.0)
        heard = read_audio(path)
        assert len(heard) / SAMPLE_RATE == pytest.approx(2, abs=0.07)
        assert abs(lag(heard, true)) <= 1


@pytest.mark.real
def test_sound_goes_along_from_its_own_first_picture(tmp_path: Path, shared: Path) -> None:
    source = shared / "clips" / "hamilton_multiscene_2997.mp4"
    path = write_black(tmp_path / "a.mp4", 100, source)
    true = read_audio(source).astype(np.float64)
    assert abs(lag(read_audio(path), true)) <= 1
    assert probe(path).audio_codec == "aac"


def test_bytes_with_sound_are_the_same_every_time(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", chirp(3, 44100), 44100)
    write_flac(tmp_path / "a.flac", chirp(1, SAMPLE_RATE).astype(np.float32), SAMPLE_RATE)
    write_flac(tmp_path / "b.flac", chirp(1, SAMPLE_RATE).astype(np.float32), SAMPLE_RATE)
    first = write_black(tmp_path / "a.mp4", 50, tmp_path / "a.wav")
    second = write_black(tmp_path / "b.mp4", 50, tmp_path / "a.wav")
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a.flac").read_bytes() == (tmp_path / "b.flac").read_bytes()


def test_a_file_without_sound_cannot_go_along(tmp_path: Path) -> None:
    silent = write_black(tmp_path / "silent.mp4", 5)
    with pytest.raises(SourceError) as caught:
        write_black(tmp_path / "a.mp4", 5, silent)
    assert caught.value.reason is Reason.NO_AUDIO
    assert [path.name for path in tmp_path.iterdir()] == ["silent.mp4"]


REAL = ("grid_bbaf2n.mpg", "retalk_1.mp4", "syncnet_example.avi", "clearvoice_001_2faces.avi")


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_sound_is_as_long_as_its_video(shared: Path, name: str) -> None:
    path = shared / "clips" / name
    seconds = sum(1 for _ in read_frames(path)) / FPS
    assert len(read_audio(path)) / SAMPLE_RATE == pytest.approx(seconds, abs=1.5 / FPS)


@pytest.mark.real
def test_a_track_of_silence_is_silence(shared: Path) -> None:
    heard = read_audio(shared / "clips" / "liveportrait_d18_silent_track_30fps.mp4")
    assert len(heard) > 7 * SAMPLE_RATE
    assert not heard.any()


@pytest.mark.real
@pytest.mark.parametrize("name", ["jfk.flac", "LJ001-0001.wav", "retalk_1.wav"])
def test_real_sound_alone(shared: Path, name: str) -> None:
    path = shared / "audio" / name
    raw, rate = soundfile.read(path, always_2d=True)
    heard = read_audio(path)
    assert len(heard) == pytest.approx(len(raw) * SAMPLE_RATE / rate, abs=1)
    own = read_audio(path, rate=rate)
    assert np.abs(own - raw.mean(1)).max() < 1e-4


def test_a_window_gives_the_same_samples_as_the_whole(shared: Path) -> None:
    for name in ("retalk_1.mp4", "syncnet_example.avi", "hamilton_multiscene_2997.mp4"):
        path = shared / "clips" / name
        whole = read_audio(path)
        with AudioWindow(path) as window:
            for begin in (-1000, 0, 5, 40_000, 30_000, 70_001):
                part = window.part(begin, 16_000)
                expected = np.zeros(16_000, np.float32)
                inside = whole[max(begin, 0) : begin + 16_000]
                expected[max(-begin, 0) : max(-begin, 0) + len(inside)] = inside
                assert np.array_equal(part, expected), (name, begin)


def test_a_window_holds_little_and_says_what_is_gone(tmp_path: Path) -> None:
    audio = np.random.default_rng(3).uniform(-0.5, 0.5, 60 * SAMPLE_RATE).astype(np.float32)
    write_flac(tmp_path / "a.flac", audio, SAMPLE_RATE)
    whole = read_audio(tmp_path / "a.flac")
    with AudioWindow(tmp_path / "a.flac") as window:
        largest = 0
        for second in range(58):
            begin = second * SAMPLE_RATE
            part = window.part(begin, 2 * SAMPLE_RATE)
            assert np.array_equal(part, whole[begin : begin + 2 * SAMPLE_RATE])
            window.forget(begin - SAMPLE_RATE)
            largest = max(largest, len(window._kept))
        assert largest < 8 * SAMPLE_RATE
        with pytest.raises(ValueError, match="were dropped"):
            window.part(0, 10)
    with AudioWindow(tmp_path / "a.flac") as window:
        window.forget(50 * SAMPLE_RATE)
        part = window.part(51 * SAMPLE_RATE, SAMPLE_RATE)
        assert np.array_equal(part, whole[51 * SAMPLE_RATE : 52 * SAMPLE_RATE])
        assert len(window._kept) < 8 * SAMPLE_RATE
        assert not window.part(-20, 10).any()
        assert not window.part(61 * SAMPLE_RATE, 10).any()


def test_loud_frames_are_counted_until_there_are_enough(tmp_path: Path) -> None:
    audio = np.zeros(20 * SAMPLE_RATE, np.float32)
    audio[5 * SAMPLE_RATE : 7 * SAMPLE_RATE] = 0.1
    write_flac(tmp_path / "a.flac", audio, SAMPLE_RATE)
    assert loud_frames(tmp_path / "a.flac", 1e-3, 1000) == pytest.approx(2 * FPS, abs=1)
    assert loud_frames(tmp_path / "a.flac", 1e-3, 3) == 3
    mute = write_black(tmp_path / "b.mp4", 3)
    with pytest.raises(SourceError, match="no_audio"):
        loud_frames(mute, 1e-3, 1)


def test_two_channels_are_averaged_whichever_of_them_speaks(tmp_path: Path) -> None:
    left, right = chirp(1.0, SAMPLE_RATE), 0.3 * chirp(1.0, SAMPLE_RATE)[::-1]
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), SAMPLE_RATE, "FLOAT")
    expected = (left + right) / 2
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), expected, atol=1e-5)
    with AudioWindow(tmp_path / "a.wav") as window:
        np.testing.assert_allclose(window.part(100, 9000), expected[100:9100], atol=1e-5)


@pytest.mark.parametrize(("level", "loud"), [(2e-3, 50), (5e-4, 0)])
def test_a_frame_is_loud_from_its_root_mean_square_on(
    tmp_path: Path, level: float, loud: int
) -> None:
    """Half of the samples of either sign, so that their mean says nothing."""
    audio = level * np.where(np.arange(2 * SAMPLE_RATE) % 2, 1.0, -1.0).astype(np.float32)
    write_flac(tmp_path / "a.flac", audio, SAMPLE_RATE)
    assert loud_frames(tmp_path / "a.flac", 1e-3, 1000) == loud


def test_fitting_cuts_and_fills_at_the_end() -> None:
    sound = np.arange(1, 5, dtype=np.float32)
    assert fit_length(sound, 6).tolist() == [1, 2, 3, 4, 0, 0]
    assert fit_length(sound, 2).tolist() == [1, 2]
    assert fit_length(sound, 4).tolist() == [1, 2, 3, 4]
    assert fit_length(sound, 6).dtype == np.float32


def test_a_length_that_is_asked_for_is_cut_or_filled(tmp_path: Path) -> None:
    sound = chirp(1.0, SAMPLE_RATE).astype(np.float32)
    write_flac(tmp_path / "a.flac", sound, SAMPLE_RATE)
    for seconds in (0.5, 1.0, 1.7):
        found = read_audio(tmp_path / "a.flac", duration_s=seconds)
        assert len(found) == round(seconds * SAMPLE_RATE)
        inside = min(len(found), len(sound))
        np.testing.assert_allclose(found[:inside], sound[:inside], atol=1e-4)
        assert not found[inside:].any()
