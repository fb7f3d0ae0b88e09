"""How many seconds are published that should not be, and how many good ones are lost.

    python -m benchmarks.verdicts FOLDER                          66 made cases, seed 0
    python -m benchmarks.verdicts FOLDER --seed 1 --cases 20 --kinds "split screen,dropout"
    python -m benchmarks.verdicts FOLDER --json runs/verdicts.json

FOLDER holds the talking heads of `benchmarks.mouth_audio_fit.KNOWN_OFFSETS`. Out of them videos
are made that are partly wrong (`benchmarks.verdict_cases`): somebody else's voice, no sound, a
frozen picture, lips that are still, a face upside down, two people of whom one speaks. The real
ingestion reads each, and what it accepts is compared with what is known, frame by frame.
Stretches of less than 2 s are no clips and count neither as good nor as lost.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.mouth_audio_fit import KNOWN_OFFSETS
from benchmarks.offsets import read_folder
from benchmarks.verdict_cases import KINDS, Case, Face, Maker, Person
from datasets.errors import UserError
from datasets.media import FPS
from datasets.shards.records import LedgerRow, Verdict
from datasets.sources.items import local_item
from datasets.store.local import LocalStore
from tasks.ingest.config import IngestConfig
from tasks.ingest.stage import IngestStage, IngestWork
from tasks.ingest.verdicts import Thresholds, apply_thresholds


@dataclass
class Outcome:
    """What became of a case."""

    kind: str
    seed: int
    about: str
    bad_frames: int = 0
    bad_published: int = 0
    longest_bad: int = 0
    """Frames of the longest bad stretch that was published without a break."""
    good_frames: int = 0
    good_lost: int = 0
    reasons: list[str] = field(default_factory=list)
    """Start, end and reason of every row, in order; an accepted one has none."""


def judge(case: Case, seed: int, rows: Sequence[LedgerRow], shortest: int) -> Outcome:
    """Compare what was published of a case with the truth.

    Args:
        case: the case.
        seed: of the case.
        rows: judged rows of its file.
        shortest: frames of the shortest clip.
    """
    frames = len(case.pictures)
    outcome = Outcome(case.kind, seed, case.about)
    published = [np.zeros(frames, bool) for _ in case.faces]
    for row in rows:
        said = f"{row['start_s']:.2f}-{row['end_s']:.2f} {row['reason']}".strip()
        outcome.reasons.append(f"{said} ({row['sync_confidence']:.2f})")
        if row["verdict"] == Verdict.ACCEPTED.value:
            first, stop = round(row["start_s"] * FPS), round(row["end_s"] * FPS)
            published[whose(case.faces, first, stop, row["face_px"])][first:stop] = True
    for face, shown in zip(case.faces, published, strict=True):
        bad = face.is_bad(frames)
        good = np.zeros(frames, bool)
        for first, stop in runs(~bad):
            first, stop = max(first, face.first), min(stop, face.stop)
            if stop - first >= shortest:
                good[first:stop] = True
        outcome.bad_frames += int(bad.sum())
        outcome.bad_published += int((bad & shown).sum())
        longest = max((stop - first for first, stop in runs(bad & shown)), default=0)
        outcome.longest_bad = max(outcome.longest_bad, longest)
        outcome.good_frames += int(good.sum())
        outcome.good_lost += int((good & ~shown).sum())
    return outcome


def whose(faces: Sequence[Face], first: int, stop: int, face_px: float) -> int:
    """Number of the face that a clip shows: of those seen most of its time, the most alike in
    size."""
    shared = [min(stop, face.stop) - max(first, face.first) for face in faces]
    seen = [at for at, count in enumerate(shared) if count == max(shared)]
    return min(seen, key=lambda at: abs(np.log(face_px / max(faces[at].face_px, 1e-6))))


def runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """First and last (excluded) of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(int)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


def people_of(folder: Path) -> list[Person]:
    """Those whose offset is known."""
    footage, _ = read_folder(folder)
    known = [each for each in footage if each.name in KNOWN_OFFSETS]
    if len(known) < 2:
        raise UserError(
            f"{folder} has {len(known)} of the videos whose offset is known, at least 2 are needed"
        )
    return [Person.of(each, folder / each.name, KNOWN_OFFSETS[each.name]) for each in known]


def measure(maker: Maker, kinds: Sequence[str], seed: int, count: int, work: Path) -> list[Outcome]:
    """Make and ingest cases of all kinds in turn."""
    stage = IngestStage(IngestConfig(), Thresholds(), LocalStore(work), "made")
    stage.setup()
    stage.begin("0")
    found = []
    for number in range(count):
        case = maker.make(kinds[number % len(kinds)], seed * 1000 + number // len(kinds))
        path = work / f"case-{number:03d}.mp4"
        case.write(path)
        item = local_item(path, path.name, path.stem)
        result = stage.process(IngestWork(item, path, "train"))
        rows = apply_thresholds(result["rows"], stage.thresholds)
        found.append(judge(case, number, rows, stage.config.min_frames))
        path.unlink()
        print(f"\r{number + 1} of {count} cases", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Seconds and shares over some cases."""
    bad = sum(each.bad_frames for each in outcomes)
    good = sum(each.good_frames for each in outcomes)
    published = sum(each.bad_published for each in outcomes)
    lost = sum(each.good_lost for each in outcomes)
    return {
        "cases": len(outcomes),
        "bad_seconds": bad / FPS,
        "bad_seconds_published": published / FPS,
        "bad_share_published": share(published, bad),
        "longest_bad_s": max((each.longest_bad for each in outcomes), default=0) / FPS,
        "good_seconds": good / FPS,
        "good_seconds_lost": lost / FPS,
        "good_share_lost": share(lost, good),
    }


def report(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Print the table, and return it."""
    kinds = list(dict.fromkeys(each.kind for each in outcomes))
    table = {kind: figures([each for each in outcomes if each.kind == kind]) for kind in kinds}
    table["all"] = figures(outcomes)
    print(f"{'kind':16s} cases  bad s  published        longest  good s  lost")
    for kind, row in table.items():
        print(
            f"{kind:16s} {row['cases']:5.0f} {row['bad_seconds']:6.1f} "
            f"{row['bad_seconds_published']:6.1f} {row['bad_share_published']:6.1%} "
            f"{row['longest_bad_s']:8.1f} s {row['good_seconds']:7.1f} "
            f"{row['good_seconds_lost']:6.1f} {row['good_share_lost']:6.1%}"
        )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.verdicts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=66)
    parser.add_argument("--kinds", default="", help=f"of {', '.join(KINDS)}; by default all")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    options = parser.parse_args(argv)
    kinds = [each.strip() for each in options.kinds.split(",") if each.strip()] or list(KINDS)
    if unknown := sorted(set(kinds) - set(KINDS)):
        parser.error(f"there is no kind {unknown[0]!r}: choose of {', '.join(KINDS)}")
    # As in a worker: threads of small networks only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    work = Path(tempfile.mkdtemp(prefix="verdicts-"))
    try:
        maker = Maker(people_of(options.folder))
        outcomes = measure(maker, kinds, options.seed, options.cases, work)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(work, ignore_errors=True)
    table = report(outcomes)
    if options.json:
        content = {
            "seed": options.seed,
            **table["all"],
            "kinds": table,
            "outcomes": [asdict(each) for each in outcomes],
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
