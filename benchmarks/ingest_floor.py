"""The least that an ingest must do: decode, and look for the face's landmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.ingest_workers import Span, Workers, detector
from datasets.errors import SourceError
from datasets.media import FPS, probe, read_audio, read_frames
from tasks.ingest_file import is_silent


@dataclass(frozen=True)
class Source:
    """A file that an ingest has to decode."""

    path: Path
    seconds: float
    short_side: int
    """Pixels."""


def usable(path: Path) -> Source | None:
    """What is known of a file; None for one that is refused before its video is decoded."""
    try:
        info = probe(path)
        if not info.has_audio or is_silent(read_audio(path)):
            return None
        return Source(path, info.duration_s, min(info.width, info.height))
    except SourceError:
        return None


def decode(path: Path) -> int:
    """Every frame of the file to RGB; returns how many."""
    return sum(1 for _ in read_frames(path, fps=None))


def see(path: Path, stride: int) -> int:
    """RGB at 25 fps, and FaceMesh on every `stride`-th frame; returns how many of these."""
    mesh = detector()
    mesh.reset()
    seen = 0
    for frame in read_frames(path, fps=FPS):
        if frame.index % stride == 0:
            mesh.detect(frame.rgb)
            seen += 1
    return seen


def decode_all(workers: Workers, paths: Sequence[Path]) -> tuple[int, Span]:
    """Frames and the time it took to decode them on all workers."""
    counts, span = workers.map(decode, paths)
    return sum(counts), span


def see_all(workers: Workers, paths: Sequence[Path], stride: int) -> tuple[int, Span]:
    """Frames that FaceMesh saw, and the time of this floor."""
    counts, span = workers.map(partial(see, stride=stride), paths)
    return sum(counts), span
