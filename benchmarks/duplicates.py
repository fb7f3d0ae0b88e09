"""How far prints of one recording in two encodings lie apart, and those of different recordings.

    python -m benchmarks.duplicates FOLDER_OF_VIDEOS [--json FILE]     about 1 minute

Every video is encoded again at half its size and a poor quality. Different are two videos, and
two moments of one video. The thresholds, `datasets.media.prints.SAME_PICTURES` and `SAME_SOUND`,
must lie between the two kinds.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2

from datasets.errors import SourceError
from datasets.media import FPS, SAMPLES_PER_FRAME, VideoWriter, probe, read_frames
from datasets.media.audio import AudioWindow
from datasets.media.prints import (
    SAME_PICTURES,
    SAME_SOUND,
    Print,
    PrintMaker,
    picture_distance,
    same_recording,
    sound_distance,
)

LEAST_FRAMES = 50
"""Frames of a moment; shorter ones are no clips."""


def printed(path: Path, start_s: float = 0.0, end_s: float | None = None) -> Print:
    """The print of a video or a part of it."""
    maker, first = PrintMaker(), 0
    for number, frame in enumerate(read_frames(path, start_s=start_s, end_s=end_s, threads=1)):
        first = first if number else frame.index
        maker.picture(frame.picture.small)
    with AudioWindow(path) as sound:
        maker.sound(sound.part(first * SAMPLES_PER_FRAME, maker.frames * SAMPLES_PER_FRAME))
    return maker.made()


def encode(source: Path, target: Path) -> Path:
    """The video at half its size and a poor quality."""
    info = probe(source)
    width, height = (side // 4 * 2 for side in (info.width, info.height))
    with VideoWriter(target, width, height, FPS, crf=35, preset="ultrafast", audio=source) as out:
        for frame in read_frames(source, threads=1):
            out.write(cv2.resize(frame.picture.rgb, (width, height), interpolation=cv2.INTER_AREA))
    return target


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; exit code 1 if a pair is on the wrong side of the thresholds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.duplicates", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    known: dict[str, Print] = {}
    pairs: dict[str, list[tuple[Print, Print]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted(each for each in options.folder.iterdir() if each.is_file()):
            try:
                whole = known[path.name] = printed(path)
                again = printed(encode(path, Path(scratch) / f"{path.stem}.mp4"))
            except SourceError as problem:
                known.pop(path.name, None)
                print(f"{path.name} is left out: {problem}")
                continue
            pairs.setdefault("encoded again", []).append((whole, again))
            half = whole.frames // 2
            if half >= LEAST_FRAMES:
                two = printed(path, 0.0, half / FPS), printed(path, half / FPS, 2 * half / FPS)
                pairs.setdefault("another moment", []).append(two)
    pairs["another video"] = list(itertools.combinations(known.values(), 2))
    print(f"{'':16s} {'pairs':>6s} {'pictures':>14s} {'sound':>14s}   taken for the same")
    table, wrong = {}, 0
    for kind, both in pairs.items():
        seen = [picture_distance(*each) for each in both]
        heard = [sound_distance(*each) for each in both]
        same = sum(same_recording(*each) is not None for each in both)
        wrong += same != (len(both) if kind == "encoded again" else 0)
        table[kind] = {"pictures": seen, "sound": heard, "same": same}
        spans = "  ".join(f"{min(each):5.3f} to {max(each):5.3f}" for each in (seen, heard))
        print(f"{kind:16s} {len(both):6d} {spans}   {same}")
    print(f"thresholds: pictures {SAME_PICTURES:g}, sound {SAME_SOUND:g}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
