"""How a lip-synced mouth sits in its face: colours at the edge, flicker, and silence.

    python -m benchmarks.lipsync_looks VIDEO SPEECH --model BUNDLE [--sheet SHEET.png]

The video is lip-synced four times: with its colours matched, as it is by default, with two seconds
of silence in the middle of the speech, and with speech that ends in the middle of the video. Faces
are aligned by the source's own matrices.

- edge: mean difference of source and result along the edge of the new part, the worst channel,
  levels of 0 to 255 (2 wanted);
- flicker: second differences over time of the new part over those of the source (1.2 wanted);
- neck: dark and bright lines beneath the chin per frame, more than the source has: a second contour
  is two (0.5 wanted);
- silence: how far the mouth is open in the silent seconds, over how far in the spoken ones, and how
  far the source's mouth is open then;
- join: largest second difference over time where speech ends, over the largest one elsewhere in the
  new part (1.2 wanted).
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from scipy.signal import find_peaks

from datasets.faces.alignment import align, align_points
from datasets.faces.landmarks import FaceMeshDetector, mouth_opening
from datasets.faces.points import FACE_OVAL
from datasets.media import SAMPLE_RATE, probe, read_audio, read_frames, write_flac
from models.latentsync.model import LatentSync
from tasks.lipsync.choice import choose_person, parse_face
from tasks.lipsync.colour_match import border_difference
from tasks.lipsync.face_oval import JAW_ROOM, oval_weights
from tasks.lipsync.face_scan import FaceScan, faces_of, scan_video
from tasks.lipsync.jaw import JawFinder
from tasks.lipsync.video import lip_sync_video

SILENCE_S = 2.0
EDGE, FLICKER, NECK, JOIN = 2.0, 1.2, 0.5, 1.2
JOIN_S = 0.2
COLUMNS = 8
CHIN = 152
NECK_HALF, NECK_ROWS, LINE_LEVELS = 0.08, (0.035, 0.13), 10
"""Half the width beneath the chin and the rows from it that are looked at, in sides of the face,
and how dark or bright a line is at least."""


def aligned_faces(video: Path, faces: FaceScan, resolution: int) -> np.ndarray:
    """uint8 (n, R, R, 3) of the frames that have the face."""
    found = []
    for frame, matrix in zip(read_frames(video, fps=None), faces.matrices, strict=False):
        if matrix is not None:
            found.append(align(frame.picture, matrix, resolution))
    return np.stack(found)


def flicker(faces: np.ndarray, region: np.ndarray) -> float:
    """Mean absolute second difference over time where the region is shown."""
    values = faces.astype(np.float32)[:, region > 0.5]
    return float(np.abs(values[2:] - 2 * values[1:-1] + values[:-2]).mean())


def jolts(faces: np.ndarray, region: np.ndarray) -> np.ndarray:
    """(n - 2,) mean absolute second difference over time of each frame, where the region is."""
    values = faces.astype(np.float32)[:, region > 0.5]
    return np.asarray(np.abs(values[2:] - 2 * values[1:-1] + values[:-2]).mean(axis=(1, 2)))


def neck_lines(face: np.ndarray, outline: np.ndarray) -> int:
    """Dark and bright lines across the middle of the neck: shadows, collars, second chins.

    Args:
        face: aligned, uint8 (R, R, 3).
        outline: (n, 2) its `FACE_OVAL`, pixels.
    """
    side = len(face)
    middle, chin = outline[FACE_OVAL.index(CHIN)]
    luma = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    luma = cv2.GaussianBlur(luma, (0, 0), side / 170)
    first, last = (max(0, round(float(middle) + way * NECK_HALF * side)) for way in (-1, 1))
    profile = luma[:, first:last].mean(axis=1)
    near, far = (float(chin) + share * side for share in NECK_ROWS)
    found = [find_peaks(sign * profile, prominence=LINE_LEVELS)[0] for sign in (1, -1)]
    return sum(near <= row <= min(far, side - 3) for rows in found for row in rows.tolist())


def lines_per_frame(faces: np.ndarray, shapes: np.ndarray) -> float:
    """Mean number of lines beneath the chins of aligned faces (n, R, R, 3), of whose source the
    `SHAPE` is given."""
    with JawFinder() as jaws:
        outlines = [jaws.outline(*pair) for pair in zip(faces, shapes, strict=False)]
    pairs = zip(faces, outlines, strict=False)
    return float(np.mean([neck_lines(face, each) for face, each in pairs if each is not None]))


def openings(video: Path) -> np.ndarray:
    """(n,) how far the mouth is open in every frame; NaN without a face."""
    found = []
    with FaceMeshDetector(max_faces=1) as detector:
        for frame in read_frames(video, fps=None):
            faces = detector.detect(frame.picture)
            found.append(mouth_opening(faces[0].landmarks[None])[0] if faces else np.nan)
    return np.array(found)


def with_silence(speech: Path, folder: Path) -> tuple[Path, float, float]:
    """The speech with silence in its middle, and when that begins and ends."""
    wave = read_audio(speech)
    length = len(wave) / SAMPLE_RATE
    begin = max(0.0, (length - SILENCE_S) / 2)
    end = min(length, begin + SILENCE_S)
    wave[round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)] = 0
    write_flac(folder / "silence.flac", wave, SAMPLE_RATE)
    return folder / "silence.flac", begin, end


def first_half(speech: Path, folder: Path, most_s: float) -> tuple[Path, float]:
    """Speech that ends in the middle of a video of `most_s`, and when."""
    wave = read_audio(speech)
    end = min(len(wave) / SAMPLE_RATE, most_s / 2)
    write_flac(folder / "half.flac", wave[: round(end * SAMPLE_RATE)], SAMPLE_RATE)
    return folder / "half.flac", end


def contact_sheet(path: Path, *rows: np.ndarray) -> None:
    """Some faces of each of several videos, a row each."""
    places = np.linspace(0, min(len(row) for row in rows) - 1, COLUMNS).round().astype(int)
    picture = np.concatenate([np.concatenate(list(row[places]), axis=1) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lipsync_looks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="folder of a bundle")
    parser.add_argument("--steps", type=int, default=20, help="of the sampler")
    parser.add_argument("--sheet", type=Path, help="write source, result and unmatched result")
    options = parser.parse_args(argv)
    model = LatentSync.load(options.model)
    resolution, region = model.config.resolution, model.alpha[0, 0].numpy()
    with tempfile.TemporaryDirectory(prefix="lipsync-looks-") as name:
        folder = Path(name)
        silent, begin, end = with_silence(options.speech, folder)
        made = {}
        half, ends_s = first_half(options.speech, folder, probe(options.video).duration_s)
        for what, speech, match, length in (
            ("match", options.speech, True, "cut"),
            ("match off", options.speech, False, "cut"),
            ("silence", silent, False, "cut"),
            ("join", half, False, "keep"),
        ):
            made[what] = folder / f"{what}.mp4"
            given = (options.video, speech, made[what], options.model)
            lip_sync_video(*given, steps=options.steps, match=match, length=length)
        scan = scan_video(options.video)
        choice = choose_person(scan, parse_face("auto"), options.video)
        faces = faces_of(scan, scan.people[choice.person], resolution)
        before = aligned_faces(options.video, faces, resolution)
        assert faces.shapes is not None
        shapes = np.stack(
            [
                align_points(shape, matrix, resolution)
                for shape, matrix in zip(faces.shapes, faces.matrices, strict=True)
                if matrix is not None
            ]
        )
        regions = [region] * len(shapes)
        if model.config.reference != "frame":
            ovals = (shape[: len(FACE_OVAL)] for shape in shapes)
            regions = [region * oval_weights(each, resolution, JAW_ROOM) for each in ovals]
        own_lines = lines_per_frame(before, shapes)
        rows = [before]
        met = True
        for what in ("match", "match off"):
            after = aligned_faces(made[what], faces, resolution)
            rows.append(after)
            count = min(len(before), len(after))
            edges = [
                border_difference(new, old, shown)
                for new, old, shown in zip(after, before, regions, strict=False)
            ]
            edge = float(np.abs(np.mean(edges, axis=0)).max())
            ratio = flicker(after, region) / flicker(before[:count], region)
            neck = lines_per_frame(after, shapes) - own_lines
            print(f"{what:10s} edge {edge:6.2f} levels   flicker {ratio:5.2f}   neck {neck:5.2f}")
            if what == "match":
                met = edge <= EDGE and ratio <= FLICKER and neck <= NECK
        open_, source_open = openings(made["silence"]), openings(options.video)
        times = np.arange(len(open_)) / (len(open_) / (len(read_audio(silent)) / SAMPLE_RATE))
        quiet = (times > begin + 0.2) & (times < end - 0.2)
        share = np.nanmean(open_[quiet]) / np.nanmean(open_[~quiet])
        print(
            f"silence    mouth open {np.nanmean(open_[quiet]):.3f} of the face, "
            f"{share:.2f} of that in speech; in the source "
            f"{np.nanmean(source_open[: len(open_)][quiet]):.3f}"
        )
        shown_s = scan.times_s[[matrix is not None for matrix in faces.matrices]]
        steps = jolts(aligned_faces(made["join"], faces, resolution), region)
        near = np.abs(shown_s[1 : len(steps) + 1] - ends_s) < JOIN_S
        spoken = shown_s[1 : len(steps) + 1] < ends_s
        join = float(steps[near].max() / steps[spoken & ~near].max())
        print(f"join       {join:.2f} of the largest second difference in the new part")
        met = met and join <= JOIN
        if options.sheet:
            contact_sheet(options.sheet, *rows)
    print(
        f"edge at most {EDGE:g}, flicker {FLICKER:g}, neck {NECK:g} and join {JOIN:g} "
        f"wanted: {'met' if met else 'MISSED'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
