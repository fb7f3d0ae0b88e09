"""The least that an ingest must do: decode, and look for the face's landmarks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ingest_workers import Span, Workers, detector
from datasets.errors import SourceError
from datasets.faces.mediapipe_models import quiet_stderr
from datasets.media import FPS, probe, read_audio, read_frames
from tasks.ingest.file_run import is_silent


@dataclass(frozen=True)
class Source:
    """A file that an ingest has to decode."""

    path: Path
    seconds: float
    short_side: int
    """Pixels."""


def usable(path: Path) -> Source | None:
    """What is known about a file; None for one that is refused before its video is decoded."""
    try:
        info = probe(path)
        if not info.has_audio or is_silent(read_audio(path)):
            return None
        return Source(path, info.duration_s, min(info.width, info.height))
    except SourceError:
        return None


def decode(path: Path) -> int:
    """Every frame of the file to RGB; returns how many."""
    return sum(1 for frame in read_frames(path, fps=None) if frame.rgb.size)


def see_whole(path: Path) -> int:
    """RGB at 25 fps, and mediapipe's own FaceMesh on every whole frame, which follows two faces
    as the ingest does; returns how many frames there are."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    seen = 0
    # It writes notes about its models every time.
    with quiet_stderr(), FaceMesh(max_num_faces=2, refine_landmarks=True) as mesh:
        for frame in read_frames(path, fps=FPS):
            mesh.process(frame.rgb)
            seen += 1
    return seen


def see_regions(path: Path) -> int:
    """The same with the ingest's own detector, which looks at the regions of the faces that it
    follows."""
    mesh = detector()
    mesh.reset()
    seen = 0
    for frame in read_frames(path, fps=FPS):
        mesh.detect(frame.rgb)
        seen += 1
    return seen


def on_all(
    workers: Workers, work: Callable[[Path], int], paths: Sequence[Path]
) -> tuple[int, Span]:
    """Frames, and the time that all workers together took for one of the above."""
    counts, span = workers.map(work, paths)
    return sum(counts), span
