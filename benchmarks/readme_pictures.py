"""The pictures that README.md shows, made from the folder that `make demo` leaves.

    python -m benchmarks.readme_pictures runs/demo

writes three files into docs/pictures: `lip-sync.webp` has frames of the input and of the output,
with the speech and both mouths below them; `ingest.png` what became of the videos, and the offsets
that were found against the true ones; `training.png` the losses of all stages.

These files are committed, so only a demo of the generated sample is taken: its faces belong to
nobody who could object.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.errors import UserError
from datasets.media import FPS, read_audio, read_frames
from datasets.store.atomic import write_atomic
from datasets.store.local import LocalStore
from tasks.demo.lipsync_score import LipSyncScore, read_landmarks
from tasks.demo.parts import choose_material, restore_measurement
from tasks.demo.plots import draw_found_against_true, loss_curves
from tasks.demo.report import loudness_of, read_curves
from tasks.demo.steps import STATE
from tasks.demo.truth_check import TruthCheck
from tasks.pages.figures import ACCENT, GREY, INK, SECOND, THIRD, blank_figure, new_figure, png
from tasks.pages.funnel import Step, funnel
from tasks.publish.ledger import count_reasons, read_ledger

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 1_000_000
"""Of all pictures together."""
COLUMNS = 8
"""Frames of a row."""
CELL, LABEL, GAP, CURVE = 160, 90, 4, 54
"""Pixels: side of a frame, width of the names on the left, space between frames, height of a
curve."""
AROUND = 1.25
"""Side of what is shown of a frame, in heights of the face."""
QUALITY = 88
"""Of WebP, 1 to 100."""
DPI = 100


def make_pictures(demo: Path, output: Path) -> list[Path]:
    """Write all pictures.

    Args:
        demo: folder of a finished demo on the generated sample.
        output: folder to write to.

    Returns:
        The files.

    Raises:
        UserError: the demo is not finished, or shows somebody's own videos; or the pictures are
            larger than `MOST_BYTES`.
    """
    videos, dataset = demo / "dataset" / "sample_videos", demo / "dataset"
    result = demo / "lip_sync.mp4"
    summary, truth, score = _read_demo(demo)
    if truth is None or not videos.is_dir():
        raise UserError(
            f"{demo} is a demo of somebody's own videos, and the README's pictures are published: "
            "give the folder of a demo without --data"
        )
    material = choose_material(dataset, videos, demo, generated=True, seconds=0.0)
    rows = read_ledger(LocalStore(dataset))
    ingest = summary["ingest"]
    steps = funnel(
        [("files", ingest["inputs"]), ("clips and shots looked at", len(rows))],
        ingest["clips_accepted"],
        count_reasons(rows),
    )
    pictures = {
        "lip-sync.webp": to_webp(
            draw_lip_sync(material.source, result, read_audio(material.driving), score)
        ),
        "ingest.png": draw_ingest(steps, truth),
        "training.png": loss_curves(read_curves(demo / "train")),
    }
    size = sum(len(content) for content in pictures.values())
    if size > MOST_BYTES:
        raise UserError(
            f"the pictures have {size} bytes together where {MOST_BYTES} are allowed: lower "
            "QUALITY or COLUMNS"
        )
    for name, content in pictures.items():
        write_atomic(output / name, content)
    return [output / name for name in pictures]


def _read_demo(demo: Path) -> tuple[dict[str, Any], TruthCheck | None, LipSyncScore]:
    """Summary, truth and score of a finished demo."""
    try:
        summary = json.loads((demo / "summary.json").read_text(encoding="utf-8"))
        state = json.loads((demo / STATE).read_text(encoding="utf-8"))
        truth, score = restore_measurement(state["measure"]["result"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{demo} is not the folder of a finished demo ({error!r}): run make demo first"
        ) from error
    return summary, truth, score


def draw_lip_sync(
    source: Path, result: Path, speech: np.ndarray, score: LipSyncScore
) -> np.ndarray:
    """Frames of the input above those of the output, and three curves; uint8 (h, w, 3) RGB.

    One moment of each eighth of the time for which there are frames of both is shown.

    Args:
        source: the video that went in.
        result: the video that came out.
        speech: float32 (samples,) at 16 kHz that the output was made for.
        score: of the output.
    """
    count = min(len(score.input_opening), len(score.output_opening))
    moments = telling_moments(score.input_opening[:count], score.output_opening[:count])
    landmarks = read_landmarks(source)[moments]
    rows = [cut_faces(path, moments, landmarks) for path in (source, result)]

    width = LABEL + COLUMNS * (CELL + GAP)
    frames_height, curves_height = 2 * (CELL + GAP), 3 * CURVE + 40
    height = frames_height + curves_height
    figure = blank_figure(width / DPI, height / DPI)
    for line, (name, row) in enumerate(zip(("input", "output"), rows, strict=True)):
        top = line * (CELL + GAP)
        figure.text(
            8 / width, 1 - (top + CELL / 2) / height, name, fontsize=11, color=INK, va="center"
        )
        for column, face in enumerate(row):
            left = LABEL + column * (CELL + GAP)
            box = (left / width, 1 - (top + CELL) / height, CELL / width, CELL / height)
            axis = figure.add_axes(box)
            axis.imshow(face, interpolation="none")
            axis.set_axis_off()
    curves = (
        ("new speech,\nloudness", loudness_of(speech), ACCENT),
        ("output,\nmouth", score.output_opening, SECOND),
        ("input,\nmouth", score.input_opening, GREY),
    )
    for line, (name, values, colour) in enumerate(curves):
        bottom = 36 + (2 - line) * CURVE
        box = (LABEL / width, bottom / height, (width - LABEL - GAP) / width, (CURVE - 8) / height)
        axis = figure.add_axes(box)
        shown = values[:count]
        axis.plot(np.arange(len(shown)) / FPS, shown, color=colour, linewidth=1.3)
        for moment in moments:
            axis.axvline(moment / FPS, color=INK, linewidth=0.6, linestyle=":")
        axis.set_xlim(0, (count - 1) / FPS)
        axis.set_yticks([])
        axis.tick_params(colors=INK, labelsize=8, labelbottom=line == 2)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.spines["bottom"].set_color(GREY)
        middle = (bottom + CURVE / 2 - 4) / height
        figure.text(8 / width, middle, name, fontsize=8, color=INK, va="center")
    figure.text(LABEL / width, 6 / height, "seconds; dotted: the frames above", fontsize=8)
    content = np.frombuffer(png(figure, DPI), np.uint8)
    return cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def telling_moments(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The frame of each eighth in which the two mouths differ most, (COLUMNS,) increasing.

    Args:
        before: (t,) how far the input's mouth is open.
        after: (t,) the same of the output's.
    """
    parts = np.array_split(np.arange(len(before)), COLUMNS)
    difference = np.nan_to_num(np.abs(np.asarray(after) - np.asarray(before)))
    return np.array([part[int(difference[part].argmax())] for part in parts])


def cut_faces(path: Path, moments: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Squares around a face, uint8 (n, CELL, CELL, 3).

    Args:
        path: a video.
        moments: (n,) increasing numbers of frames at 25 fps.
        landmarks: (n, 478, 2) of the face in these frames, pixels.
    """
    low, high = landmarks.min(axis=1), landmarks.max(axis=1)
    centres = (low + high) / 2
    # One side for all, so that nothing grows and shrinks along a row.
    side = round(float(np.median(high[:, 1] - low[:, 1])) * AROUND)
    wanted: list[int] = moments.tolist()
    faces: list[np.ndarray] = []
    for index, frame in enumerate(read_frames(path)):
        if index == wanted[len(faces)]:
            x, y = centres[len(faces)].tolist()
            square = cv2.getRectSubPix(frame.rgb, (side, side), (x, y))
            way = cv2.INTER_AREA if side > CELL else cv2.INTER_CUBIC
            faces.append(cv2.resize(square, (CELL, CELL), interpolation=way))
            if len(faces) == len(wanted):
                return np.stack(faces)
    raise UserError(f"{path} has fewer than {wanted[-1] + 1} frames at 25 fps: was it changed?")


def draw_ingest(steps: Sequence[Step], truth: TruthCheck) -> bytes:
    """What became of the videos, and how exactly their offsets were found; PNG.

    Args:
        steps: of the funnel.
        truth: of the sample.
    """
    figure, axes = new_figure(11, 0.32 * len(steps) + 1.4, 1, 2)
    colours = {"": ACCENT, "good": THIRD, "bad": SECOND}
    axis = axes[0, 0]
    bars = axis.barh(
        [step.name for step in steps],
        [step.count for step in steps],
        color=[colours[step.kind] for step in steps],
    )
    axis.bar_label(bars, padding=3, fontsize=8, color=INK)
    axis.invert_yaxis()
    axis.set_xticks([])
    axis.spines["bottom"].set_visible(False)
    axis.set_title("What became of the videos", fontsize=9.5)
    known, found = zip(*truth.offsets, strict=True)
    draw_found_against_true(axes[0, 1], known, found)
    return png(figure, DPI)


def to_webp(rgb: np.ndarray) -> bytes:
    """An image uint8 (h, w, 3) RGB as WebP."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.readme_pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("demo", type=Path, metavar="DEMO_FOLDER", help="such as runs/demo")
    parser.add_argument("--output", type=Path, default=PICTURES, help="folder to write to")
    options = parser.parse_args(argv)
    try:
        for path in make_pictures(options.demo, options.output):
            print(f"{path}: {path.stat().st_size:,} bytes")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
