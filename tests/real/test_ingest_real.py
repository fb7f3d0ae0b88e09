"""Ingestion of real footage: every clip of ../shared/clips, once, without Ray."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets.media import read_frames
from datasets.shards.index import read_samples
from datasets.shards.records import LedgerRow
from datasets.sources.items import list_folder
from datasets.store.local import LocalStore
from tasks.faces.shots import ShotDetector
from tasks.ingest.config import IngestConfig
from tasks.ingest.stage import IngestStage, IngestWork
from tasks.ingest.verdicts import Thresholds
from tasks.sync.mouth_audio import MouthAudioScorer

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

KNOWN_OFFSETS = {
    "syncnet_example.avi": -3,
    "hdtf_WDA_AlexandriaOcasioCortez_000.mp4": 3,
    "retalk_1.mp4": -2,
    "retalk_2.mp4": 0,
    "retalk_5.mp4": 0,
    "latentsync_demo3_30fps.mp4": 2,
    "grid_bbaf2n.mpg": 0,
    "grid_brbk7n.mpg": 0,
    "grid_lbax4n.mpg": 0,
    "grid_lbbc2a.mpg": 0,
    "grid_lrwp9a.mpg": 0,
    "grid_lwbsza.mpg": 0,
    "grid_pwij3p.mpg": 0,
}
"""Frames by which the audio is late, as far as it is known (about +-1)."""


@dataclass(frozen=True)
class RealClip:
    """A clip that ingestion kept, read back."""

    row: LedgerRow
    landmarks: np.ndarray
    audio: np.ndarray


class Ingested:
    """Results by file name."""

    def __init__(self, clips: Path, out: Path) -> None:
        self.store = LocalStore(out)
        stage = IngestStage(IngestConfig(), Thresholds(), self.store, "made")
        stage.setup()
        stage.begin("0")
        self.results = {
            item.relative: stage.process(IngestWork(item, item.path, "train"))
            for item in list_folder(clips)
        }
        self.samples: dict[str, dict[str, bytes]] = {}
        for shard in stage.finish("0"):
            name = f"made/shards/{shard['info']['name']}"
            self.samples.update(read_samples(self.store, name))

    def rows(self, name: str) -> list[LedgerRow]:
        return self.results[name]["rows"]

    def cuts(self, name: str) -> list[float]:
        return [cut * 25 for cut in self.results[name]["cuts_s"]]

    def clips(self) -> Iterator[RealClip]:
        for name in self.results:
            for row in self.rows(name):
                if not row["reason"]:
                    files = self.samples[row["clip_id"]]
                    audio, _ = soundfile.read(io.BytesIO(files["flac"]), dtype="float32")
                    yield RealClip(row, np.load(io.BytesIO(files["npy"])), audio)


@pytest.fixture(scope="session")
def ingested(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    return Ingested(shared / "clips", tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="session")
def real_clips(ingested: Ingested) -> list[RealClip]:
    return list(ingested.clips())


def test_every_file_ends_as_clips_or_reasons(ingested: Ingested, shared: Path) -> None:
    assert len(ingested.results) == len(list((shared / "clips").iterdir())) == 21
    for name, result in ingested.results.items():
        assert result["rows"], name
        kept = {row["clip_id"] for row in result["rows"] if not row["reason"]}
        assert kept <= ingested.samples.keys(), name
        for row in result["rows"]:
            assert row["detail"] if row["reason"] else np.isfinite(row["sync_confidence"]), row


def test_hopeless_files_say_why(ingested: Ingested) -> None:
    expected = {
        "psd_testvideo_cuts_noaudio.mp4": "no_audio",
        "iplap_129_noaudio_30fps.mp4": "no_audio",
        "liveportrait_d18_silent_track_30fps.mp4": "silent",
    }
    for name, reason in expected.items():
        assert [row["reason"] for row in ingested.rows(name)] == [reason]


def test_all_others_give_clips(ingested: Ingested) -> None:
    without = {
        name for name in ingested.results if all(row["reason"] for row in ingested.rows(name))
    }
    assert without == {
        "psd_testvideo_cuts_noaudio.mp4",
        "iplap_129_noaudio_30fps.mp4",
        "liveportrait_d18_silent_track_30fps.mp4",
    }


def test_cuts(ingested: Ingested) -> None:
    found = ingested.cuts("composed_grid_6scenes_25fps.mp4")
    assert found == pytest.approx([70, 140, 190, 260, 330])
    # The truth counts native frames at 29.97 fps.
    expected = [cut * 25 / 29.97 for cut in (20, 82, 211)]
    assert ingested.cuts("hamilton_multiscene_2997.mp4") == pytest.approx(expected, abs=1.5)
    single = set(ingested.results) - {
        "composed_grid_6scenes_25fps.mp4",
        "hamilton_multiscene_2997.mp4",
    }
    assert not [name for name in single if ingested.cuts(name)]


def test_cuts_of_the_pyscenedetect_video(shared: Path) -> None:
    detector = ShotDetector(29.97)
    for frame in read_frames(shared / "clips/psd_testvideo_cuts_noaudio.mp4", fps=None):
        detector.add(frame.rgb)
    for cut in (30, 180, 394, 691):
        assert min(abs(cut - found) for found in detector.cuts()) <= 1


def test_no_clip_spans_a_cut(ingested: Ingested) -> None:
    for name, result in ingested.results.items():
        for row in result["rows"]:
            inside = [
                cut for cut in result["cuts_s"] if row["start_s"] < cut - 1e-6 < row["end_s"] - 1e-3
            ]
            assert not inside, (name, row)


def test_faceless_and_two_face_shots(ingested: Ingested) -> None:
    rows = ingested.rows("composed_grid_6scenes_25fps.mp4")
    assert [row["reason"] for row in rows if row["shot"] == 2] == ["no_face"]
    two = [row["reason"] for row in rows if row["shot"] == 4]
    assert sorted(two) == ["", "not_the_speaker"]
    pair = [row["reason"] for row in ingested.rows("clearvoice_001_2faces.avi")]
    assert sorted(pair) == ["", "not_the_speaker"]


def _start(row: LedgerRow) -> float:
    return row["start_s"]


def test_false_faces_do_not_break_the_main_track(ingested: Ingested) -> None:
    rows = ingested.rows("latentsync_demo1_25fps.mp4")
    kept = [row for row in rows if not row["reason"]]
    # Where the lips do not follow the sound the track is cut, but no frame of it is missing.
    main = sorted((row for row in rows if row["track"] == kept[0]["track"]), key=_start)
    assert [main[0]["start_s"], main[-1]["end_s"]] == [0, 10]
    assert all(one["end_s"] == other["start_s"] for one, other in pairwise(main))
    assert {row["reason"] for row in main} <= {"", "other_voice"}
    assert sum(row["num_frames"] for row in kept) > 180
    assert all(row["coverage"] == 1 for row in main)


def test_known_offsets(ingested: Ingested) -> None:
    for name, known in KNOWN_OFFSETS.items():
        kept = [row for row in ingested.rows(name) if not row["reason"]]
        best = max(kept, key=lambda row: row["sync_confidence"])
        assert abs(round(best["av_offset_frames"]) - known) <= 1, (name, best)
    sure = [
        max(row["sync_confidence"] for row in ingested.rows(name) if not row["reason"])
        >= MouthAudioScorer.min_confidence
        for name in KNOWN_OFFSETS
    ]
    assert np.mean(sure) >= 0.8


def test_corrected_audio_is_in_sync(real_clips: list[RealClip]) -> None:
    scorer = MouthAudioScorer()
    sure = [
        clip
        for clip in real_clips
        if clip.row["sync_confidence"] >= MouthAudioScorer.min_confidence
    ]
    assert len(sure) >= 15
    again = [scorer.measure(clip.landmarks, clip.audio) for clip in sure]
    left = np.abs([score.offset_frames for score in again])
    assert np.mean(left <= 1) >= 0.9
    # Its file's offset is a clip's, and what is less than uncertain is not corrected.
    known = [
        np.hypot(score.uncertainty, clip.row["offset_uncertainty"])
        for score, clip in zip(again, sure, strict=True)
    ]
    assert (left <= known).all()
