"""What reading for training costs: windows per second of processor time, plain and ours.

    python -m benchmarks.loader ../shared/clips --json loader.json     faces of real videos
    python -m benchmarks.loader                                        faces of the generated sample
    python -m benchmarks.loader --open 1000000                         opening a large dataset

A window is what the sync network of recipe paper-256 gets: 16 lower halves of faces of 256 pixels,
and 52 columns of mel. Clips are read from shards and nobody keeps them. The plain reader is PyAV:
it seeks, decodes 16 frames, converts them, and has its mel from a table that costs nothing. It
reads the shards as they were encoded before (x264's own key frames), and those of today. Ours
streams those of today with one window per clip and with four, sound and mel included.

`waiting` is the share of the time of training steps (recipe tiny on a processor, paper-256 on
CUDA) in which the loop waits for a batch from two processes. `memory` is what the process holds
after each epoch of a small set.
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import psutil
import torch

from benchmarks.loader_faces import (
    BEFORE,
    ENCODINGS,
    OURS,
    SIDE,
    Face,
    decoded,
    read_faces,
    sample_videos,
    scratch,
    write_dataset,
)
from datasets.media import FPS
from datasets.shards.clip_index import FACTS
from datasets.shards.index import FOLDER, make_index, publish_index
from datasets.shards.writer import ShardInfo
from datasets.store.local import LocalStore
from models.audio.mel import MEL_RATE, WINDOW_COLUMNS, mel_spectrogram
from tasks.recipes.config import SyncNetConfig
from tasks.recipes.recipe import recipe
from tasks.sync.network_files import build_syncnet
from tasks.train.cutters import SyncCutter
from tasks.train.stream import Reading, Source, Stream, rank_batches
from tasks.train.syncnet import pairs_loss

FRAMES = 16
BARS = {"ours_1": 2.0, "ours_4": 6.0}
"""Times the plain reader's windows per second that are wanted."""
OPEN_BARS = {"seconds": 10.0, "megabytes": 500.0}
MIXED = 64 << 20
"""Bytes of windows that wait; no larger than a small set, so that epochs end."""


class PlainReader:
    """Windows of clips at random, as one would write it with PyAV.

    Args:
        dataset: folder with shards.
        faces: of which the clips are, by turns.
    """

    def __init__(self, dataset: Path, faces: Sequence[Face]) -> None:
        self.places: list[tuple[Path, int, int]] = []
        for shard in sorted((dataset / FOLDER).glob("*.tar")):
            with tarfile.open(shard) as tar:
                self.places += [
                    (shard, each.offset_data, each.size) for each in tar if ".mp4" in each.name
                ]
        self.mels = [mel_spectrogram(face.sound).numpy() for face in faces]

    def windows(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Faces (16, 128, 256, 3) and mel (80, 52), without end."""
        rng = np.random.default_rng(seed)
        while True:
            number = int(rng.integers(len(self.places)))
            shard, offset, size = self.places[number]
            with shard.open("rb") as file:
                file.seek(offset)
                content = file.read(size)
            with av.open(io.BytesIO(content), "r") as container:
                stream = container.streams.video[0]
                start = int(rng.integers(stream.frames - FRAMES))
                assert stream.time_base is not None
                container.seek(int(start / FPS / stream.time_base), stream=stream)
                window = []
                for frame in container.decode(stream):
                    if round(float(frame.time or 0) * FPS) >= start:
                        window.append(frame.to_ndarray(format="rgb24")[SIDE // 2 :])
                    if len(window) == FRAMES:
                        break
            mel = self.mels[number % len(self.mels)]
            begin = start * MEL_RATE // FPS
            yield np.stack(window), mel[:, begin : begin + WINDOW_COLUMNS]


def sync_config(windows_per_clip: int) -> SyncNetConfig:
    """The sync network of paper-256, in batches small enough to count."""
    return replace(recipe("paper-256").syncnet, batch_size=16, windows_per_clip=windows_per_clip)


def stream(dataset: Path, config: SyncNetConfig, workers: int = 1) -> Stream:
    """One rank's."""
    source = Source(str(dataset), "train", config.resolution)
    return Stream(source, SyncCutter(config), 1, [Reading(0, 1, workers)], 0, 0, MIXED)


def speed(windows: Iterator[Any], count: int, each: int = 1) -> float:
    """Windows per second of processor time; the first one, for which others wait, is left out."""
    next(windows)
    began = time.process_time()
    for _ in islice(windows, count // each):
        pass
    return count // each * each / (time.process_time() - began)


def speeds(before: Path, now: Path, faces: Sequence[Face], rounds: int) -> dict[str, float]:
    """Medians over rounds, in which the ways take turns."""
    plain, plain_now = PlainReader(before, faces), PlainReader(now, faces)
    ways: dict[str, Callable[[int], float]] = {
        "plain": lambda seed: speed(plain.windows(seed), 48),
        "plain_now": lambda seed: speed(plain_now.windows(seed), 96),
        "ours_1": lambda seed: speed(stream(now, sync_config(1)).batches(0, 0), 256, 16),
        "ours_4": lambda seed: speed(stream(now, sync_config(4)).batches(0, 0), 256, 16),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, measure in ways.items():
            found[name].append(measure(number))
    return {name: median(each) for name, each in found.items()}


def encodings(faces: Sequence[Face]) -> list[dict[str, Any]]:
    """Bytes, error and time to decode of the ways to store faces."""
    rows = []
    frames = sum(len(face.frames) for face in faces)
    for each in ENCODINGS:
        videos = [each.encode(face.frames) for face in faces]
        pictures = [decoded(video) for video in videos]
        error = sum(
            float(np.square(shown.astype(np.float32) - face.frames).mean()) * len(shown)
            for shown, face in zip(pictures, faces, strict=True)
        )
        row: dict[str, Any] = {"encoding": each.name}
        row["bytes_per_frame"] = sum(map(len, videos)) / frames
        row["psnr_db"] = 10 * float(np.log10(255**2 / (error / frames)))
        row["decode_ms"] = min(_decode_ms(videos) for _ in range(3)) / frames
        rows.append(row)
    return rows


def _decode_ms(videos: Sequence[bytes]) -> float:
    began = time.process_time()
    for video in videos:
        with av.open(io.BytesIO(video), "r") as container:
            for _ in container.decode(video=0):
                pass
    return (time.process_time() - began) * 1000


def waiting(dataset: Path, steps: int, device: torch.device) -> dict[str, float]:
    """Share of the time of training steps that is spent waiting for their batches."""
    chosen = recipe("tiny" if device.type == "cpu" else "paper-256").syncnet
    config = chosen if device.type == "cpu" else replace(chosen, windows_per_clip=4)
    network = build_syncnet(config.network, config.options).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    waited = total = 0.0
    with closing(rank_batches(stream(dataset, config, workers=2))) as batches:
        next(batches)
        for _ in range(steps):
            began = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - began
            loss, _, _ = pairs_loss(network, batch.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss.detach())
            total += time.monotonic() - began
    return {"waiting": waited / total, "step_s": total / steps}


def memory(dataset: Path, clips: int, epochs: int) -> list[float]:
    """Megabytes that this process holds after each epoch."""
    config = sync_config(4)
    batches = stream(dataset, config).batches(0, 0)
    held = []
    for _ in range(epochs):
        for _ in islice(batches, clips * config.windows_per_clip // config.batch_size):
            pass
        held.append(psutil.Process().memory_info().rss / 2**20)
    return held


def open_large(clips: int) -> dict[str, float]:
    """Seconds and megabytes of opening a dataset of so many clips, in a process of its own."""
    with scratch() as folder:
        _large_dataset(Path(folder), clips)
        done = subprocess.run(
            [sys.executable, "-c", OPEN, folder], check=True, capture_output=True, text=True
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found


OPEN = """
import json, re, sys, time
from pathlib import Path
from datasets.shards.clips import ClipStore
began = time.monotonic()
store = ClipStore(sys.argv[1], split="train")
usable = len(store.clips.long_enough(100))
opened = time.monotonic() - began
began = time.monotonic()
usable = len(store.clips.long_enough(100))
again = time.monotonic() - began
# What getrusage says may be the size of the process that started this one.
held = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({"clips": len(store.clips), "usable": usable, "seconds": opened,
                  "again_seconds": again, "megabytes": held}))
"""


def _large_dataset(folder: Path, clips: int) -> None:
    """A table of clips of shards that are not there."""
    import pyarrow
    import pyarrow.parquet

    number = np.arange(clips)
    shards = np.char.add(
        np.char.add("train-", np.char.zfill((number // 200).astype(str), 6)), ".tar"
    )
    columns: dict[str, Any] = {
        "clip_id": [f"id{n % 7351:05d}-{n * 7919 % clips:012d}-s00-t00-00" for n in range(clips)],
        "shard": shards.tolist(),
        "split": np.where(number // 200 % 10 == 0, "test", "train").tolist(),
        "speaker": [f"id{n // 150:05d}" for n in range(clips)],
        "path": [f"id{n // 150:05d}/{n:08d}.mp4" for n in range(clips)],
        "num_frames": 50 + number * 31 % 200,
        "resolution": np.full(clips, SIDE),
    }
    for place, name in enumerate(FACTS.names[7:]):
        columns[name] = number % 200 * 1_500_000 + place
    table = pyarrow.table(columns, schema=FACTS)
    path = folder / FOLDER / "clips-00000000.parquet"
    path.parent.mkdir()
    pyarrow.parquet.write_table(table, path, row_group_size=1 << 17, compression="zstd")
    entry = {"name": path.name, "bytes": path.stat().st_size, "sha256": "0" * 64}
    shard = ShardInfo("train-000000-00-00000000.tar", "train", clips, 0, "0" * 64)
    publish_index(LocalStore(folder), make_index([shard], {"clips": entry}))


def report(found: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"\n{'windows per CPU second':34} {'':>8} {'times plain':>12} {'wanted':>8}")
    names = {
        "plain": "plain reader, shards as before",
        "plain_now": "plain reader, shards of today",
        "ours_1": "ours, 1 window per clip",
        "ours_4": "ours, 4 windows per clip",
    }
    for key, name in names.items():
        bar = f"{BARS[key]:.0f}" if key in BARS else ""
        print(f"{name:34} {found[key]:8.1f} {found[key] / found['plain']:12.2f} {bar:>8}")
    print(f"\n{'encoding':28} {'bytes/frame':>12} {'PSNR dB':>8} {'decode ms/frame':>16}")
    for row in found["encodings"]:
        print(
            f"{row['encoding']:28} {row['bytes_per_frame']:12.0f} {row['psnr_db']:8.2f} "
            f"{row['decode_ms']:16.3f}"
        )
    print(f"\nwaiting: {found['waiting']:.1%} of steps of {found['step_s']:.2f} s")
    print("memory after each epoch, MB: " + " ".join(f"{each:.0f}" for each in found["memory"]))


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All but opening."""
    torch.set_num_threads(given.threads)
    with scratch() as folder:
        root = Path(folder)
        videos = given.folder or sample_videos(root / "videos", given.videos)
        print(f"faces of {videos}:", flush=True)
        faces = read_faces(videos, given.videos, given.frames)
        if not faces:
            raise SystemExit(f"no video of {videos} has sound and a face for 4 s: choose others")
        before = write_dataset(root / "before", faces, BEFORE, given.clips)
        now = write_dataset(root / "now", faces, OURS, given.clips)
        found: dict[str, Any] = {"clips": given.clips, "encodings": encodings(faces)}
        torch.set_num_threads(1)
        found |= speeds(before, now, faces, given.rounds)
        found["memory"] = memory(now, given.clips, given.epochs)
        torch.set_num_threads(given.threads)
        found |= waiting(now, given.steps, torch.device(given.device))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, nargs="?", help="with videos; else the sample")
    parser.add_argument("--videos", type=int, default=6, help="most videos")
    parser.add_argument("--frames", type=int, default=250, help="of each video at most")
    parser.add_argument("--clips", type=int, default=96, help="clips in the shards, by turns")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="training steps, for waiting")
    parser.add_argument("--threads", type=int, default=1, help="of the network on a processor")
    parser.add_argument("--device", default="cpu", help="where the steps are computed")
    parser.add_argument("--open", type=int, default=0, metavar="CLIPS", help="only open so many")
    parser.add_argument("--json", type=Path, help="file to write")
    given = parser.parse_args(argv)
    if given.open:
        found: dict[str, Any] = open_large(given.open)
        print(
            f"{found['clips']:,} training clips of {given.open:,} opened in "
            f"{found['seconds']:.1f} s (at most {OPEN_BARS['seconds']:.0f}) with "
            f"{found['megabytes']:.0f} MB (at most "
            f"{OPEN_BARS['megabytes']:.0f}); {found['usable']:,} are long enough, asked again in "
            f"{found['again_seconds'] * 1e6:.0f} us"
        )
    else:
        found = measure(given)
        report(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
