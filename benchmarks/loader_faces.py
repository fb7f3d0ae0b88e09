"""Aligned faces and their sound for `benchmarks.loader`, and shards of them in any encoding."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np

from datasets.errors import SourceError
from datasets.faces.alignment import CROP, Aligner, align, align_points
from datasets.faces.landmarks import FaceMeshDetector
from datasets.media import FPS, SAMPLES_PER_FRAME, VideoWriter, read_audio, read_frames
from datasets.media.audio import fit_length, flac_bytes
from datasets.sample.make import make_sample
from datasets.shards.clip_index import table_bytes, table_entry
from datasets.shards.index import FOLDER, make_index, publish_index
from datasets.shards.records import ClipRow
from datasets.shards.writer import Shard, ShardWriter
from datasets.store.local import LocalStore
from tasks.ingest.clip_writer import PRESET, SEEK_FRAMES

SIDE = 256
CRF = 15
PER_SHARD = 16
SHORTEST = 100
"""Frames; shorter clips are left out, since all clips of data sets are about as long."""


@dataclass
class Face:
    """One aligned clip."""

    frames: np.ndarray
    """uint8 (t, 256, 256, 3)."""
    sound: np.ndarray
    """float32 (t * 640,)."""
    landmarks: np.ndarray
    """float32 (t, 478, 2), pixels of the aligned face."""


def read_faces(folder: Path, videos: int, frames: int) -> list[Face]:
    """The first faces of some videos that have sound; the longest clip is `frames` long."""
    found: list[Face] = []
    with FaceMeshDetector(max_faces=1) as detector:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".mpg")):
            if len(found) == videos:
                break
            try:
                sound = read_audio(path)
                face = _read_face(path, detector, frames, sound)
            except SourceError as error:
                print(f"  {path.name} is left out: {error.detail}")
                continue
            if face is not None:
                found.append(face)
                print(f"  {path.name}: {len(face.frames)} frames", flush=True)
    return found


def _read_face(path: Path, detector: FaceMeshDetector, most: int, sound: np.ndarray) -> Face | None:
    aligner = Aligner(SIDE)
    detector.reset()
    pictures: list[np.ndarray] = []
    points: list[np.ndarray] = []
    for frame in read_frames(path):
        faces = detector.detect(frame.picture)
        if not faces or len(pictures) == most:
            break
        matrix = aligner.matrix(faces[0].landmarks)
        pictures.append(align(frame.picture, matrix, SIDE))
        points.append(align_points(faces[0].landmarks, matrix, SIDE))
    if len(pictures) < SHORTEST:
        return None
    length = len(pictures) * SAMPLES_PER_FRAME
    return Face(np.stack(pictures), fit_length(sound, length), np.stack(points).astype(np.float32))


def sample_videos(folder: Path, count: int) -> Path:
    """Generated videos, where there is no footage."""
    make_sample(folder, count)
    return folder


@dataclass(frozen=True)
class Encoding:
    """How faces are stored."""

    name: str
    options: Mapping[str, str]
    """x264's, besides preset and crf."""

    def encode(self, frames: np.ndarray) -> bytes:
        """An mp4 of faces."""
        buffer = io.BytesIO()
        with _Writer(buffer, self.options) as writer:
            for frame in frames:
                writer.write(frame)
        return buffer.getvalue()


class _Writer(VideoWriter):
    def __init__(self, target: io.BytesIO, options: Mapping[str, str]) -> None:
        self.chosen = dict(options)
        super().__init__(target, SIDE, SIDE, FPS, crf=CRF, preset=PRESET)

    def _options(self, encoder: str, crf: int, preset: str) -> dict[str, str]:
        return super()._options(encoder, crf, preset) | self.chosen


KEYS = {"g": str(SEEK_FRAMES)}
BEFORE = Encoding("x264's own key frames", {})
OURS = Encoding("ours", KEYS | {"x264-params": "cpu-independent=1:cabac=0"})
ENCODINGS = (
    BEFORE,
    Encoding("a key frame twice a second", KEYS),
    OURS,
    Encoding("ours, every second", {**OURS.options, "g": str(FPS)}),
    Encoding("ours, no deblocking", KEYS | {"tune": "fastdecode"}),
    Encoding("ours, preset ultrafast", {**OURS.options, "preset": "ultrafast"}),
)
"""What was compared; arithmetic coding and deblocking are what decoding spends its time on."""


def write_dataset(folder: Path, faces: Sequence[Face], encoding: Encoding, clips: int) -> Path:
    """A dataset of these faces by turns, under names of their own.

    Args:
        folder: where it is made.
        faces: what is in it.
        encoding: of the pictures.
        clips: how many clips.
    """
    videos = [encoding.encode(face.frames) for face in faces]
    sounds = [flac_bytes(face.sound, 16_000) for face in faces]
    shards: list[Shard] = []
    rows = {}
    for group, first in enumerate(range(0, clips, PER_SHARD)):
        writer = ShardWriter(folder / "unfinished", group)
        for number in range(first, min(clips, first + PER_SHARD)):
            which = number % len(faces)
            points = io.BytesIO()
            np.save(points, faces[which].landmarks)
            row = ClipRow(f"{which}.mp4", f"clip-{number:06d}", speaker=f"s{which}")
            row.num_frames = len(faces[which].frames)
            rows[row.clip_id] = asdict(row)
            members = {
                "mp4": videos[which],
                "flac": sounds[which],
                "npy": points.getvalue(),
                "json": b"{}",
            }
            writer.add("train", row.clip_id, members)
        shards += writer.finish(LocalStore(folder), FOLDER)
    table = table_bytes(shards, rows, SIDE)
    clips_entry = table_entry(table)
    LocalStore(folder).write(f"{FOLDER}/{clips_entry['name']}", table)
    meta = {"resolution": SIDE, "crop": CROP, "fps": FPS, "clips": clips_entry}
    publish_index(LocalStore(folder), make_index([shard.info for shard in shards], meta))
    return folder


def decoded(video: bytes) -> np.ndarray:
    """(t, h, w, 3) by PyAV alone."""
    with av.open(io.BytesIO(video), "r") as container:
        return np.stack([each.to_ndarray(format="rgb24") for each in container.decode(video=0)])


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder for shards that is removed."""
    return tempfile.TemporaryDirectory(prefix="latentsync-loader-")
