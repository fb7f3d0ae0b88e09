"""Where mouth and chin are in the crop, on real clips, for different alignment points.

    python -m benchmarks.crop FOLDER                      every video of the folder
    python -m benchmarks.crop FOLDER --sheet sheet.png    a picture of each, with the mask drawn in

The alignments compared:
  latentsync-1.5  the 68-point means that releases 1.0 to 1.5 were trained on (ours)
  before          the nose from bridge to tip, as this project formerly aligned faces
  1.6, narrow     release 1.6's points where the mesh has them: bridge, both wings, tip of the nose
  1.6, wide       the same with only the upper edges of the brows
Position is in pixels of the 256 crop, as 5th percentile, median and 95th percentile over all
frames with a face. `scale` is the size of a face in the crop against `latentsync-1.5`.
`chin inside` is the share of frontal frames in which the chin is above the lower edge of the area
that is repainted at its column: where it is not, the old jaw stays in the picture.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.errors import SourceError
from datasets.faces.alignment import CROP, LEFT_BROW, NOSE, RIGHT_BROW, Aligner, align, align_points
from datasets.faces.landmarks import FaceMeshDetector, yaw_deg
from datasets.media import read_frames
from models.latentsync.mask import face_mask

SIDE = 256
UPPER_BROWS = ((70, 63, 105, 66, 107), (300, 293, 334, 296, 336))
NOSE_BEFORE = (197, 195, 5, 4)
NOSE_1_6 = (195, 129, 358, 4)
ALIGNMENTS = {
    CROP: (LEFT_BROW, RIGHT_BROW, NOSE),
    "before": (LEFT_BROW, RIGHT_BROW, NOSE_BEFORE),
    "1.6, narrow": (LEFT_BROW, RIGHT_BROW, NOSE_1_6),
    "1.6, wide": (*UPPER_BROWS, NOSE_1_6),
}
LIPS, CHIN = (13, 14), 152
FRONTAL_DEG = 15.0
SHOWN = (CROP, "before")


@dataclass
class Clip:
    """One video's faces."""

    name: str
    landmarks: np.ndarray
    """(t, 478, 2) of the largest face of each frame that has one."""
    picture: np.ndarray
    """The frame with the widest open mouth,"""
    shown: int
    """and its position in `landmarks`."""


def read_clip(path: Path, most: int) -> Clip | None:
    """The faces of a video's first frames; None if there are no faces."""
    found: list[np.ndarray] = []
    widest, shown = -1.0, 0
    picture: np.ndarray = np.empty(0)
    try:
        with FaceMeshDetector(max_faces=2) as detector:
            for number, frame in enumerate(read_frames(path, fps=None)):
                if number == most:
                    break
                for face in detector.detect(frame.picture)[:1]:
                    gap = float(
                        np.ptp(face.landmarks[list(LIPS), 1]) / np.ptp(face.landmarks[:, 1])
                    )
                    if gap > widest:
                        widest, picture, shown = gap, frame.rgb, len(found)
                    found.append(face.landmarks)
    except SourceError as error:
        print(f"{path.name}: {error.detail}")
    return Clip(path.name, np.stack(found), picture, shown) if found else None


def matrix(landmarks: np.ndarray, parts: Sequence[Sequence[int]]) -> np.ndarray:
    """Matrix source -> crop (2, 3) of one face by the means of these points."""
    points = np.stack([landmarks[list(part)].mean(axis=0) for part in parts])
    return Aligner(SIDE, smooth=False).matrix_of_points(points)


def lower_edges() -> np.ndarray:
    """(256,) the last repainted row of each column; -1 if there is none."""
    repainted = face_mask(SIDE)[0, 0].numpy() == 0
    rows = np.arange(SIDE)[:, None]
    return np.asarray(np.where(repainted, rows, -1).max(axis=0))


def measure(clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """One row per alignment."""
    meshes = np.concatenate([clip.landmarks for clip in clips])
    frontal = np.abs(yaw_deg(meshes)) < FRONTAL_DEG
    edges = lower_edges()
    rows: list[dict[str, Any]] = []
    sizes: dict[str, np.ndarray] = {}
    for name, parts in ALIGNMENTS.items():
        matrices = [matrix(mesh, parts) for mesh in meshes]
        sizes[name] = np.array([np.sqrt(np.linalg.det(each[:, :2])) for each in matrices])
        points = np.stack(
            [
                align_points(mesh[[*LIPS, CHIN]], each, SIDE)
                for mesh, each in zip(meshes, matrices, strict=True)
            ]
        )
        chin = points[:, 2]
        column = np.clip(np.rint(chin[:, 0]), 0, SIDE - 1).astype(int)
        inside = chin[:, 1] <= edges[column]
        rows.append(
            {
                "alignment": name,
                "scale": float(np.median(sizes[name] / sizes[CROP])),
                "mouth_x": _spread(points[:, :2, 0].mean(axis=1)),
                "mouth_y": _spread(points[:, :2, 1].mean(axis=1)),
                "chin_y": _spread(chin[:, 1]),
                "chin_inside_frontal": float(inside[frontal].mean()),
                "chin_inside_worst_clip": _worst(clips, inside, frontal),
                "frames": len(meshes),
                "frontal": int(frontal.sum()),
            }
        )
    return rows


def _spread(values: np.ndarray) -> list[float]:
    return [round(float(each), 1) for each in np.percentile(values, [5, 50, 95])]


def _worst(clips: Sequence[Clip], inside: np.ndarray, frontal: np.ndarray) -> float:
    ends = np.cumsum([len(clip.landmarks) for clip in clips])[:-1]
    parts = zip(np.split(inside, ends), np.split(frontal, ends), strict=True)
    return min(float(each[looks].mean()) for each, looks in parts if looks.any())


def sheet(clips: Sequence[Clip]) -> np.ndarray:
    """Each clip's widest open mouth by the alignments in `SHOWN`, the mask's edge in green."""
    repainted = (face_mask(SIDE)[0, 0].numpy() == 0).astype(np.uint8)
    outline, _ = cv2.findContours(repainted, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    columns = []
    for name in SHOWN:
        faces = []
        for clip in clips:
            found = matrix(clip.landmarks[clip.shown], ALIGNMENTS[name])
            face = np.ascontiguousarray(align(clip.picture, found, SIDE))
            cv2.drawContours(face, outline, -1, (0, 255, 0), 1)
            faces.append(face)
        columns.append(faces)
    across = 4
    rows = []
    for start in range(0, len(clips), across):
        for faces in columns:
            row = faces[start : start + across]
            row += [np.zeros_like(row[0])] * (across - len(row))
            rows.append(np.hstack(row))
    return np.vstack(rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="with videos")
    parser.add_argument("--frames", type=int, default=10_000, help="of each video at most")
    parser.add_argument("--sheet", type=Path, help="picture to write")
    parser.add_argument("--output", type=Path, help="JSON to write")
    given = parser.parse_args(argv)
    clips = []
    for path in sorted(given.folder.iterdir()):
        clip = read_clip(path, given.frames)
        if clip is not None:
            clips.append(clip)
            print(f"{clip.name}: {len(clip.landmarks)} faces", flush=True)
    if not clips:
        print(f"no face was found in any video of {given.folder}")
        return 1
    rows = measure(clips)
    print(f"\n{rows[0]['frames']} frames, {rows[0]['frontal']} of them frontal")
    heading = ("alignment", "scale", "mouth x", "mouth y", "chin y", "chin inside", "worst clip")
    print("{:15} {:>6} {:>20} {:>20} {:>20} {:>12} {:>11}".format(*heading))
    for row in rows:
        places = [" ".join(f"{v:6.1f}" for v in row[name]) for name in PLACES]
        print(
            f"{row['alignment']:15} {row['scale']:6.3f} {places[0]} {places[1]} {places[2]} "
            f"{row['chin_inside_frontal']:12.1%} {row['chin_inside_worst_clip']:11.1%}"
        )
    if given.sheet:
        cv2.imwrite(str(given.sheet), cv2.cvtColor(sheet(clips), cv2.COLOR_RGB2BGR))
    if given.output:
        given.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


PLACES = ("mouth_x", "mouth_y", "chin_y")

if __name__ == "__main__":
    raise SystemExit(main())
