"""How well lips close at p, b and m in real sentences, with their own sound and with another's.

    python -m benchmarks.closure ../shared/clips [--json FILE]     about half a minute

For every clip of the GRID corpus in a folder, whose name spells its sentence, the sounds are found
by forced alignment, and the opening of the mouth at them is compared with that of the sentence.
The same with the sounds of every other sentence shows what lips reach that know nothing of the
words.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.faces.landmarks import FaceMeshDetector, mouth_opening
from datasets.media import FPS, read_audio, read_frames
from tasks.evaluate.closure import CLOSED, Spoken, measure_closure
from tasks.evaluate.transcripts import align

WORDS: tuple[dict[str, str], ...] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {},
    dict(
        zip(
            "z123456789",
            ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
            strict=True,
        )
    ),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
"""What each letter of a clip's name stands for (Cooke et al. 2006, table I); the fourth is said
itself."""


@dataclass(frozen=True)
class Sentence:
    """A clip of GRID."""

    name: str
    opening: np.ndarray
    """(t,) of `mouth_opening`, 25 fps."""
    spoken: Spoken


def sentence_of(name: str) -> str:
    """The words that a clip's name spells, such as `bbaf2n`."""
    if len(name) != len(WORDS):
        raise ValueError(f"{name!r} is no name of a GRID clip: it has {len(name)} letters, not 6")
    return " ".join(words.get(letter, letter) for letter, words in zip(name, WORDS, strict=True))


def read_sentences(folder: Path) -> list[Sentence]:
    """Mouths and sounds of the files `grid_NAME.mpg` in a folder."""
    found = []
    with FaceMeshDetector(max_faces=1) as detector:
        for path in sorted(folder.glob("grid_*.mpg")):
            name = path.stem.removeprefix("grid_")
            detector.reset()
            faces = [detector.detect(frame.picture) for frame in read_frames(path, fps=FPS)]
            landmarks = np.stack([each[0].landmarks for each in faces])
            spoken = align(sentence_of(name), read_audio(path))
            found.append(Sentence(name, mouth_opening(landmarks), spoken))
    return found


def gaps(opening: np.ndarray, spoken: Spoken) -> list[float]:
    """The opening at each sound over that of the sentence."""
    each = [replace(spoken, closures=(closure,)) for closure in spoken.closures]
    return [measure_closure(opening, one).gap for one in each]


def measure(sentences: Sequence[Sentence]) -> dict[str, list[float]]:
    """Gaps with the sounds of the sentence itself, `own`, and of all others, `foreign`."""
    found: dict[str, list[float]] = {"own": [], "foreign": []}
    for seen in sentences:
        for heard in sentences:
            kind = "own" if seen.name == heard.name else "foreign"
            found[kind] += gaps(seen.opening, heard.spoken)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.closure", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    table = {}
    print(f"{'sounds':8s} {'n':>4s} {'closed':>7s} {'median gap':>11s} {'largest':>8s}")
    for kind, values in measure(read_sentences(options.folder)).items():
        closed = float((np.array(values) < CLOSED).mean())
        table[kind] = {"n": len(values), "closed": closed, "median_gap": float(np.median(values))}
        print(
            f"{kind:8s} {len(values):4d} {closed:7.0%} {np.median(values):11.3f} {max(values):8.3f}"
        )
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
