"""A dataset small enough for a test: moving shapes whose mouth follows their sound."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from datasets.faces.alignment import CROP
from datasets.media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, VideoWriter, write_flac
from datasets.shards.records import COLUMNS, ClipRow, Verdict
from datasets.shards.splits import assign_splits
from datasets.store.local import LocalStore
from tests.support.shard_files import write_index, write_shards

EYES = {33: (0.3, 0.35), 263: (0.7, 0.35), 10: (0.5, 0.08), 2: (0.5, 0.58), 1: (0.5, 0.55)}
"""FaceMesh points with places of their own, as shares of the side."""
INNER_LIPS = ((81, 178), (13, 14), (311, 402), (82, 87), (312, 317), (80, 88), (310, 318))
"""Pairs of upper and lower inner lip points."""
OUTER = {61: (0.36, 0.0), 291: (0.64, 0.0), 0: (0.5, -0.04), 17: (0.5, 0.04)}


def openings(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(t,) between 0 and 1: syllables with pauses."""
    value = np.zeros(num_frames)
    frame = 2
    while frame < num_frames:
        length = int(rng.integers(4, 9))
        shape = np.sin(np.linspace(0, np.pi, length)) * rng.uniform(0.5, 1)
        value[frame : frame + length] = shape[: max(0, num_frames - frame)]
        frame += length + int(rng.integers(0, 5))
    return value


def speech(opening: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float32]:
    """A buzz whose loudness follows the opening, (t * 640,)."""
    loud = np.repeat(opening, SAMPLES_PER_FRAME)
    time = np.arange(len(loud)) / SAMPLE_RATE
    pitch = rng.uniform(100, 220)
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    return (0.25 * loud * tone + 0.001 * rng.standard_normal(len(loud))).astype(np.float32)


def landmarks(opening: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    """(t, 478, 2) with eyes, nose and lips where a face has them."""
    angle = np.linspace(0, 2 * np.pi, 478, endpoint=False)
    ring = np.stack([0.5 + 0.4 * np.cos(angle), 0.5 + 0.45 * np.sin(angle)], axis=1)
    points = np.repeat(ring[None], len(opening), axis=0)
    for index, place in EYES.items():
        points[:, index] = place
    for index, (x, y) in OUTER.items():
        points[:, index] = (x, 0.75 + y)
    for upper, lower in INNER_LIPS:
        gap = 0.06 * opening
        points[:, upper] = np.stack([np.full_like(gap, 0.5), 0.75 - gap], axis=1)
        points[:, lower] = np.stack([np.full_like(gap, 0.5), 0.75 + gap], axis=1)
    return (points * side).astype(np.float32)


def frames(opening: NDArray[np.float64], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(t, side, side, 3): an ellipse with a dark mouth, in a colour of its own."""
    y, x = np.mgrid[0:side, 0:side] / side
    skin, ground = rng.integers(90, 230, 3), rng.integers(20, 200, 3)
    face = ((x - 0.5) / 0.4) ** 2 + ((y - 0.5) / 0.45) ** 2 < 1
    still = np.where(face[..., None], skin, ground).astype(np.uint8)
    for eye in (0.3, 0.7):
        still[(x - eye) ** 2 + (y - 0.35) ** 2 < 0.004] = 30
    pictures = np.repeat(still[None], len(opening), axis=0)
    for picture, value in zip(pictures, opening, strict=True):
        mouth = ((x - 0.5) / 0.14) ** 2 + ((y - 0.75) / (0.015 + 0.06 * value)) ** 2 < 1
        picture[mouth] = (60, 10, 20)
    return pictures


def write_small_dataset(
    folder: Path,
    speakers: int = 3,
    clips_per_speaker: int = 2,
    num_frames: int = 60,
    resolution: int = 64,
    seed: int = 0,
) -> Path:
    """Write shards, index and ledger; returns `folder`."""
    names = [f"speaker_{number:02d}" for number in range(speakers)]
    splits = assign_splits(names, 0.3)
    scratch = folder / "scratch"
    samples: dict[str, list[tuple[str, dict[str, bytes | Path]]]] = {"train": [], "test": []}
    rows = []
    for number, speaker in enumerate(names):
        for index in range(clips_per_speaker):
            rng = np.random.default_rng([seed, number, index])
            row = ClipRow(
                path=f"{speaker}/{index}.mp4",
                clip_id=f"{speaker}-{index}",
                shot=0,
                track=0,
                speaker=speaker,
                end_s=num_frames / FPS,
                num_frames=num_frames,
                face_px=100.0,
                av_offset_frames=0.0,
                sync_confidence=9.0,
                scorer="mouth-audio",
                verdict=Verdict.ACCEPTED.value,
            )
            rows.append(row.as_row())
            split = splits[speaker]
            members = _members(scratch, row, resolution, rng)
            samples[split].append((row.clip_id, members))
    shards = [
        shard
        for split, items in samples.items()
        for shard in write_shards(items, folder, split, max_samples=4)
    ]
    meta = {"resolution": resolution, "crop": CROP, "fps": FPS, "duplicates": "recordings"}
    write_index(LocalStore(folder), shards, meta)
    pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(folder / "ledger.parquet")
    return folder


def _members(
    scratch: Path, row: ClipRow, side: int, rng: np.random.Generator
) -> dict[str, bytes | Path]:
    import json

    opening = openings(row.num_frames, rng)
    video, sound = scratch / f"{row.clip_id}.mp4", scratch / f"{row.clip_id}.flac"
    with VideoWriter(video, side, side, FPS, crf=12, preset="ultrafast") as writer:
        for picture in frames(opening, side, rng):
            writer.write(picture)
    write_flac(sound, speech(opening, rng), SAMPLE_RATE)
    points = scratch / f"{row.clip_id}.npy"
    np.save(points, landmarks(opening, side))
    meta: dict[str, Any] = {
        "clip_id": row.clip_id,
        "path": row.path,
        "speaker": row.speaker,
        "num_frames": row.num_frames,
        "resolution": side,
        "start_s": row.start_s,
        "end_s": row.end_s,
        "av_offset_frames": row.av_offset_frames,
        "sync_confidence": row.sync_confidence,
        "scorer": row.scorer,
    }
    return {
        "mp4": video,
        "flac": sound,
        "npy": points,
        "json": json.dumps(meta, sort_keys=True).encode(),
    }
