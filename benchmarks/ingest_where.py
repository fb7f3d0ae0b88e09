"""Where our ingest spends its time: one process, every file, under cProfile.

Profiling slows small Python calls, so shares count here, not seconds.
"""

import cProfile
import pstats
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ingest_ours import stage_and_groups

PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "decode to RGB": (("datasets/media/video.py", "read_frames"),),
    "FaceMesh": (
        ("datasets/faces/landmarks.py", "detect"),
        ("datasets/faces/landmarks.py", "reset"),
    ),
    "shots": (("tasks/faces/shots.py", "add"),),
    "alignment": (
        ("datasets/faces/alignment.py", "align"),
        ("datasets/faces/alignment.py", "matrix"),
        ("datasets/faces/alignment.py", "align_points"),
    ),
    "encode": (
        ("datasets/media/writer.py", "write"),
        ("datasets/media/writer.py", "close"),
        ("datasets/media/writer.py", "__init__"),
    ),
    "quality": (
        ("tasks/ingest/face_quality.py", "add"),
        ("tasks/ingest/face_quality.py", "result"),
    ),
    "audio": (
        ("datasets/media/audio.py", "loud_frames"),
        ("datasets/media/audio.py", "part"),
        ("datasets/media/audio.py", "flac_bytes"),
    ),
    "sync score": (("tasks/sync/mouth_audio.py", "score"),),
    "shards": (("datasets/shards/writer.py", "add"), ("datasets/shards/writer.py", "finish")),
    "hash of the file": (("datasets/store/atomic.py", "content_digest"),),
}
"""Functions by file and name, none of which calls another one in the list."""
REST = "the rest"


def where(folder: Path, out: Path) -> dict[str, float]:
    """Seconds per part, and of the rest, of one process that ingests all files.

    FaceMesh and the encoder are given one process here, but may use more than one core.
    """
    stage, batches = stage_and_groups(folder, out)
    stage.setup()
    profile = cProfile.Profile()
    begin = time.perf_counter()
    profile.enable()
    for batch in batches:
        stage.begin(batch.key)
        for _, work in batch.items:
            stage.process(work)
        stage.finish(batch.key)
    profile.disable()
    total = time.perf_counter() - begin
    return parts(pstats.Stats(profile), total)


def parts(stats: pstats.Stats, total: float) -> dict[str, float]:
    """Cumulative seconds of the functions in `PARTS`, and the rest of `total`."""
    found = dict.fromkeys(PARTS, 0.0)
    for (file, _, name), figures in stats.stats.items():  # type: ignore[attr-defined]
        for part, functions in PARTS.items():
            if any(file.endswith(end) and name == function for end, function in functions):
                found[part] += figures[3]
    return found | {REST: max(0.0, total - sum(found.values()))}


def lines(seconds: dict[str, float]) -> Sequence[str]:
    """A table, the largest first."""
    total = sum(seconds.values()) or 1.0
    ordered = sorted(seconds.items(), key=lambda pair: -pair[1])
    return [f"  {part:42s} {100 * value / total:6.1f} %" for part, value in ordered]
