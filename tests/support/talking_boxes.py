"""Synthetic clips for training tests: a grey face whose mouth opens with the loudness.

Made in milliseconds, without a face detector, in the format that a refresh writes.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.faces.alignment import CROP
from datasets.faces.points import OUTER_LIPS
from datasets.media import SAMPLES_PER_FRAME, VideoWriter, write_flac
from datasets.store.local import LocalStore
from tests.support.shard_files import write_index, write_shards

SIDE = 64


def talking_box(seed: int, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames uint8 (t, 64, 64, 3), audio float32 (t * 640,), landmarks float32 (t, 478, 2)."""
    rng = np.random.default_rng(seed)
    opening = np.clip(np.repeat(rng.random(frames // 4 + 1), 4)[:frames] * 2 - 0.8, 0, 1)
    face = np.full((frames, SIDE, SIDE, 3), rng.integers(90, 200, 3), np.uint8)
    landmarks = np.full((frames, 478, 2), SIDE / 2, np.float32)
    for index, gap in enumerate(opening):
        top, bottom = 42 - round(3 * gap), 45 + round(6 * gap)
        face[index, top:bottom, 22:42] = (60, 20, 20)
        landmarks[index, OUTER_LIPS[:10]] = (22, top)
        landmarks[index, OUTER_LIPS[10:]] = (42, bottom)
    loudness = np.repeat(opening, SAMPLES_PER_FRAME).astype(np.float32)
    tone = np.sin(np.arange(len(loudness)) * 2 * np.pi * 300 / 16000)
    audio = (0.4 * loudness * tone + 1e-3 * rng.standard_normal(len(loudness))).astype(np.float32)
    return face, audio, landmarks


def make_dataset(
    folder: Path,
    speakers: int = 3,
    clips: int = 1,
    frames: int | Sequence[int] = 60,
    test: tuple[int, ...] = (0,),
    per_shard: int = 1 << 30,
) -> Path:
    """A dataset folder; the speakers numbered in `test` are the test split.

    Args:
        folder: where it is made.
        speakers, clips: how many speakers, and clips of each.
        frames: length of all clips, or of each of a speaker's clips.
        test: numbers of the test speakers.
        per_shard: most clips of a shard.
    """
    lengths = [frames] * clips if isinstance(frames, int) else frames
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for split in ("train", "test"):
        numbers = [n for n in range(speakers) if (n in test) == (split == "test")]
        samples = [
            _sample(folder / "work", f"s{n}-c{clip}", f"speaker{n}", 31 * n + clip, lengths[clip])
            for n in numbers
            for clip in range(clips)
        ]
        if samples:
            shards += write_shards(samples, folder, split, max_samples=per_shard)
    write_index(LocalStore(folder), shards, {"resolution": SIDE, "crop": CROP})
    return folder


def _sample(
    work: Path, clip_id: str, speaker: str, seed: int, frames: int
) -> tuple[str, dict[str, bytes | Path]]:
    work.mkdir(exist_ok=True)
    face, audio, landmarks = talking_box(seed, frames)
    video, sound = work / f"{clip_id}.mp4", work / f"{clip_id}.flac"
    with VideoWriter(video, SIDE, SIDE, 25, crf=12, preset="ultrafast") as writer:
        for frame in face:
            writer.write(frame)
    write_flac(sound, audio, 16000)
    points = io.BytesIO()
    np.save(points, landmarks)
    about = {
        "clip_id": clip_id,
        "path": f"{speaker}/{clip_id}.mp4",
        "speaker": speaker,
        "num_frames": frames,
        "resolution": SIDE,
        "start_s": 0.0,
        "end_s": frames / 25,
        "av_offset_frames": 0.0,
        "sync_confidence": 9.0,
        "scorer": "none",
    }
    return clip_id, {
        "mp4": video,
        "flac": sound,
        "npy": points.getvalue(),
        "json": json.dumps(about).encode(),
    }
