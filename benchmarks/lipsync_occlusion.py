"""What stays in front of a new mouth: hands moved over real faces, and false alarms on clean ones.

    python -m benchmarks.lipsync_occlusion CLIPS... --hands VIDEO@FRAME... [--sheet SHEET.png]

The hands seen in these frames are cut out and moved over the lower face of the largest person of
every clip, for a third of its length and in the video itself, which is then read like any other.

- false alarms: share of frames without a hand of which more than 1 % of the region is kept (at
  most 1 % wanted);
- kept: share of the hand's pixels in the region that stay, over all frames in which it covers 5 %
  of the region or more;
- frames: share of those frames in which more than half of the hand stays;
- beside: share of the region that stays for nothing in them.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.errors import SourceError
from datasets.faces.alignment import align, align_points, square_matrix
from datasets.faces.points import FACE_OVAL
from datasets.media import VideoWriter, probe, read_frames
from models.latentsync.mask import face_mask
from tasks.lipsync.choice import choose_person, parse_face
from tasks.lipsync.face_oval import JAW_ROOM, oval_weights
from tasks.lipsync.face_scan import FaceScan, faces_of, scan_video
from tasks.lipsync.occlusion import make_occlusion
from tests.support.hands import Hand, cut_hands, with_hand

RESOLUTION = 128
SECONDS = 5.0
FALSE_ALARMS = 0.01
SMALLEST, COVERED = 0.01, 0.05
COLUMNS = 8


def scanned(video: Path) -> FaceScan:
    """The largest person of a video's first seconds."""
    scan = scan_video(video, until_s=SECONDS)
    if not scan.people:
        raise SystemExit(f"no face was found in the first {SECONDS:g} s of {video}")
    choice = choose_person(scan, parse_face("largest"), video)
    return faces_of(scan, scan.people[choice.person], RESOLUTION)


def fronts(video: Path, scan: FaceScan) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """For every frame with the face its number, the face, the region that is repainted, and how
    much of each pixel is in front."""
    mask = (face_mask(RESOLUTION)[0, 0].numpy() == 0).astype(np.float32)
    faces, shapes = {}, {}
    assert scan.shapes is not None
    for number, frame in enumerate(read_frames(video, fps=None)):
        matrix = scan.matrices[number] if number < len(scan.matrices) else None
        if matrix is not None:
            faces[number] = align(frame.picture, matrix, RESOLUTION)
            shapes[number] = align_points(scan.shapes[number], matrix, RESOLUTION)
    for shot in sorted({scan.shots[number] for number in faces}):
        there = [number for number in faces if scan.shots[number] == shot]
        found = make_occlusion(
            there,
            lambda sources: np.stack([faces[source] for source in sources]),
            lambda sources: np.stack([shapes[source] for source in sources]),
            mask,
        )
        for number in there:
            oval = oval_weights(shapes[number][: len(FACE_OVAL)], RESOLUTION, JAW_ROOM)
            none = np.zeros_like(mask)
            front = found(faces[number], shapes[number]) if found else none
            yield number, faces[number], mask * oval, front


def false_alarms(video: Path, scan: FaceScan) -> tuple[int, int]:
    """Frames of a clean video of which something is kept, and all."""
    kept = [
        float((front > 0.5)[region > 0.5].mean()) > SMALLEST
        for _, _, region, front in fronts(video, scan)
    ]
    return sum(kept), len(kept)


def occluded(video: Path, scan: FaceScan, hand: Hand, output: Path) -> dict[int, np.ndarray]:
    """Write the video with a hand in the middle third; alphas (h, w) by frame."""
    info, alphas = probe(video), {}
    count = len(scan.matrices)
    with VideoWriter(output, info.width, info.height, info.fps, crf=12) as writer:
        for number, frame in enumerate(read_frames(video, fps=None)):
            if number == count:
                break
            picture, along = frame.rgb, 3 * number / count - 1
            matrix = scan.matrices[number]
            if matrix is not None and 0 <= along <= 1:
                picture, alphas[number] = with_hand(picture, hand, matrix, RESOLUTION, along)
            writer.write(picture)
    return alphas


def kept_hand(video: Path, alphas: dict[int, np.ndarray]) -> list[tuple[float, float, float]]:
    """For each frame with enough of a hand: its pixels in the region, those kept, and the share of
    the region kept beside it."""
    scan, found = scanned(video), []
    for number, _, region, front in fronts(video, scan):
        matrix = scan.matrices[number]
        assert matrix is not None
        if number not in alphas:
            continue
        here = square_matrix(matrix, RESOLUTION)
        alpha = cv2.warpAffine(alphas[number], here, (RESOLUTION, RESOLUTION))
        inside = region > 0.5
        hand, near = (alpha > 0.5) & inside, cv2.dilate(alpha, np.ones((7, 7))) > 0.3
        if hand.sum() < COVERED * inside.sum():
            continue
        stays = front > 0.5
        beside = float((stays & inside & ~near).sum() / inside.sum())
        found.append((float(hand.sum()), float((stays & hand).sum()), beside))
    return found


def sheet_row(video: Path, alphas: dict[int, np.ndarray]) -> np.ndarray:
    """Some faces with a hand, what is kept in green."""
    rows = [
        (face, front)
        for number, face, _, front in fronts(video, scanned(video))
        if number in alphas
    ]
    places = np.linspace(0, len(rows) - 1, COLUMNS).round().astype(int)
    green = np.array([0, 200, 0], np.float32)
    return np.concatenate(
        [rows[k][0] * (1 - rows[k][1][..., None] / 2) + green * rows[k][1][..., None] / 2
         for k in places],
        axis=1,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lipsync_occlusion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", type=Path, nargs="+", help="videos of faces")
    parser.add_argument("--hands", nargs="+", default=[], help="such as clip.mp4@408")
    parser.add_argument("--sheet", type=Path, help="write pictures of what is kept")
    options = parser.parse_args(argv)
    hands: list[tuple[Path, Hand]] = []
    for each in options.hands:
        path, _, frame = each.rpartition("@")
        hands += [(Path(path), hand) for hand in cut_hands(Path(path), int(frame))[:1]]
    alarms, frames, rows = 0, 0, []
    results: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="lipsync-occlusion-") as name:
        for clip in options.clips:
            try:
                scan = scanned(clip)
                false, count = false_alarms(clip, scan)
            except (SourceError, SystemExit) as error:
                print(f"{clip.name:42s} left out: {error}", flush=True)
                continue
            alarms, frames = alarms + false, frames + count
            here: list[tuple[float, float, float]] = []
            for number, (source, hand) in enumerate(hands):
                if source == clip:
                    continue
                written = Path(name) / f"{clip.stem}-{number}.mp4"
                alphas = occluded(clip, scan, hand, written)
                here += kept_hand(written, alphas)
                if options.sheet and alphas:
                    rows.append(sheet_row(written, alphas))
            results += here
            print(f"{clip.name:42s} false alarms {false}/{count}   {_summary(here)}", flush=True)
    print(f"{'all':42s} false alarms {alarms / max(1, frames):.3f}   {_summary(results)}")
    if options.sheet and rows:
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        picture = np.concatenate(rows).astype(np.uint8)
        cv2.imwrite(str(options.sheet), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    met = alarms <= FALSE_ALARMS * frames
    print(f"at most {FALSE_ALARMS:g} of false alarms wanted: {'met' if met else 'MISSED'}")
    return 0 if met else 1


def _summary(results: list[tuple[float, float, float]]) -> str:
    if not results:
        return ""
    pixels, stay, beside = np.array(results).T
    return (
        f"kept {stay.sum() / pixels.sum():.2f}   frames {np.mean(stay > pixels / 2):.2f} of "
        f"{len(results)}   beside {beside.mean():.3f}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
