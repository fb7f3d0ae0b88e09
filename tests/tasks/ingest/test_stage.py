"""A group of files in, shards and rows out."""

import errno
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from datasets.errors import Reason, StoreError
from datasets.media import SAMPLE_RATE, SAMPLES_PER_FRAME, VideoWriter, write_flac
from datasets.shards.index import read_samples
from datasets.shards.records import COLUMNS
from datasets.shards.writer import ShardWriter
from datasets.sources.items import Part
from datasets.store.local import LocalStore
from tasks.ingest import stage as ingest_stage
from tasks.ingest.file_run import clip_prefix
from tasks.ingest.stage import IngestStage, IngestWork
from tasks.ingest.verdicts import Thresholds
from tasks.sync.signals import ClipSignals, OffsetScore
from tests.support.ingest_stage import (
    CONFIG,
    Made,
    heard,
    item,
    run,
    scorer_of,
    write,
)
from tests.support.portrait import blank, moving

ROOT = Path(__file__).resolve().parents[3]


def test_a_face_becomes_a_clip(stage: IngestStage, talking: Made) -> None:
    path, _ = talking
    (result,), good, spare = run(stage, item(path))
    (row,) = result["rows"]
    assert tuple(row) == COLUMNS
    assert (row["reason"], row["num_frames"], row["shot"], row["track"]) == ("", 45, 0, 0)
    assert (row["start_s"], row["end_s"]) == (0, 45 / 25)
    assert row["speaker"] == "somebody"
    assert row["coverage"] == 1
    assert 80 < row["face_px"] < 300
    assert (row["av_offset_frames"], row["sync_confidence"]) == (0.0, 4.5)
    assert list(good) == [row["clip_id"]] == [f"{clip_prefix('talking.mp4')}-s00-t00-00"]
    assert spare == {}
    files = good[row["clip_id"]]
    assert list(files) == ["flac", "json", "mp4", "npy"]
    with av.open(io.BytesIO(files["mp4"]), "r") as container:
        shown = [(frame.height, frame.width) for frame in container.decode(video=0)]
    assert shown == [(96, 96)] * 45
    landmarks = np.load(io.BytesIO(files["npy"]))
    assert landmarks.shape == (45, 478, 2)
    assert landmarks.dtype == np.float32
    assert 30 < landmarks[:, 4].mean() < 70, "the nose is in the middle"
    sound = soundfile.info(io.BytesIO(files["flac"]))
    assert (sound.frames, sound.samplerate, sound.channels) == (45 * 640, SAMPLE_RATE, 1)
    facts = json.loads(files["json"])
    assert facts["clip_id"] == row["clip_id"]
    assert (facts["num_frames"], facts["resolution"], facts["scorer"]) == (45, 96, "mouth-audio")
    assert len(result["digest"]) == 64
    assert result["video_seconds"] == pytest.approx(45 / 25)
    assert result["cuts_s"] == []
    json.dumps(result)


def test_again_gives_the_same_bytes(stage: IngestStage, talking: Made) -> None:
    assert run(stage, item(talking[0]))[1] == run(stage, item(talking[0]))[1]


def test_what_thresholds_refuse_is_kept_apart(stage: IngestStage, talking: Made) -> None:
    _, good, _ = run(stage, item(talking[0]))
    scorer_of(stage).confidence = 2.0
    _, none, spare = run(stage, item(talking[0]))
    assert none == {}
    assert spare.keys() == good.keys()


def test_late_audio_is_moved_by_samples(stage: IngestStage, folder: Path) -> None:
    frames = moving(45)
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, 45 * SAMPLES_PER_FRAME)
    sound = folder / "exact.wav"
    soundfile.write(sound, noise, SAMPLE_RATE, subtype="PCM_16")
    path = folder / "exact.mkv.mp4"
    with VideoWriter(path, 320, 320, 25, audio=sound, preset="ultrafast") as writer:
        for frame in frames:
            writer.write(frame)
    decoded: dict[float, np.ndarray] = {}
    for offset in (0.0, 4.25, -3.0):
        scorer_of(stage).offset = offset
        decoded[offset] = heard(run(stage, item(path))[1])
    late, early = round(4.25 * 640), 3 * 640
    assert (decoded[4.25][:-late] == decoded[0.0][late:]).all()
    assert (decoded[-3.0][early:] == decoded[0.0][:-early]).all()
    assert not decoded[-3.0][:early].any()


def test_a_source_that_fails_takes_only_its_own_clips_along(
    stage: IngestStage, talking: Made, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, _ = write(folder, "other", moving(30) + [blank()] * 25 + moving(30))
    _, before, _ = run(stage, item(talking[0]))
    calls: list[int] = []
    score = scorer_of(stage).score

    def full(clips: Sequence[ClipSignals]) -> list[OffsetScore]:
        calls.append(len(clips))
        if len(calls) == 3:
            raise OSError(5, "broken")
        return score(clips)

    monkeypatch.setattr(scorer_of(stage), "score", full)
    stage.begin("7")
    stage.process(IngestWork(item(talking[0]), talking[0], "train"))
    with pytest.raises(OSError, match="broken"):
        stage.process(IngestWork(item(other), other, "train"))
    (shard,) = stage.finish("7")
    assert shard["keys"] == list(before)
    name = f"staging/shards/{shard['info']['name']}"
    assert dict(read_samples(stage.store, name)) == before
    stage.store.delete(name)


def test_a_group_that_is_begun_again_leaves_nothing(stage: IngestStage, talking: Made) -> None:
    for _ in range(3):
        stage.begin("7")
        stage.process(IngestWork(item(talking[0]), talking[0], "train"))
    stage.begin("8")
    assert stage.finish("8") == []
    assert isinstance(stage.store, LocalStore)
    assert not [path for path in stage.store.folder.rglob("*") if path.is_file()]


def test_travels_to_workers() -> None:
    stage = IngestStage(CONFIG, Thresholds(), LocalStore("somewhere"), "staging")
    again = pickle.loads(pickle.dumps(stage))
    assert (again.config, again.store.url) == (stage.config, stage.store.url)
    assert again.resources.cpus == 1


def test_workers_load_no_torch_where_nothing_needs_it() -> None:
    """It would take each of them 200 MB and some seconds."""
    code = "import sys, flows.refresh_dataset, tasks.ingest.stage; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_large_files_have_time_by_their_length(
    stage: IngestStage, talking: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = talking
    whole = IngestWork(item(path), path, "train")
    assert not stage.may_be_long(whole)
    assert not stage.may_be_long(IngestWork(item(path), None, "train"))
    assert not stage.may_be_long(IngestWork(item(path), path.with_name("gone.mp4"), "train"))
    monkeypatch.setattr(ingest_stage, "QUICK_BYTES", 1000)
    assert stage.may_be_long(whole)
    assert stage.extra_seconds(whole) == pytest.approx(
        ingest_stage.SECONDS_PER_SECOND * 45 / 25, rel=0.1
    )
    parts = (
        Part("0", 0.5, 1.0),
        Part("1", 1.0, 1.5, reason=Reason.NOT_ANNOTATED),
        Part("2", 1.5, float("inf")),
    )
    some = IngestWork(replace(item(path), parts=parts), path, "train")
    assert stage.extra_seconds(some) == pytest.approx(
        ingest_stage.SECONDS_PER_SECOND * 0.8, abs=0.5
    )
    # Whatever a header claims, so few bytes hold no long video.
    monkeypatch.setattr(ingest_stage, "LEAST_RATE", float(path.stat().st_size))
    assert stage.extra_seconds(whole) == ingest_stage.SECONDS_PER_SECOND


def test_a_long_silence_around_speech_loses_nothing(stage: IngestStage, folder: Path) -> None:
    """As on the track of one of many in a meeting."""
    frames = moving(45)
    path, noise = write(folder, "mostly quiet", [blank()] * 1400 + frames)
    quiet = folder / "quiet.flac"
    noise[: 1400 * SAMPLES_PER_FRAME] = 0
    write_flac(quiet, noise, SAMPLE_RATE)
    with VideoWriter(path, 320, 320, 25, audio=quiet, preset="ultrafast") as writer:
        for frame in [blank()] * 1400 + frames:
            writer.write(frame)
    (result,), good, _ = run(stage, item(path))
    assert len(good) == 1, result["rows"]


def test_an_output_that_cannot_be_written_ends_the_run(
    stage: IngestStage, talking: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/x")

    monkeypatch.setattr(ShardWriter, "add", refused)
    with pytest.raises(StoreError, match=r"clips cannot be written to .*: Permission denied"):
        run(stage, item(talking[0]))
