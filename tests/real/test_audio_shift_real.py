"""Real clips whose sound is moved in the container: ingestion brings back the same samples."""

import hashlib
import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from datasets.faces.landmarks import Face
from datasets.media import SAMPLE_RATE, SAMPLES_PER_FRAME, Picture, read_audio
from datasets.shards.index import read_samples
from datasets.shards.records import LedgerRow
from datasets.sources.items import local_item
from datasets.store.local import LocalStore
from tasks.ingest.config import IngestConfig
from tasks.ingest.stage import IngestStage, IngestWork
from tasks.ingest.verdicts import Thresholds

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

SHIFTS = {
    "grid_lwbsza.mpg": [shift for shift in range(-9, 10) if shift],
    "retalk_2.mp4": [-9, -4, 5, 9],
    "syncnet_example.avi": [-9, 9],
}
"""Clips whose offset the scorer is sure of."""


class Remembered:
    """A detector that looks at every picture once only."""

    def __init__(self, detector: Any) -> None:
        self._detector = detector
        self._known: dict[bytes, list[Face]] = {}

    def detect(self, rgb: np.ndarray | Picture) -> list[Face]:
        key = hashlib.sha1(Picture.of(rgb).rgb.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._detector.detect(rgb)
        return self._known[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> IngestStage:
    store = LocalStore(tmp_path_factory.mktemp("out"))
    made = IngestStage(IngestConfig(resolution=64), Thresholds(), store, "made")
    made.setup()
    assert made._tools is not None
    detector: Any = Remembered(made._tools.detector)
    made._tools = replace(made._tools, detector=detector)
    return made


def moved(source: Path, samples: np.ndarray, target: Path) -> Path:
    """The source's own pictures with these samples, int16 at 16 kHz, in Matroska."""
    with av.open(str(source)) as old, av.open(str(target), "w", format="matroska") as new:
        video, sound = old.streams.video[0], new.add_stream("pcm_s16le", rate=SAMPLE_RATE)
        sound.layout = "mono"
        copy = new.add_stream_from_template(video)
        first = None
        for packet in old.demux(video):
            if packet.dts is None or packet.pts is None:
                continue
            first = packet.pts if first is None else first
            # Both streams begin at zero.
            packet.pts, packet.dts = packet.pts - first, packet.dts - first
            packet.stream = copy
            new.mux(packet)
        for begin in range(0, len(samples), 1024):
            part = av.AudioFrame.from_ndarray(
                samples[None, begin : begin + 1024], format="s16", layout="mono"
            )
            part.sample_rate, part.pts = SAMPLE_RATE, begin
            part.time_base = Fraction(1, SAMPLE_RATE)
            new.mux(sound.encode(part))
        new.mux(sound.encode(None))
    return target


def shifted(samples: np.ndarray, late: int) -> np.ndarray:
    """As many samples, `late` of them later; what comes in is zero."""
    out = np.zeros_like(samples)
    if late >= 0:
        out[late:] = samples[: len(samples) - late]
    else:
        out[:late] = samples[-late:]
    return out


def ingest(stage: IngestStage, path: Path) -> list[tuple[LedgerRow, np.ndarray]]:
    """Row and corrected samples of every clip."""
    stage.begin("0")
    result = stage.process(IngestWork(local_item(path, path.name, "somebody"), path, "train"))
    found: dict[str, dict[str, bytes]] = {}
    for shard in stage.finish("0"):
        found.update(read_samples(stage.store, f"made/shards/{shard['info']['name']}"))
    clips = []
    for row in result["rows"]:
        if not row["reason"]:
            flac = io.BytesIO(found[row["clip_id"]]["flac"])
            samples, rate = soundfile.read(flac, dtype="int16")
            assert rate == SAMPLE_RATE
            clips.append((row, samples))
    return clips


def origin(row: LedgerRow, late: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Which sample of the unmoved recording each sample of a clip must be, and whether there is
    one: it must lie in the recording, and in the container after the move.

    The correction that was applied is the estimate in whole samples, or none where the estimate is
    smaller than its uncertainty.
    """
    offset = row["av_offset_frames"]
    moved = offset if abs(offset) >= row["offset_uncertainty"] else 0.0
    begin = round(row["start_s"] * SAMPLE_RATE) + round(moved * SAMPLES_PER_FRAME)
    inside = begin + np.arange(row["num_frames"] * SAMPLES_PER_FRAME)
    index = inside - late
    return index, (inside >= 0) & (inside < length) & (index >= 0) & (index < length)


@pytest.mark.parametrize("name", SHIFTS)
def test_moved_sound_is_brought_back_to_the_sample(
    stage: IngestStage, shared: Path, tmp_path: Path, name: str
) -> None:
    source = shared / "clips" / name
    samples = np.round(read_audio(source) * 32767).astype(np.int16)
    before = ingest(stage, moved(source, samples, tmp_path / "still.mkv"))
    assert before
    for shift in SHIFTS[name]:
        late = shift * SAMPLES_PER_FRAME
        path = moved(source, shifted(samples, late), tmp_path / f"moved{shift}.mkv")
        after = ingest(stage, path)
        assert len(after) == len(before)
        for (old, first), (new, second) in zip(before, after, strict=True):
            gap = new["av_offset_frames"] - old["av_offset_frames"] - shift
            assert abs(gap) <= 1, (name, shift)
            here, known = origin(new, late, len(samples))
            assert (second[known] == samples[here[known]]).all(), (name, shift)
            assert not second[~known].any(), (name, shift)
            there, known_before = origin(old, 0, len(samples))
            both, left, right = np.intersect1d(
                there[known_before], here[known], assume_unique=True, return_indices=True
            )
            # The shift and the two estimates' difference are all that may be missing.
            assert len(both) >= len(first) - 2 * abs(late) - 2 * SAMPLES_PER_FRAME
            assert (first[known_before][left] == second[known][right]).all(), (name, shift)
