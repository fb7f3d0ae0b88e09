"""How well an offset scorer does on real footage, in three figures.

    python -m benchmarks.offsets FOLDER                       pieces of at most 10 s
    python -m benchmarks.offsets FOLDER --seconds 5           pieces of at most 5 s
    python -m benchmarks.offsets FOLDER --scorer syncnet-v2 --device cuda

FOLDER holds videos of one speaker each. Files without sound, with cuts, with a second face or
without one are left out and named. The figures: of the pieces that are called confident, how
many move by the shift (+-1 frame) when the sound of their file is moved by -9 to +9 frames;
how many of the pieces of 5 s or more are called confident; how many with the sound of another
file are. If there is a truth next to a file (the generated sample), the share of confident
pieces whose offset is within one frame of it is a fourth.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.errors import SourceError, UserError
from datasets.faces.landmarks import FaceMeshDetector
from datasets.media import FPS, SAMPLES_PER_FRAME, read_audio, read_frames
from datasets.sources.items import list_folder
from tasks.faces.shots import ShotDetector
from tasks.ingest.file_run import is_silent
from tasks.sync.scorers import get_scorer
from tasks.sync.signals import ClipSignals, OffsetScore, OffsetScorer

SHIFTS = tuple(shift for shift in range(-9, 10) if shift)
LONG_FRAMES = 125
"""Pieces of 5 s or more must often be confident."""
SHORTEST_FRAMES = 50
MIN_COVERAGE, MAX_SECOND_FACE = 0.8, 0.25
"""Share of frames with a face, and with another one, that a file has at least and at most."""


def audio_part(audio: np.ndarray, start: int, frames: int, late: float) -> np.ndarray:
    """Exactly `frames` frames of audio from frame `start` on, a delay of `late` frames undone."""
    begin = start * SAMPLES_PER_FRAME + round(late * SAMPLES_PER_FRAME)
    end = begin + frames * SAMPLES_PER_FRAME
    part = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    inside = audio[max(begin, 0) : max(end, 0)]
    skip = max(-begin, 0)
    part[skip : skip + len(inside)] = inside
    return part


@dataclass(frozen=True, eq=False)
class Footage:
    """One file: its face's landmarks and its sound from the first frame on."""

    name: str
    landmarks: np.ndarray
    """float32 (t, 478, 2)."""
    audio: np.ndarray
    """float32 (n,) at 16 kHz."""
    true_offset: float | None = None
    """Frames by which the audio is late, if known."""

    def signals(self, start: int, frames: int, late: float = 0.0) -> ClipSignals:
        """A piece, as if the sound of the file had been `late` frames later."""
        sound = audio_part(self.audio, start, frames, -late)
        return ClipSignals(self.landmarks[start : start + frames], sound)


@dataclass(frozen=True)
class PieceResult:
    """The results for one piece."""

    name: str
    start: int
    frames: int
    offset: float
    confidence: float
    confident: bool
    moved: int
    """Of the shifts at which it was confident, how many were recovered."""
    tried: int
    """At how many of the shifts it was confident."""
    true_offset: float | None


@dataclass
class Figures:
    """The figures over all pieces."""

    recovered: float
    """Share of shifts found within one frame, where the shifted piece is confident."""
    confident: float
    """Share of pieces of 5 s or more that are confident."""
    foreign: float
    """Share of pieces with the sound of another file that are confident."""
    truth: float | None
    """Share of confident pieces within one frame of the truth; None without any truth."""
    counts: dict[str, int] = field(default_factory=dict)


def read_footage(path: Path, detector: FaceMeshDetector) -> Footage:
    """One file's landmarks and sound.

    Raises:
        SourceError: the file cannot be read.
        ValueError: it is not one speaker with sound; the text says why.
    """
    audio = read_audio(path)
    if is_silent(audio):
        raise ValueError("silent")
    detector.reset()
    shots = ShotDetector()
    found: list[np.ndarray | None] = []
    second = 0
    for frame in read_frames(path):
        shots.add(frame.rgb)
        faces = detector.detect(frame.rgb)
        found.append(faces[0].landmarks if faces else None)
        second += len(faces) > 1
    seen = np.array([each is not None for each in found])
    if shots.cuts():
        raise ValueError(f"{len(shots.cuts())} cuts")
    if seen.mean() < MIN_COVERAGE:
        raise ValueError(f"a face in {seen.mean():.0%} of the frames")
    if second > MAX_SECOND_FACE * len(found):
        raise ValueError(f"a second face in {second} of {len(found)} frames")
    known = np.stack([each for each in found if each is not None])
    nearest = np.clip(np.cumsum(seen) - 1, 0, None)
    return Footage(path.name, known[nearest], audio, _truth(path))


def _truth(path: Path) -> float | None:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    facts = json.loads(beside.read_text(encoding="utf-8"))
    # Noise has no measurable offset, whatever the file says.
    return float(facts["offset_frames"]) if facts.get("audio") == "speech" else None


def read_folder(folder: Path) -> tuple[list[Footage], dict[str, str]]:
    """All usable files of a folder, and why the others are left out."""
    usable, left_out = [], {}
    with FaceMeshDetector(max_faces=2) as detector:
        for item in list_folder(folder):
            try:
                usable.append(read_footage(item.path, detector))
            except (SourceError, ValueError) as error:
                left_out[item.relative] = str(error)
            print(f"\r{len(usable)} read, {len(left_out)} left out", end="", file=sys.stderr)
    print(file=sys.stderr)
    return usable, left_out


def pieces(frames: int, longest: int) -> list[tuple[int, int]]:
    """(start, length) of clips as ingestion cuts a track, which looks half a longest clip ahead
    so that none gets very short."""
    parts, start = [], 0
    while frames - start >= longest + longest // 2:
        parts.append((start, longest))
        start += longest
    if frames - start > longest:
        half = (frames - start) // 2
        parts.append((start, half))
        start += half
    parts.append((start, frames - start))
    return [part for part in parts if part[1] >= SHORTEST_FRAMES]


def measure(
    scorer: OffsetScorer, footage: Sequence[Footage], longest: int
) -> tuple[Figures, list[PieceResult]]:
    """The figures, and the results for each piece."""
    results = [
        _measure_piece(scorer, each, start, frames)
        for each in footage
        for start, frames in pieces(len(each.landmarks), longest)
    ]
    strangers = list(_foreign(footage, longest))
    foreign = sum(_sure(scorer, score) for score in scorer.score(strangers))
    long = [each for each in results if each.frames >= LONG_FRAMES]
    true = [
        abs(each.offset - each.true_offset) <= 1
        for each in results
        if each.confident and each.true_offset is not None
    ]
    tried = sum(each.tried for each in results)
    figures = Figures(
        recovered=sum(each.moved for each in results) / max(tried, 1),
        confident=sum(each.confident for each in long) / max(len(long), 1),
        foreign=foreign / max(len(strangers), 1),
        truth=float(np.mean(true)) if true else None,
        counts={
            "pieces": len(results),
            "long": len(long),
            "shifts": tried,
            "foreign": len(strangers),
            "with truth": len(true),
        },
    )
    return figures, results


def _sure(scorer: OffsetScorer, score: OffsetScore) -> bool:
    return score.confidence >= scorer.min_confidence


def _measure_piece(scorer: OffsetScorer, each: Footage, start: int, frames: int) -> PieceResult:
    shifted = [each.signals(start, frames, shift) for shift in SHIFTS]
    before, *after = scorer.score([each.signals(start, frames), *shifted])
    sure = [
        abs(score.offset_frames - before.offset_frames - shift) <= 1
        for shift, score in zip(SHIFTS, after, strict=True)
        if _sure(scorer, score)
    ]
    return PieceResult(
        each.name,
        start,
        frames,
        before.offset_frames,
        before.confidence,
        _sure(scorer, before),
        sum(sure),
        len(sure),
        each.true_offset,
    )


def _foreign(footage: Sequence[Footage], longest: int) -> Iterator[ClipSignals]:
    """Every piece with every piece of every other file's sound, as long as the shorter."""
    for each in footage:
        for other in footage:
            if other.name == each.name:
                continue
            for start, frames in pieces(len(each.landmarks), longest):
                for begin, length in pieces(len(other.landmarks), longest):
                    count = min(frames, length)
                    sound = audio_part(other.audio, begin, count, 0.0)
                    yield ClipSignals(each.landmarks[start : start + count], sound)


def report(figures: Figures, results: Sequence[PieceResult]) -> None:
    """Print the table."""
    print(f"{'piece':48s} {'s':>5s} {'offset':>7s} {'conf.':>6s} {'shifts recovered':>17s}")
    for each in results:
        name = f"{each.name[:38]} +{each.start / FPS:.1f}s"
        print(
            f"{name:48s} {each.frames / FPS:5.1f} {each.offset:+7.2f} {each.confidence:6.2f} "
            f"{each.moved:8d} of {each.tried:3d}{'' if each.confident else '  not confident'}"
        )
    count = figures.counts
    print(f"shifts recovered within 1 frame  {figures.recovered:7.1%} of {count['shifts']}")
    print(f"confident, 5 s or more           {figures.confident:7.1%} of {count['long']}")
    print(f"confident with foreign sound     {figures.foreign:7.1%} of {count['foreign']}")
    if figures.truth is not None:
        print(f"within 1 frame of the truth      {figures.truth:7.1%} of {count['with truth']}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.offsets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scorer", default="mouth-audio")
    parser.add_argument("--weights", default="", help="file, folder or name of the scorer's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=10.0, help="longest piece")
    parser.add_argument("--output", type=Path, help="write everything as JSON")
    options = parser.parse_args(argv)
    try:
        scorer = get_scorer(options.scorer, options.weights, options.device)
        footage, left_out = read_folder(options.folder)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    figures, results = measure(scorer, footage, round(options.seconds * FPS))
    for name, why in left_out.items():
        print(f"left out: {name} ({why})")
    report(figures, results)
    if options.output:
        content: dict[str, Any] = {
            "scorer": scorer.name,
            "min_confidence": scorer.min_confidence,
            "seconds": options.seconds,
            "figures": asdict(figures),
            "pieces": [asdict(each) for each in results],
            "left_out": left_out,
        }
        options.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
