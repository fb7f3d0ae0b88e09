"""How much memory one worker needs for videos of 5, 20 and 60 minutes.

    python -m benchmarks.memory --detector stub            about 10 minutes on one core
    python -m benchmarks.memory --detector facemesh --minutes 5

A short clip is repeated by copying its packets, sound included, so the long video costs
nothing to make; each length is ingested by a process of its own. `stub` puts landmarks
found once in place of FaceMesh, whose time, not memory, grows with the video's length: the
table says which of the two it was.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

BAR_BYTES = 3 << 29
"""Resident memory that an hour of video may take."""
FLAT = 1.1
"""Largest allowed peak of the longest video over that of the shortest."""
SAMPLE_S = 0.25
DETECTORS = ("stub", "facemesh")
CLIP_S = 30.0


@dataclass(frozen=True)
class Usage:
    """The cost of one ingestion."""

    minutes: float
    detector: str
    clips: int
    """Number of clips without a reason against them."""
    seconds: float
    start_bytes: int
    """Resident bytes before the first frame, with models loaded."""
    peak_bytes: int
    """Largest resident set (the kernel's own maximum)."""
    tenths: list[int]
    """Resident bytes after each tenth of the time."""


def make_clip(path: Path, seconds: float = CLIP_S) -> Path:
    """A generated talking head with its voice."""
    from datasets.sample.make import make_sample

    with tempfile.TemporaryDirectory() as folder:
        made = make_sample(Path(folder), clips=1, seconds=(seconds, seconds), workers=1)
        shutil.move(made[0], path)
    return path


def repeated(clip: Path, path: Path, seconds: float) -> Path:
    """The clip repeated by stream copy, in an mp4 of at least `seconds`."""
    with av.open(str(path), "w") as output:
        with av.open(str(clip)) as source:
            length = _length(source)
        with av.open(str(clip)) as source:
            targets = {
                stream.index: output.add_stream_from_template(stream)
                for stream in source.streams
                if stream.type in ("video", "audio")
            }
        start = 0.0
        while start < seconds:
            with av.open(str(clip)) as source:
                for packet in source.demux():
                    if (
                        packet.dts is None
                        or packet.pts is None
                        or packet.stream.index not in targets
                    ):
                        continue
                    shift = round(start / packet.time_base)
                    assert packet.pts is not None
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = targets[packet.stream.index]
                    output.mux(packet)
            start += length
    return path


def _length(source: Any) -> float:
    """Seconds after which the packets can be repeated, with each after its predecessor."""
    begins, ends = [0.0], [0.0]
    for packet in source.demux():
        if packet.dts is not None:
            begins.append(float(packet.dts * packet.time_base))
            ends.append(float((packet.dts + (packet.duration or 0)) * packet.time_base))
    return max(ends) - min(begins)


class FixedFace:
    """A detector that reports for every frame what FaceMesh reports for the first one with a face.

    The head trembles and the lips move at random, so that the sync scorer has something to do.
    """

    def __init__(self) -> None:
        self._face: object | None = None
        self._rng = np.random.default_rng(0)

    def detect(self, image: Any) -> list[Any]:
        from datasets.faces.landmarks import INNER_LIP_PAIRS, Face, FaceMeshDetector

        if self._face is None:
            with FaceMeshDetector() as mesh:
                found = mesh.detect(image)
            if not found:
                return []
            self._face = found[0]
        face = self._face
        assert isinstance(face, Face)
        points = face.landmarks.copy()
        height = face.box[3] - face.box[1]
        # A head that keeps perfectly still is a frozen picture.
        points[:, :2] += self._rng.uniform(-0.004, 0.004, 2).astype(np.float32) * height
        gap = np.float32(self._rng.uniform(0, 0.05) * height)
        points[[lower for _, lower in INNER_LIP_PAIRS], 1] += gap
        return [Face(face.box, points, face.score)]

    def reset(self) -> None:
        return

    def close(self) -> None:
        return


def peak_bytes() -> int:
    """The kernel's own maximum of this process's resident memory."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    raise OSError("this kernel does not report the peak of memory")


def ingest(video: Path, detector: str, resolution: int) -> Usage:
    """Ingest a video in this process."""
    from datasets.sources.items import SourceItem
    from datasets.store.open import open_store
    from tasks.ingest.config import IngestConfig
    from tasks.ingest.stage import IngestStage, IngestWork
    from tasks.ingest.verdicts import Thresholds

    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        stage = IngestStage(IngestConfig(resolution=resolution), Thresholds(), store, "staging")
        stage.setup()
        if detector == "stub":
            assert stage._tools is not None
            stage._tools.detector.close()
            stage._tools = replace(stage._tools, detector=FixedFace())
        item = SourceItem(video.name, str(video), video.name, "somebody")
        with sampled() as sizes:
            began = time.monotonic()
            stage.begin("0")
            result = stage.process(IngestWork(item, video, "train"))
            stage.finish("0")
            seconds = time.monotonic() - began
    good = sum(1 for row in result["rows"] if not row["reason"])
    tenths = [sizes[min(len(sizes) * k // 10, len(sizes) - 1)] for k in range(1, 11)]
    minutes = result["video_seconds"] / 60
    return Usage(minutes, detector, good, seconds, sizes[0], peak_bytes(), tenths)


class sampled:
    """Samples the resident bytes of this process for the duration of a block."""

    def __enter__(self) -> list[int]:
        self.sizes = [psutil.Process().memory_info().rss]
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self.sizes

    def _sample(self) -> None:
        me = psutil.Process()
        while not self.over.wait(SAMPLE_S):
            self.sizes.append(me.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def measure(video: Path, detector: str = "stub", resolution: int = 256) -> Usage:
    """`ingest` in a process of its own.

    Raises:
        RuntimeError: it failed; the text is what it wrote.
    """
    arguments = ["--ingest", str(video), "--detector", detector, "--resolution", str(resolution)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Usage(**json.loads(done.stdout.splitlines()[-1]))


def usages(
    minutes: Sequence[float], clip: Path | None, options: argparse.Namespace
) -> Iterator[Usage]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = clip or make_clip(folder / "clip.mp4")
        for length in minutes:
            video = repeated(clip, folder / "long.mp4", 60 * length)
            yield measure(video, options.detector, options.resolution)


def mib(size: int) -> str:
    return f"{size / 2**20:.0f}"


def show(usage: Usage) -> None:
    print(
        f"{usage.minutes:7.1f} {usage.detector:>9s} {usage.clips:6d} {usage.seconds:8.0f}s "
        f"{mib(usage.start_bytes):>7s} {mib(usage.peak_bytes):>7s}  "
        + " ".join(f"{mib(size):>5s}" for size in usage.tenths),
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0, 20.0, 60.0])
    parser.add_argument("--detector", choices=DETECTORS, default="stub")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--clip", type=Path, help="a short video with speech to repeat")
    parser.add_argument("--output", type=Path, help="write the table as JSON")
    parser.add_argument("--ingest", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.ingest:
        print(json.dumps(asdict(ingest(options.ingest, options.detector, options.resolution))))
        return 0
    print("resident memory of one worker, MiB; the last columns: after each tenth of the time")
    print(f"{'minutes':>7s} {'detector':>9s} {'clips':>6s} {'time':>9s} {'start':>7s} {'peak':>7s}")
    found = []
    for usage in usages(options.minutes, options.clip, options):
        show(usage)
        found.append(usage)
    worst, ratio = max(u.peak_bytes for u in found), found[-1].peak_bytes / found[0].peak_bytes
    print(
        f"peak {mib(worst)} MiB (at most {mib(BAR_BYTES)} is wanted), the longest takes "
        f"{ratio:.2f}x of the shortest (at most {FLAT})"
    )
    if options.output:
        table = [asdict(usage) for usage in found]
        options.output.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    return 0 if worst <= BAR_BYTES and ratio <= FLAT else 1


if __name__ == "__main__":
    raise SystemExit(main())
