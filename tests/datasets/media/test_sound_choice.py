"""Which of several streams of sound is heard, and how channels become one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from av.stream import Disposition
from numpy.typing import NDArray

from datasets.media import SAMPLE_RATE, VideoWriter, probe, read_audio
from datasets.media.audio import AudioWindow, loud_frames
from datasets.media.container import open_container
from datasets.media.sound_choice import SILENCE, audio_stream, count_loud, mono

DEFAULT = Disposition.default
NONE = Disposition(0)
SECONDS = 2
Track = tuple[float, Disposition, str]
"""Frequency of its tone, 0 for silence; flags; language."""


def tone(hertz: float, seconds: float = SECONDS) -> NDArray[np.float64]:
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def write_tracks(path: Path, tracks: Sequence[Track], language: str = "") -> Path:
    """A video with tracks of sound, whose language may be given."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if language:
            video.metadata["language"] = language
        sounds = []
        for hertz, flags, spoken in tracks:
            stream: Any = container.add_stream("pcm_s16le", rate=SAMPLE_RATE)
            stream.codec_context.layout = "mono"
            stream.disposition = flags
            if spoken:
                stream.metadata["language"] = spoken
            sounds.append((stream, tone(hertz)))
        for index in range(25 * SECONDS):
            picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
            container.mux(video.encode(picture))
            for stream, sound in sounds:
                part = (32767 * sound[index * 640 : (index + 1) * 640]).astype(np.int16)[None]
                frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
                frame.sample_rate, frame.pts = SAMPLE_RATE, index * 640
                container.mux(stream.encode(frame))
        for stream in (video, *(stream for stream, _ in sounds)):
            container.mux(stream.encode(None))
    return path


def pitch(sound: NDArray[np.float32]) -> float:
    """Frequency of the sound that is heard, in Hz; 0 for silence."""
    if np.abs(sound).max() < SILENCE:
        return 0.0
    spectrum = np.abs(np.fft.rfft(sound))
    return float(np.argmax(spectrum)) * SAMPLE_RATE / len(sound)


ENGLISH, COMMENT = (300, DEFAULT, "eng"), (500, DEFAULT | Disposition.comment, "eng")
CHOICES: list[tuple[str, list[Track], str, float]] = [
    ("the first", [(300, NONE, ""), (400, NONE, "")], "", 300),
    ("the default", [(300, NONE, ""), (400, DEFAULT, "")], "", 400),
    ("one in the picture's language", [ENGLISH, (400, DEFAULT, "deu")], "ger", 300),
    ("the picture's language", [ENGLISH, (400, DEFAULT, "ger")], "ger", 400),
    ("the flag before the language", [ENGLISH, (400, NONE, "ger")], "ger", 300),
    ("no dubbing", [(300, DEFAULT | Disposition.dub, ""), (400, DEFAULT, "")], "", 400),
    ("no commentary", [COMMENT, (400, NONE, "")], "", 400),
    (
        "no description",
        [(300, DEFAULT | Disposition.visual_impaired, ""), (400, NONE, "")],
        "",
        400,
    ),
    ("commentary rather than nothing", [COMMENT, (0, NONE, "")], "", 500),
    ("no silence", [(0, DEFAULT, ""), (0, DEFAULT, ""), (400, NONE, "")], "", 400),
    ("the first of silence", [(0, NONE, ""), (0, DEFAULT, "")], "", 0),
]


@pytest.mark.parametrize(("said", "found"), [("ENG", "eng"), ("deu", "deu"), ("und", ""), ("", "")])
def test_the_language_is_the_one_that_the_container_says(
    tmp_path: Path, said: str, found: str
) -> None:
    path = write_tracks(tmp_path / "a.mkv", [(0, NONE, "fra"), (300, NONE, said)])
    with AudioWindow(path) as window:
        assert window.language == found


@pytest.mark.parametrize(
    ("tracks", "language", "heard"), [each[1:] for each in CHOICES], ids=[c[0] for c in CHOICES]
)
def test_the_stream_that_a_player_takes_is_heard_unless_it_is_silent(
    tmp_path: Path, tracks: list[Track], language: str, heard: float
) -> None:
    path = write_tracks(tmp_path / "a.mkv", tracks, language)
    with open_container(path) as container:
        kept = [(s.disposition & ~Disposition.original) for s in container.streams.audio]
    assert kept == [flags for _, flags, _ in tracks], "the file says what the table says"
    assert pitch(read_audio(path)) == pytest.approx(heard, abs=1)
    with AudioWindow(path) as window:
        assert pitch(window.part(0, SAMPLE_RATE)) == pytest.approx(heard, abs=1)
    assert loud_frames(path, SILENCE, 20) == (20 if heard else 0)
    # What goes along with the pictures is the same one.
    copy = tmp_path / "b.mp4"
    with VideoWriter(copy, 64, 48, 25, audio=path) as writer:
        for _ in range(25 * SECONDS):
            writer.write(np.zeros((48, 64, 3), np.uint8))
    assert pitch(read_audio(copy)[:SAMPLE_RATE]) == pytest.approx(heard, abs=1)


def test_the_choice_is_said_where_there_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    silent = (0.0, DEFAULT, "eng")
    path = write_tracks(tmp_path / "a.mkv", [silent, (400.0, NONE, "fra")])
    with caplog.at_level("INFO"), AudioWindow(path) as window:
        assert window.about == "audio stream 2 of 2 (fra) is heard"
    assert "since 1 would come first but are silent" in caplog.text
    alone = write_tracks(tmp_path / "b.mkv", [silent])
    with AudioWindow(alone) as window:
        assert window.about == ""


def test_a_click_is_no_sound_and_another_file_of_the_same_name_is_looked_at(
    tmp_path: Path,
) -> None:
    path = write_tracks(tmp_path / "a.mkv", [(0, DEFAULT, ""), (400, NONE, "")])
    assert pitch(read_audio(path)) == pytest.approx(400, abs=1)
    path.unlink()
    write_tracks(path, [(300, DEFAULT, ""), (400, NONE, ""), (0, NONE, "")])
    assert pitch(read_audio(path)) == pytest.approx(300, abs=1)


def test_probe_tells_of_the_stream_that_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        streams: list[Any] = []
        for codec, rate in (("pcm_s16le", 48000), ("flac", 22050)):
            stream: Any = container.add_stream(codec, rate=rate)
            stream.codec_context.layout = "mono"
            streams.append(stream)
        for _ in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))))
        for stream, level in zip(streams, (0, 9000), strict=True):
            noise = np.random.default_rng(0).integers(-level, level + 1, (1, stream.rate), np.int16)
            frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            frame.sample_rate, frame.pts = stream.rate, 0
            container.mux(stream.encode(frame))
        for stream in (video, *streams):
            container.mux(stream.encode(None))
    about = probe(path)
    assert (about.has_audio, about.audio_codec, about.audio_rate) == (True, "flac", 22050)
    with open_container(path) as container:
        assert audio_stream(container).codec_context.name == "flac"


def stereo(path: Path, left: NDArray[Any], right: NDArray[Any], rate: int = SAMPLE_RATE) -> Path:
    soundfile.write(path, np.stack([left, right], axis=1), rate, "FLOAT")
    return path


@pytest.mark.parametrize(
    ("share", "one"),
    [(-1.0, 0), (-0.5, 0), (-0.25, None), (0.0, None), (0.5, None), (1.0, None), (-1.6, 1)],
)
def test_channels_that_cancel_are_taken_one_by_one(
    tmp_path: Path, share: float, one: int | None
) -> None:
    """The right channel is the left one times `share`; ordinary stereo is averaged as ever."""
    left = tone(300, 3)
    path = stereo(tmp_path / "a.wav", left, share * left)
    expected = (1 + share) / 2 * left if one is None else (left, share * left)[one]
    np.testing.assert_allclose(read_audio(path), expected, atol=1e-5)
    with AudioWindow(path) as window:
        np.testing.assert_allclose(window.part(20_000, 9000), expected[20_000:29_000], atol=1e-5)
        np.testing.assert_allclose(window.part(0, 500), expected[:500], atol=1e-5)
    assert loud_frames(path, SILENCE, 10_000) == 75


def test_channels_that_have_nothing_in_common_are_averaged(tmp_path: Path) -> None:
    noise = np.random.default_rng(5).normal(0, 0.1, (2, 5 * SAMPLE_RATE))
    path = stereo(tmp_path / "a.wav", noise[0], noise[1])
    np.testing.assert_allclose(read_audio(path), noise.mean(axis=0), atol=1e-5)


def test_a_recording_is_decided_once_wherever_reading_begins(tmp_path: Path) -> None:
    """Upside down at first, and ordinary later: what is heard first decides, also for windows
    that let go of it, and however much silence comes before it."""
    quiet = np.zeros(40 * SAMPLE_RATE)
    begins, later = tone(300, 12), tone(500, 8)
    left = np.concatenate([quiet, begins, later])
    right = np.concatenate([quiet, -begins, 0.2 * later])
    path = stereo(tmp_path / "a.wav", left, right)
    np.testing.assert_allclose(read_audio(path), left, atol=1e-5)
    assert len(read_audio(path, duration_s=1.0)) == SAMPLE_RATE
    with AudioWindow(path) as window:
        window.forget(50 * SAMPLE_RATE)
        begin = 53 * SAMPLE_RATE
        np.testing.assert_allclose(
            window.part(begin, SAMPLE_RATE), left[begin : begin + SAMPLE_RATE], atol=1e-5
        )
    # The other way round: ten seconds of what can be heard are enough.
    turned = stereo(tmp_path / "b.wav", np.concatenate([later, begins, begins, later]),
                    np.concatenate([later, begins, -begins, later]))  # fmt: skip
    assert not read_audio(turned)[21 * SAMPLE_RATE : 31 * SAMPLE_RATE].any()


def test_little_is_held_until_it_is_decided() -> None:
    """Clicks minutes apart, and silence before the first one."""
    held = latest = 0

    def pieces() -> Any:
        nonlocal latest
        for second in range(600):
            latest = second
            sound = np.zeros((2, 1000), np.float32)
            if second >= 60 and second % 20 == 0:
                sound[0], sound[1] = 0.1, -0.1
            yield second * 1000, sound

    for position, sound in mono(pieces(), 1000):
        held = max(held, latest - position // 1000)
        loud = position >= 60_000 and position // 1000 % 20 == 0
        assert sound.any() == loud
    assert 20 <= held <= 30


def test_the_centre_of_surround_sound_is_heard(tmp_path: Path) -> None:
    """Also where music at the sides is upside down."""
    sound = np.zeros((2 * 48000, 6))
    time = np.arange(len(sound)) / 48000
    sound[:, 2] = 0.4 * np.sin(2 * np.pi * 300 * time)
    sound[:, 0] = 0.1 * np.sin(2 * np.pi * 500 * time)
    sound[:, 1] = -sound[:, 0]
    soundfile.write(tmp_path / "a.wav", sound, 48000)
    heard = read_audio(tmp_path / "a.wav")
    assert pitch(heard) == pytest.approx(300, abs=1)
    assert np.abs(heard).max() == pytest.approx(0.4 * np.sqrt(0.5), abs=0.02)
    sound[:, 2] = 0
    soundfile.write(tmp_path / "b.wav", sound, 48000)
    assert pitch(read_audio(tmp_path / "b.wav")) == pytest.approx(500, abs=1)


@pytest.mark.real
def test_no_real_stereo_is_near_to_cancelling(shared: Path) -> None:
    """What the threshold rests on: the average of any of them keeps most of the power."""
    from datasets.media.pcm import pcm

    seen = 0
    for path in sorted((shared / "clips").iterdir()):
        with open_container(path) as container:
            if not container.streams.audio:
                continue
            sounds = [sound for _, sound in pcm(container, audio_stream(container), 16000, None)]
        sound = np.concatenate(sounds, axis=1).astype(np.float64)
        if len(sound) < 2 or not sound.any():
            continue
        seen += 1
        kept = (sound.mean(axis=0) ** 2).mean() / (sound**2).mean()
        assert kept > 0.8, path.name
    assert seen > 5


def test_quiet_sound_counts_and_silence_does_not() -> None:
    rng = np.random.default_rng(0)

    def noise(level: float, frames: int) -> np.ndarray:
        return rng.normal(0, level, (2, frames * 640)).astype(np.float32)

    for level in (0.01, 0.1):
        assert count_loud([noise(2 * level, 10)], level, 100) == 10
        assert count_loud([noise(0.5 * level, 10)], level, 100) == 0
    # One channel is enough, pieces need not end with frames, and reading stops at enough.
    left = noise(0.05, 10)
    left[1] = 0
    assert count_loud([left[:, :1000], left[:, 1000:]], 0.01, 100) == 10
    assert count_loud([left, left], 0.01, 12) == 12
    assert count_loud([], 0.01, 12) == -1
