"""Several speeches in one output: what is repainted when, by whom, and what is heard."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from datasets.errors import UserError
from datasets.media import VideoWriter, probe, read_audio, read_frames, write_flac
from tasks.lipsync import turns as turns_module
from tasks.lipsync import video as lipsync_video
from tasks.lipsync.job import job_of
from tasks.lipsync.result import LipSyncResult
from tasks.lipsync.silence import muted_outside, spoken_spans
from tests.support.fake_generator import Brightener, recorded_frames

FRAMES, FPS = 50, 25
SIZE = (480, 240)
LEFT, RIGHT = slice(0, 240), slice(240, 480)


def tone(path: Path, seconds: float, level: float) -> Path:
    write_flac(path, np.full(round(seconds * 16000), level, np.float32), 16000)
    return path


@pytest.fixture(scope="module")
def couple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s of the same portrait twice, with a sound of its own; a folder with spaces and umlauts."""
    folder = tmp_path_factory.mktemp("zwei Köpfe")
    own = tone(folder / "own.flac", 2.0, -0.2)
    head = cv2.resize(astronaut(), (300, 300))[:240, 20:260]
    other = cv2.flip(head, 1)
    with VideoWriter(folder / "zwei Köpfe.mp4", *SIZE, FPS, crf=6, audio=own) as writer:
        for _ in range(FRAMES):
            writer.write(np.concatenate([head, other], axis=1))
    return folder / "zwei Köpfe.mp4"


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tone(tmp_path_factory.mktemp("speech") / "speech.flac", 0.4, 0.4)


Made = tuple[LipSyncResult, list[np.ndarray]]
Make = Callable[..., Made]


@pytest.fixture
def make(couple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Run a job with a generator that brightens; gives the frames before they are encoded."""
    frames = recorded_frames(monkeypatch)
    fake = Brightener(64)
    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: fake)

    def made(output: str = "out.mp4", progress: Any = None, **options: Any) -> Made:
        frames.clear()
        places = {"video": str(couple), "output": str(tmp_path / output), "match": False}
        result = lipsync_video.run_job(job_of(places | options), tmp_path, progress=progress)
        return result, list(frames)

    return made


def changed(couple: Path, frames: list[np.ndarray], first: int = 0) -> tuple[list[int], list[int]]:
    """Numbers of the frames whose left and right halves are not the source's."""
    originals = [frame.rgb for frame in read_frames(couple, fps=None)][first:]
    pairs = list(zip(frames, originals, strict=False))
    assert len(pairs) == len(frames)
    left, right = (
        [number for number, (new, old) in enumerate(pairs) if (new[:, half] != old[:, half]).any()]
        for half in (LEFT, RIGHT)
    )
    return left, right


def level(path: Path, begin_s: float, end_s: float) -> float:
    """Mean of the sound between two moments."""
    return float(read_audio(path)[round(begin_s * 16000) : round(end_s * 16000)].mean())


def test_each_segment_has_its_own_time_face_and_speech(
    make: Make, couple: Path, speech: Path, tmp_path: Path
) -> None:
    other = tone(tmp_path / "other.flac", 5.0, 0.1)
    segments = [
        {"begin_s": 1.2, "end_s": 1.6, "audio": str(other), "face": "1"},
        {"begin_s": 0.4, "audio": str(speech), "face": "2"},
    ]
    result, frames = make(segments=segments)
    left, right = changed(couple, frames)
    assert (left, right) == (list(range(30, 40)), list(range(10, 20)))
    assert (result.frames, result.faces_found) == (FRAMES, 20)
    heard = [level(result.output, at + 0.05, at + 0.35) for at in (0.0, 0.4, 0.8, 1.2, 1.6)]
    assert heard == pytest.approx([-0.2, 0.4, -0.2, 0.1, -0.2], abs=0.03)
    assert probe(result.output).duration_s == pytest.approx(2.0, abs=0.01)
    assert [note[:12] for note in result.notes] == ["segment 1: 2", "segment 2: 2"]


def test_two_people_speak_at_once(make: Make, couple: Path, speech: Path, tmp_path: Path) -> None:
    other = tone(tmp_path / "other.flac", 0.8, 0.1)
    segments = [
        {"begin_s": 0.4, "audio": str(speech), "face": "1"},
        {"begin_s": 0.6, "audio": str(other), "face": "2"},
    ]
    result, frames = make(segments=segments)
    assert changed(couple, frames) == (list(range(10, 20)), list(range(15, 35)))
    assert result.faces_found == 25
    heard = [level(result.output, at + 0.05, at + 0.15) for at in (0.4, 0.6, 0.8, 1.5)]
    assert heard == pytest.approx([0.4, 0.5, 0.1, -0.2], abs=0.03)


def test_all_get_the_same_lips(make: Make, couple: Path, speech: Path) -> None:
    _, frames = make(audio=str(speech), face="all", length="keep")
    assert changed(couple, frames) == (list(range(10)), list(range(10)))


def test_a_box_means_the_face_in_it(make: Make, couple: Path, speech: Path) -> None:
    _, frames = make(audio=str(speech), face="300,20,420,160@0.5", length="keep")
    assert changed(couple, frames) == ([], list(range(10)))


def test_nobody_says_two_things_at_once(make: Make, speech: Path) -> None:
    segments = [{"audio": str(speech), "face": "1"}, {"audio": str(speech), "face": "80,80@0"}]
    with pytest.raises(UserError, match=r"segments 1 .* and 2 .* overlap, and person 1 would"):
        make(segments=segments)


def test_speech_that_is_longer_than_the_pause_before_the_next_is_noticed_at_once(
    make: Make, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lipsync_video, "scan_video", pytest.fail)
    segments = [{"begin_s": 0.2}, {"begin_s": 0.5}]
    said = r"segments 1 \(0.20 s to 0.60 s .*\) and 2 .* overlap, and both are for the face 'auto'"
    with pytest.raises(UserError, match=said):
        make(audio=str(speech), segments=segments)


def test_a_range_is_cut_out_and_nothing_else_is_read(
    make: Make, couple: Path, speech: Path
) -> None:
    read: list[int] = []

    def progress(done: int, total: int | None, note: str = "") -> None:
        if note == "finding faces":
            read.append(done)

    result, frames = make(
        audio=str(speech), face="2", begin_s=1, end_s=1.8, length="keep", progress=progress
    )
    assert changed(couple, frames, 25) == ([], list(range(10)))
    assert (len(frames), max(read)) == (20, 20)
    assert probe(result.output).duration_s == pytest.approx(0.8, abs=0.01)
    heard = [level(result.output, 0.05, 0.35), level(result.output, 0.45, 0.75)]
    assert heard == pytest.approx([0.4, -0.2], abs=0.03)
    short, frames = make("short.mp4", audio=str(speech), face="2", begin_s=1)
    assert changed(couple, frames, 25) == ([], list(range(10)))
    assert short.frames == 10


def test_segments_count_in_the_video_also_in_a_range(
    make: Make, couple: Path, speech: Path
) -> None:
    segments = [{"begin_s": 1.2, "audio": str(speech), "face": "1"}]
    result, frames = make(segments=segments, begin_s=1)
    assert changed(couple, frames, 25) == (list(range(5, 15)), [])
    assert level(result.output, 0.25, 0.55) == pytest.approx(0.4, abs=0.03)


def test_part_of_a_file_is_spoken(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "two.flac"
    write_flac(path, np.repeat([0.4, 0.1], 16000).astype(np.float32), 16000)
    result, _ = make(audio=str(path), face="1", audio_begin_s=0.8, audio_end_s=1.2)
    assert result.frames == 10
    heard = [level(result.output, 0.05, 0.15), level(result.output, 0.25, 0.35)]
    assert heard == pytest.approx([0.4, 0.1], abs=0.03)
    with pytest.raises(UserError, match=r"the part from 3 s to its end is not in .*two.flac"):
        make("no.mp4", audio=str(path), face="1", audio_begin_s=3)


def test_padded_speech_lasts_as_long_as_the_video(make: Make, couple: Path, speech: Path) -> None:
    result, frames = make(audio=str(speech), face="1", length="speech-padded")
    assert changed(couple, frames)[0] == list(range(FRAMES))
    heard = [level(result.output, 0.05, 0.35), level(result.output, 0.5, 1.9)]
    assert heard == pytest.approx([0.4, 0.0], abs=0.02)
    assert "after the speech there is silence" in result.notes[-1]


def test_padded_segments_are_silent_to_their_end(make: Make, couple: Path, speech: Path) -> None:
    segments = [{"begin_s": 0.4, "end_s": 1.2, "audio": str(speech), "face": "1"}]
    result, frames = make(segments=segments, length="speech-padded")
    assert changed(couple, frames)[0] == list(range(10, 30))
    heard = [level(result.output, at + 0.05, at + 0.35) for at in (0.0, 0.4, 0.8, 1.2)]
    assert heard == pytest.approx([-0.2, 0.4, 0.0, -0.2], abs=0.03)


def test_in_silence_the_mouth_stays_as_it_was_if_that_is_asked_for(
    make: Make, couple: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tone(tmp_path / "long.flac", 2.0, 0.3)
    monkeypatch.setattr(turns_module, "spoken_spans", lambda _: ((0.0, 0.4), (1.2, 1.6)))
    _, frames = make(audio=str(long), face="1", silence="original")
    assert changed(couple, frames)[0] == [*range(10), *range(30, 40)]
    result, frames = make("closed.mp4", audio=str(long), face="1", silence="closed")
    assert changed(couple, frames)[0] == list(range(FRAMES))
    assert level(result.output, 0.6, 1.0) == pytest.approx(0.3, abs=0.02), "the sound stays"


def test_a_closed_mouth_hears_silence_where_nobody_speaks() -> None:
    wave = np.full(16000, 0.3, np.float32)
    muted = muted_outside(wave, ((0.2, 0.4), (0.6, 0.7)))
    expected = np.zeros(16000, np.float32)
    expected[3200:6400] = expected[9600:11200] = 0.3
    assert np.array_equal(muted, expected)
    assert not muted_outside(wave, ()).any()
    assert wave.all()


@pytest.mark.parametrize(
    ("silence", "loud", "spans"),
    [("model", 16000, None), ("closed", 4800, None), ("original", 16000, ((0.2, 0.5),))],
)
def test_what_a_network_hears_is_as_the_job_says(
    silence: str,
    loud: int,
    spans: tuple[tuple[float, float], ...] | None,
    speech: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns_module, "spoken_spans", lambda _: ((0.2, 0.5),))
    options = {"video": "v", "output": "o.mp4", "audio": str(speech), "silence": silence}
    (turn,) = turns_module.read_turns(job_of(options))
    heard, repainted = replace(turn, wave=np.full(16000, 0.3, np.float32)).heard()
    assert (np.count_nonzero(heard), repainted) == (loud, spans)


def test_pauses_are_kept_and_breaths_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.lipsync import silence

    speaks = np.zeros(100, np.float32)
    speaks[10:20] = speaks[24:40] = speaks[80:95] = 0.9
    monkeypatch.setattr(silence, "speech_probability", lambda _: speaks)
    spans = spoken_spans(np.zeros(4 * 16000, np.float32))
    assert np.array(spans) == pytest.approx(np.array([(0.28, 1.72), (3.08, 3.92)]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"begin_s": 5}, "begin_s 5 is behind the end of the video"),
        ({"end_s": 5}, "end_s 5 is behind the end of the video"),
        ({"segments": [{"begin_s": 3}]}, "begin_s 3 is behind the end of the video"),
        ({"segments": [{"end_s": 3}]}, "end_s 3 is behind the end of the video"),
    ],
)
def test_what_is_behind_the_end_is_refused(
    options: dict[str, Any], said: str, make: Make, speech: Path
) -> None:
    with pytest.raises(UserError, match=said):
        make(audio=str(speech), **options)


def test_an_interruption_changes_nothing(
    make: Make, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lipsync_video, "PART", 8)
    # The fake paints each window brighter than the one before it, which a resumed one cannot know.
    monkeypatch.setattr(Brightener, "window", lambda _, faces, *__: faces.astype(np.float32) + 12)
    segments = [
        {"begin_s": 0.4, "audio": str(speech), "face": "1"},
        {"begin_s": 0.6, "audio": str(speech), "face": "2"},
        {"begin_s": 1.2, "audio": str(speech), "face": "1"},
    ]
    whole, _ = make("whole.mp4", segments=segments)

    def stop(done: int, total: int | None, note: str = "") -> None:
        if note == "repainting faces" and done == 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make("again.mp4", segments=segments, progress=stop)
    assert not (tmp_path / "again.mp4").exists()
    again, frames = make("again.mp4", segments=segments)
    assert len(frames) == FRAMES - 16
    assert again.output.read_bytes() == whole.output.read_bytes()


@pytest.mark.parametrize(
    ("name", "options", "codec", "pixels"),
    [
        ("a.mp4", {"codec": "hevc"}, "hevc", "yuv420p"),
        ("a.mkv", {"codec": "hevc", "bits": 10}, "hevc", "yuv420p10le"),
        ("b.mp4", {"bits": 10}, "hevc", "yuv420p10le"),
        ("c.mkv", {"codec": "vp9"}, "vp9", "yuv420p"),
        ("d.mov", {"codec": "prores"}, "prores", "yuv444p10le"),
        ("e.mp4", {"codec": "h264", "bits": 8}, "h264", "yuv420p"),
    ],
)
def test_the_coding_is_as_asked_for(
    name: str, options: dict[str, Any], codec: str, pixels: str, make: Make, speech: Path
) -> None:
    result, _ = make(name, audio=str(speech), face="1", **options)
    with av.open(str(result.output)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == (codec, pixels)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("a.webm", {"codec": "h264"}, r"h264 cannot be in that file: name the output \.mp4"),
        ("a.mp4", {"codec": "prores"}, r"name the output \.mov"),
        ("a.webm", {"bits": 10}, "a .webm holds 8 bits"),
        ("a.mp4", {"codec": "h264", "bits": 10}, "h264 holds 8 bits: choose hevc"),
        ("a.mov", {"codec": "prores", "bits": 8}, "prores holds 10 bits"),
    ],
)
def test_codings_that_no_player_shows_are_refused(
    name: str, options: dict[str, Any], said: str, make: Make, speech: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        make(name, audio=str(speech), **options)
    assert not (tmp_path / name).exists()


def test_a_better_quality_takes_more_bytes(make: Make, speech: Path) -> None:
    sizes = [
        make(f"{crf}.mp4", audio=str(speech), face="1", crf=crf)[0].output.stat().st_size
        for crf in (16, 40)
    ]
    assert sizes[0] > 2 * sizes[1]


def test_settings_of_a_segment_reach_its_own_windows_only(
    make: Make, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, int]] = []

    class Tuned(Brightener):
        def tuned(self, *settings: Any) -> Any:
            seen.append(settings[:3])
            return self

    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: Tuned(64))
    segments = [
        {"begin_s": 0.0, "end_s": 0.4, "face": "1", "steps": 3},
        {"begin_s": 1.0, "end_s": 1.4, "face": "1"},
    ]
    make(audio=str(speech), segments=segments, guidance=2)
    assert seen == [(3, 2.0, 1247)]


def test_the_speech_is_read_as_from_its_own_begin(couple: Path, speech: Path) -> None:
    job = job_of({"video": "v", "output": "o.mp4", "audio": str(speech), "segments": "[{}]"})
    late = replace(job, segments=(replace(job.turns[0], begin_s=1.0),))
    (turn,) = turns_module.read_turns(late)
    assert (turn.begin_s, turn.end_s) == pytest.approx((1.0, 1.4))
    assert turn.wave.mean() == pytest.approx(0.4, abs=0.01)
