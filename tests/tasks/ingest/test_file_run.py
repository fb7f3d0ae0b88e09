"""One file in, clips and rows out, whatever the file is."""

import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from datasets.errors import Reason
from datasets.faces.alignment import BOXED
from datasets.media import SAMPLE_RATE, VideoWriter, write_flac
from datasets.shards.records import ClipRow
from datasets.sources.items import How, Part, Region
from tasks.ingest import file_run
from tasks.ingest.config import RECORDED, IngestConfig
from tasks.ingest.file_run import FileRun, clip_prefix, is_silent
from tasks.ingest.stage import IngestStage, IngestWork
from tests.support.ingest_stage import (
    Made,
    heard,
    item,
    reasons,
    run,
    scorer_of,
    write,
)
from tests.support.portrait import blank, moving


def test_cuts_split_clips_and_faceless_shots_have_a_row(stage: IngestStage, folder: Path) -> None:
    dark = [np.clip(f * 0.4 + 10, 0, 255).astype(np.uint8)[:, ::-1] for f in moving(30)]
    path, _ = write(folder, "cuts", moving(30) + [blank()] * 25 + dark)
    (result,), good, _ = run(stage, item(path))
    assert [round(cut * 25) for cut in result["cuts_s"]] == [30, 55]
    assert [(row["shot"], row["num_frames"], row["reason"]) for row in result["rows"]] == [
        (0, 30, ""),
        (1, 25, "no_face"),
        (2, 30, ""),
    ]
    assert [row["start_s"] for row in result["rows"]] == [0, 30 / 25, 55 / 25]
    assert len(good) == 2


def test_only_annotated_parts_are_used(stage: IngestStage, folder: Path) -> None:
    path, _ = write(folder, "parts", moving(90))
    whole = Region(0.0, 0.0, 1.0, 1.0)
    parts = (
        Part("first", 0.4, 1.4, whole),
        Part("no crop", 0.0, 1.0, reason=Reason.NOT_ANNOTATED, detail="no crop in the list"),
        Part("second", 2.0, 3.2, Region(0, 0, 640, 640, 640)),
        Part("outside", 0.0, 1.0, Region(700, 0, 900, 200, 640)),
        Part("after the end", 9.0, 10.0),
    )
    annotated = replace(item(path), parts=parts)
    (result,), good, _ = run(stage, annotated)
    found = {(row["start_s"], row["end_s"], row["reason"]) for row in result["rows"]}
    assert found == {
        (0.4, 1.4, ""),
        (0.0, 1.0, "not_annotated"),
        (2.0, 3.2, ""),
        (0.0, 1.0, "outside_picture"),
        (9.0, 10.0, "outside_picture"),
    }
    ids = [row["clip_id"] for row in result["rows"] if not row["reason"]]
    assert (
        list(good)
        == ids
        == [
            f"{clip_prefix('parts.mp4/first')}-s00-t00-00",
            f"{clip_prefix('parts.mp4/second')}-s01-t01-00",
        ]
    )
    _, full, _ = run(stage, item(path))
    assert len(heard({"": good[ids[0]]})) == 25 * 640
    start = round(0.4 * SAMPLE_RATE)
    sound = np.concatenate([soundfile.read(io.BytesIO(clip["flac"]))[0] for clip in full.values()])
    assert (heard({"": good[ids[0]]}) == sound[start : start + 25 * 640]).all()


def test_cuts_of_a_part_are_times_of_the_whole_file(stage: IngestStage, folder: Path) -> None:
    path, _ = write(folder, "cut-parts", moving(30) + [blank()] * 25)
    parts = (Part("late", 0.4, 2.0, Region(0.0, 0.0, 1.0, 1.0)),)
    (result,), _, _ = run(stage, replace(item(path), parts=parts))
    assert result["cuts_s"] == pytest.approx([1.2])


def test_a_face_is_chosen_once_all_its_rivals_are_known() -> None:
    """One that ends early is not handed on while a surer one at its time is still open."""
    handed: list[str] = []
    nothing: Any = None
    config, source = IngestConfig(), item(Path("a.mp4"))
    file = FileRun(source, None, None, config, nothing, lambda row, _: handed.append(row.clip_id))

    def row(name: str, track: int, start: float, end: float, confidence: float) -> ClipRow:
        return ClipRow(
            "a.mp4",
            name,
            track=track,
            start_s=start,
            end_s=end,
            sync_confidence=confidence,
            scorer="mouth-audio",
        )

    early, surer = row("early", 0, 0, 8, 4.0), row("surer", 1, 2, 10, 9.0)
    alone = row("alone", 0, 12, 16, 5.0)
    for each in (early, surer, alone):
        file.wait(each, {})
    file.settle(before_s=1.0)
    assert handed == []
    file.settle(before_s=8.0)
    assert handed == []
    assert early.reason == Reason.NOT_THE_SPEAKER
    file.settle(before_s=10.0)
    assert handed == ["surer"]
    file.settle(before_s=float("inf"))
    assert handed == ["surer", "alone"]


def test_a_source_that_says_itself_why_not(stage: IngestStage) -> None:
    bad = replace(
        item(Path("none.mp4")), reason=Reason.NOT_ANNOTATED, detail="no interval in the list"
    )
    assert not bad.wanted
    stage.begin("7")
    (row,) = stage.process(IngestWork(bad, None, "train"))["rows"]
    assert (row["reason"], row["detail"]) == ("not_annotated", "no interval in the list")
    parts = tuple(
        Part(name, 0.0, 1.0, reason=Reason.NOT_ANNOTATED, detail="no crop") for name in "ab"
    )
    bare = replace(item(Path("none.mp4")), parts=parts)
    assert not bare.wanted
    rows = stage.process(IngestWork(bare, None, "train"))["rows"]
    assert [(row["reason"], row["detail"]) for row in rows] == [
        ("not_annotated", "a: no crop"),
        ("not_annotated", "b: no crop"),
    ]
    lost = replace(item(Path("none.mp4")), how=How.FILE)
    (row,) = stage.process(IngestWork(lost, Path("none.mp4"), "train"))["rows"]
    assert (row["reason"], row["stage"]) == ("download_failed", "download")
    assert stage.finish("7") == []


def test_short_tracks_and_small_faces_leave_no_files(stage: IngestStage, folder: Path) -> None:
    path, _ = write(folder, "short", moving(15))
    (result,), good, spare = run(stage, item(path))
    assert reasons(result) == ["too_short"]
    assert good == spare == {}
    config = IngestConfig(resolution=96, min_frames=10, max_clip_frames=60, min_face_px=400)
    strict = replace(stage, config=config)
    strict._tools = stage._tools
    (result,), good, spare = run(strict, item(path))
    assert reasons(result) == ["face_too_small"]
    assert "400" in result["rows"][0]["detail"]
    assert good == spare == {}


def test_a_long_track_is_handed_on_while_it_is_read(
    stage: IngestStage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more clips wait than allowed, and what comes out is the same as with all waiting."""
    config = IngestConfig(resolution=96, min_frames=5, max_clip_frames=10)
    brief = replace(stage, config=config)
    brief._tools = stage._tools
    path, _ = write(folder, "long", moving(120))
    (one,), all_waiting, _ = run(brief, item(path))
    waited: list[int] = []
    settle = file_run.FileRun.settle

    def counted(run: file_run.FileRun, before_s: float) -> None:
        waited.append(len(run._waiting))
        settle(run, before_s)

    monkeypatch.setattr(file_run.FileRun, "settle", counted)
    monkeypatch.setattr(file_run, "MAX_WAITING", 4)
    (two,), few_waiting, _ = run(brief, item(path))
    assert two["rows"] == one["rows"]
    assert few_waiting == all_waiting
    assert len(all_waiting) == 12
    assert max(waited) == 5


Write = Callable[[Path], Path]


def _text(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("no video\n" * 50)
    return path


def _empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def _mute(folder: Path) -> Path:
    path = folder / "mute.mp4"
    with VideoWriter(path, 64, 64, 25) as writer:
        for _ in range(5):
            writer.write(blank(64))
    return path


def _silent(folder: Path) -> Path:
    return write(folder, "silent", [blank()] * 5, level=0.0)[0]


def _sound_only(folder: Path) -> Path:
    path = folder / "sound.flac"
    write_flac(path, np.zeros(16000, np.float32), SAMPLE_RATE)
    return path


def _gone(folder: Path) -> Path:
    return folder / "gone.mp4"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


def _dangling(folder: Path) -> Path:
    (folder / "link.mp4").symlink_to(folder / "nowhere.mp4")
    return folder / "link.mp4"


@pytest.mark.parametrize(
    ("make", "reason", "step"),
    [
        (_pipe, "unreadable", "probe"),
        (_dangling, "not_read", "probe"),
        (_text, "not_media", "probe"),
        (_empty, "empty_file", "probe"),
        (_sound_only, "no_video", "probe"),
        (_gone, "not_read", "probe"),
        (_mute, "no_audio", "audio"),
        (_silent, "silent", "audio"),
    ],
)
def test_bad_files_are_rows(
    stage: IngestStage, tmp_path: Path, make: Write, reason: str, step: str
) -> None:
    (result,), good, spare = run(stage, item(make(tmp_path)))
    (row,) = result["rows"]
    assert (row["reason"], row["stage"], row["verdict"]) == (reason, step, "rejected")
    assert row["detail"]
    assert "\n" not in row["detail"]
    assert good == spare == {}
    json.dumps(result)


def test_a_sound_that_cannot_be_had_is_no_verdict_on_the_video(
    stage: IngestStage, talking: Made, tmp_path: Path
) -> None:
    stage.begin("7")
    work = IngestWork(item(talking[0]), talking[0], "train", tmp_path / "gone.flac")
    (row,) = stage.process(work)["rows"]
    assert (row["reason"], row["stage"]) == ("not_read", "probe")


def test_a_truncated_file_gives_what_it_has_or_a_reason(
    stage: IngestStage, talking: Made, tmp_path: Path
) -> None:
    whole = talking[0].read_bytes()
    for share in (0.1, 0.6, 0.95):
        path = tmp_path / f"cut-{share}.mp4"
        path.write_bytes(whole[: int(len(whole) * share)])
        (result,), good, _ = run(stage, item(path))
        assert {row["clip_id"] for row in result["rows"] if not row["reason"]} == good.keys()
        assert result["rows"]
        assert all(row["reason"] or row["clip_id"] for row in result["rows"])


def test_config_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="offsets can be corrected or as-recorded, got 'x'"):
        IngestConfig(offsets="x")
    with pytest.raises(ValueError, match="clips of 50 to 80 frames"):
        IngestConfig(max_clip_frames=80)


def test_clip_ids_tell_files_apart() -> None:
    assert clip_prefix("idA/x/00001.mp4").startswith("idA-x-00001-")
    names = ["a/00001.mp4", "b/00001.mp4", "a/00001.avi", "a-00001.mp4", "ä/1.mp4", "a.b/c"]
    made = [clip_prefix(name) for name in names]
    assert len(set(made)) == len(names)
    assert all("." not in name and "/" not in name and name.isascii() for name in made)
    assert re.fullmatch("a-00001-[0-9a-f]{16}", clip_prefix("a/00001.mp4")), "of 2^64, not 2^24"
    assert len(clip_prefix("x" * 300 + ".mp4")) < 80


def test_silence() -> None:
    rng = np.random.default_rng(0)
    assert is_silent(np.zeros(16000, np.float32))
    assert is_silent(np.zeros(0, np.float32))
    assert is_silent((rng.normal(0, 1e-4, 16000)).astype(np.float32))
    speech = np.zeros(32000, np.float32)
    speech[:4000] = rng.normal(0, 0.05, 4000)
    assert not is_silent(speech)


@pytest.mark.parametrize(("level", "frames", "silent"), [(2e-3, 50, False), (5e-4, 50, True)])
def test_silence_is_below_a_thousandth_of_full_scale(
    level: float, frames: int, silent: bool
) -> None:
    assert is_silent(np.full(frames * 640, level, np.float32)) is silent


@pytest.mark.parametrize(("loud", "silent"), [(4, True), (5, False)])
def test_a_twentieth_of_the_frames_must_be_loud(loud: int, silent: bool) -> None:
    sound = np.zeros(100 * 640, np.float32)
    sound[: loud * 640] = 0.1
    assert is_silent(sound) is silent


@pytest.mark.parametrize("late", [3.0, -2.0, 0.5])
def test_a_clips_sound_is_moved_by_as_much_as_it_is_late(
    late: float, stage: IngestStage, talking: Made
) -> None:
    path, noise = talking
    scorer_of(stage).offset = late
    (result,), good, _ = run(stage, item(path))
    (row,) = result["rows"]
    assert row["av_offset_frames"] == late
    begin, sound = round(late * 640), heard(good)
    # Beyond the file's ends there is silence.
    expected = np.zeros_like(sound)
    low, high = max(0, -begin), min(len(sound), len(noise) - begin)
    expected[low:high] = noise[begin + low : begin + high]
    assert np.corrcoef(sound[low:high], expected[low:high])[0, 1] > 0.9
    assert np.abs(sound[: max(0, low - 2048)]).max(initial=0) < 0.01


def test_sound_may_stay_as_it_was_recorded(
    stage: IngestStage, talking: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, noise = talking
    scorer_of(stage).offset = 3.0
    monkeypatch.setattr(stage, "config", replace(stage.config, offsets=RECORDED))
    (result,), good, _ = run(stage, item(path))
    assert result["rows"][0]["av_offset_frames"] == 3.0
    sound = heard(good)
    assert np.corrcoef(sound, noise[: len(sound)])[0, 1] > 0.9


def test_the_choice_of_offsets_is_in_the_key_only_where_it_is_made() -> None:
    """Or everything that was ingested before there was a choice would be ingested again."""
    assert "offsets" not in IngestConfig().key()
    assert IngestConfig(offsets=RECORDED).key()["offsets"] == RECORDED
    assert IngestConfig(crop=BOXED).key()["crop"] == BOXED


def test_an_offset_that_could_not_be_measured_moves_nothing(
    stage: IngestStage, talking: Made
) -> None:
    path, noise = talking
    scorer_of(stage).offset, scorer_of(stage).confidence = 5.0, float("nan")
    _, good, spare = run(stage, item(path))
    sound = heard(good | spare)
    assert np.corrcoef(sound, noise[: len(sound)])[0, 1] > 0.9


def with_silent_track_first(path: Path, target: Path) -> Path:
    """The same video with a silent track before its own sound, and seen a second late."""
    with av.open(str(path)) as source, av.open(str(target), "w") as made:
        video: Any = made.add_stream_from_template(source.streams.video[0])
        silent: Any = made.add_stream("pcm_s16le", rate=SAMPLE_RATE)
        silent.codec_context.layout = "mono"
        silent.metadata["language"] = "deu"
        own: Any = made.add_stream_from_template(source.streams.audio[0])
        own.metadata["language"] = "eng"
        nothing = np.zeros((1, SAMPLE_RATE), np.int16)
        frame = av.AudioFrame.from_ndarray(nothing, format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        made.mux(silent.encode(frame))
        for packet in source.demux():
            if packet.pts is not None and packet.dts is not None:
                second = round(1 / packet.time_base)
                packet.pts, packet.dts = packet.pts + second, packet.dts + second
                packet.stream = video if packet.stream.type == "video" else own
                made.mux(packet)
        made.mux(silent.encode(None))
    return target


def test_the_track_with_sound_is_heard_and_recorded(
    stage: IngestStage, folder: Path, talking: Made, tmp_path: Path
) -> None:
    path, _ = talking
    both = with_silent_track_first(path, tmp_path / "both.mkv")
    stage.begin("7")
    one = stage.process(IngestWork(item(path), path, "train"))
    other = stage.process(IngestWork(item(both), both, "train", whole=True))
    stage.finish("7")
    assert reasons(other) == reasons(one)
    assert one["heard"] == ""
    assert other["heard"] == "audio stream 2 of 2 (eng) is heard"
    assert other["note"] == "", "it is whole although it begins late"
    assert {row["language"] for row in one["rows"]} == {""}
    assert {row["language"] for row in other["rows"]} == {"eng"}


FRONT = {"movflags": "faststart"}


def cut_short(path: Path, target: Path) -> Path:
    """The first part of a video whose header, at its beginning, speaks of all of it."""
    with av.open(str(path)) as source, av.open(str(target), "w", options=FRONT) as whole:
        streams = {each.index: whole.add_stream_from_template(each) for each in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                whole.mux(packet)
    content = target.read_bytes()
    target.write_bytes(content[: len(content) * 6 // 10])
    return target


def test_half_a_file_is_used_unless_it_would_replace_all_of_it(
    stage: IngestStage, folder: Path, tmp_path: Path
) -> None:
    path, _ = write(folder, "long", moving(100))
    half = cut_short(path, tmp_path / "half.mp4")
    (result,), good, _ = run(stage, item(half))
    note = r"ends at \d\.\d s of 4\.0 s: is it half copied\?"
    assert re.fullmatch(note, result["note"])
    assert good
    assert {row["path"] for row in result["rows"]} == {"half.mp4"}
    stage.begin("7")
    refused = stage.process(IngestWork(item(half), half, "train", whole=True))
    (row,) = refused["rows"]
    assert (row["reason"], row["stage"]) == ("unreadable", "decode")
    assert re.fullmatch(note, row["detail"])
    assert stage.finish("7") == []
    whole = IngestWork(item(path), path, "train", whole=True)
    stage.begin("7")
    assert stage.process(whole)["note"] == ""
    assert stage.finish("7")
