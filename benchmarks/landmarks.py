"""How much precision is lost with landmarks on fewer frames or found in other ways, on real clips.

    python -m benchmarks.landmarks FOLDER             every video of the folder
    python -m benchmarks.landmarks FOLDER --seconds 4 --output landmarks.json

The reference is mediapipe's unchanged FaceMesh on every whole frame. Compared with it are:
  region       landmarks where the face was in the last frame, at native resolution (ours)
  region, k    the same on every k-th frame, with linear interpolation in between
  half         FaceMesh on whole frames of half the size
  plain        FaceMesh without the attention that refines lips and eyes
The error is how far the corners of the aligned 256 x 256 square move, in its pixels. It is
judged against the reference's own jitter: how far a frame's corners are from the line between
its neighbours', which for a head in motion is nearly all noise. `mouth` is the error of the
mouth's opening over its standard deviation, `sync` the mean confidence of the mouth-audio
scorer, `other` counts frames in which another face was followed (where there are two) or none.
Times are CPU times.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.errors import SourceError
from datasets.faces.alignment import Aligner, invert, square_matrix
from datasets.faces.landmarks import FaceMeshDetector, mouth_opening
from datasets.faces.mediapipe_models import quiet_stderr
from datasets.media import SAMPLES_PER_FRAME, read_audio, read_frames
from datasets.media.video import Frame
from tasks.sync.mouth_audio import MouthAudioScorer

SIDE = 256
STRIDES = (2, 3, 5)
REFERENCE = "FaceMesh"
SETTLING = 5
"""Frames that the reference needs to get from the detector's rough region to its own; ours
looks twice at once."""
SAME = 0.25
"""A face whose centre moved by less than this share of its size is the same in two variants."""

Find = Callable[[Sequence[Frame]], list[np.ndarray | None]]
"""Frames of a video -> the largest face's landmarks in each."""


@dataclass
class Clip:
    """The longest stretch of a video in which the reference sees its face in every frame."""

    name: str
    start: int
    landmarks: np.ndarray
    """(t, 478, 2) of the reference."""
    audio: np.ndarray


def face_mesh(refine: bool = True, scale: float = 1.0) -> Find:
    """mediapipe's unchanged solution."""

    def find(frames: Sequence[Frame]) -> list[np.ndarray | None]:
        with quiet_stderr():
            from mediapipe.python.solutions.face_mesh import FaceMesh

            mesh: Any = FaceMesh(max_num_faces=1, refine_landmarks=refine)
            return [_largest(mesh, frame.rgb, scale) for frame in frames]

    return find


def _largest(mesh: Any, rgb: np.ndarray, scale: float) -> np.ndarray | None:
    size = np.array(rgb.shape[1::-1])
    if scale < 1:
        rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    found = mesh.process(np.ascontiguousarray(rgb)).multi_face_landmarks
    if not found:
        return None
    points = np.array([(point.x, point.y) for point in found[0].landmark], np.float32)
    return points * size.astype(np.float32)


def by_region(stride: int = 1) -> Find:
    """Our detector on every `stride`-th frame."""

    def find(frames: Sequence[Frame]) -> list[np.ndarray | None]:
        with FaceMeshDetector(max_faces=1) as detector:
            seen = [detector.detect(frame.picture) for frame in frames[::stride]]
        return _filled(
            [faces[0].landmarks if faces else None for faces in seen], len(frames), stride
        )

    return find


def _filled(found: list[np.ndarray | None], count: int, stride: int) -> list[np.ndarray | None]:
    """Landmarks of all frames from those of every `stride`-th one."""
    out: list[np.ndarray | None] = []
    for index in range(count):
        at, rest = divmod(index, stride)
        first = found[at]
        last = found[min(at + 1, len(found) - 1)]
        if first is None or last is None:
            out.append(None)
        else:
            out.append(first + (last - first) * (rest / stride))
    return out


VARIANTS: dict[str, Find] = {
    REFERENCE: face_mesh(),
    "region": by_region(),
    **{f"region, {stride}": by_region(stride) for stride in STRIDES},
    "half": face_mesh(scale=0.5),
    "plain": face_mesh(refine=False),
}


def square_corners(landmarks: np.ndarray) -> np.ndarray:
    """Positions of the aligned square's corners in the source, (t, 4, 2)."""
    aligner = Aligner(SIDE)
    ends = np.array([[0, 0], [SIDE, 0], [0, SIDE], [SIDE, SIDE]], np.float64)
    out = []
    for points in landmarks:
        back = invert(square_matrix(aligner.matrix(points), SIDE))
        out.append(ends @ back[:, :2].T + back[:, 2])
    return np.stack(out)


def moved(corners: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean distance (t,) of the four corners, in pixels of the aligned square."""
    side = np.linalg.norm(reference[:, 1] - reference[:, 0], axis=-1)
    return np.linalg.norm(corners - reference, axis=-1).mean(axis=1) * SIDE / side


def jitter(reference: np.ndarray) -> np.ndarray:
    """How far (t - 2,) the corners are from the line between their neighbours.

    Of independent noise in three frames, a middle one and a mean of two, 1 / sqrt(1.5) is its own.
    """
    line = (reference[:-2] + reference[2:]) / 2
    return moved(reference[1:-1], line) / np.sqrt(1.5)


def stretch(found: list[np.ndarray | None]) -> tuple[int, int]:
    """Start and stop of the longest run of frames in which one and the same face is seen."""
    best, start = (0, 0), 0
    for index, points in enumerate([*found, None]):
        before = found[index - 1] if index else None
        if points is None or (before is not None and not _near(points, before)):
            if index - start > best[1] - best[0]:
                best = (start, index)
            start = index + 1 if points is None else index
    return best


def _near(first: np.ndarray, second: np.ndarray) -> bool:
    size = float(np.ptp(second, axis=0).max())
    return bool(np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)) < SAME * size)


@dataclass
class Sums:
    """The measurements of a variant."""

    seconds: float
    frames: int
    errors: list[np.ndarray]
    mouth: list[float]
    sync: list[float]
    other: int = 0
    """Frames in which a face other than the reference's is followed, or no face."""


def measure(path: Path, seconds: float, sums: dict[str, Sums], jitters: list[np.ndarray]) -> None:
    """Add one video to all variants' sums."""
    frames = list(read_frames(path, end_s=seconds))
    for frame in frames:
        # Decoding happens ahead; conversions of whole frames count for those that need them.
        frame.picture.small()
    try:
        audio = read_audio(path)
    except SourceError:
        audio = np.zeros(0, np.float32)
    found = {}
    for name, find in VARIANTS.items():
        began = time.process_time()
        found[name] = find(frames)
        sums[name].seconds += time.process_time() - began
        sums[name].frames += len(frames)
    start, stop = stretch(found[REFERENCE])
    start += SETTLING
    if stop - start < 25:
        return
    reference = np.stack(found[REFERENCE][start:stop])  # type: ignore[arg-type]
    corners = square_corners(reference)
    opening = mouth_opening(reference)
    jitters.append(jitter(corners))
    sound = audio[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
    for name, each in sums.items():
        points = [
            mine if mine is not None and _near(mine, theirs[: len(mine)]) else None
            for mine, theirs in zip(found[name][start:stop], reference, strict=True)
        ]
        each.other += sum(point is None for point in points)
        kept = np.array([point is not None for point in points])
        landmarks = np.stack(
            [
                np.concatenate([point, theirs[len(point) :]]) if point is not None else theirs
                for point, theirs in zip(points, reference, strict=True)
            ]
        )
        each.errors.append(moved(square_corners(landmarks), corners)[kept])
        each.mouth.append(float(np.std(mouth_opening(landmarks) - opening) / np.std(opening)))
        if len(sound):
            each.sync.append(MouthAudioScorer().measure(landmarks, sound).confidence)


def report(sums: dict[str, Sums], jitters: list[np.ndarray]) -> dict[str, Any]:
    """Print the table; returns it."""
    noise = np.concatenate(jitters)
    table: dict[str, Any] = {
        "jitter": {"mean_px": float(noise.mean()), "p95_px": float(np.quantile(noise, 0.95))}
    }
    print(f"{'':12s} {'mean px':>8s} {'95 % px':>8s} {'mouth':>7s} {'sync':>6s} {'other':>5s}  ms")
    print(f"{'jitter':12s} {table['jitter']['mean_px']:8.3f} {table['jitter']['p95_px']:8.3f}")
    for name, each in sums.items():
        errors = np.concatenate(each.errors)
        row = {
            "mean_px": float(errors.mean()),
            "p95_px": float(np.quantile(errors, 0.95)),
            "mouth": float(np.mean(each.mouth)),
            "sync": float(np.mean(each.sync)) if each.sync else None,
            "other_face": each.other,
            "ms_per_frame": 1000 * each.seconds / each.frames,
        }
        table[name] = row
        sync = f"{row['sync']:6.2f}" if each.sync else "     -"
        print(
            f"{name:12s} {row['mean_px']:8.3f} {row['p95_px']:8.3f} {row['mouth']:7.3f} {sync} "
            f"{each.other:5d} {row['ms_per_frame']:5.1f}"
        )
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.landmarks", description=__doc__)
    parser.add_argument("folder", type=Path, help="videos, each with one face most of the time")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each video")
    parser.add_argument("--match", default="*", help="which files, as a pattern")
    parser.add_argument("--output", type=Path, help="write the table as JSON")
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    sums = {name: Sums(0.0, 0, [], [], []) for name in VARIANTS}
    jitters: list[np.ndarray] = []
    for path in sorted(options.folder.glob(options.match)):
        try:
            measure(path, options.seconds, sums, jitters)
            print(f"  {path.name}", flush=True)
        except SourceError as error:
            print(f"  {path.name} is left out: {error}", flush=True)
    if not jitters:
        print(f"no video of {options.folder} shows a face for a second")
        return 1
    table = report(sums, jitters)
    if options.output:
        options.output.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    worse = table["region"]["mean_px"] > 0.5 * table["jitter"]["mean_px"]
    print(f"regions move the aligned square by {table['region']['mean_px']:.3f} px")
    return int(worse)


if __name__ == "__main__":
    raise SystemExit(main())
