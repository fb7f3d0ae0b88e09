"""How a lip-synced mouth sits in its face: colours at the edge, flicker, and silence.

    python -m benchmarks.lipsync_looks VIDEO SPEECH --model BUNDLE [--sheet SHEET.png]

The video is lip-synced three times: with its colours matched, as it is by default, and with two
seconds of silence in the middle of the speech. Faces are aligned by the source's own matrices.

- edge: mean difference of source and result along the edge of the new part, the worst channel,
  levels of 0 to 255 (2 wanted);
- flicker: second differences over time of the new part over those of the source (1.2 wanted);
- silence: how far the mouth is open in the silent seconds, over how far in the spoken ones.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.faces.alignment import align
from datasets.faces.landmarks import FaceMeshDetector, mouth_opening
from datasets.media import SAMPLE_RATE, read_audio, read_frames, write_flac
from models.latentsync.model import LatentSync
from tasks.lipsync.choice import choose_person, parse_face
from tasks.lipsync.colour_match import border_difference
from tasks.lipsync.face_scan import FaceScan, faces_of, scan_video
from tasks.lipsync.video import lip_sync_video

SILENCE_S = 2.0
EDGE, FLICKER = 2.0, 1.2
COLUMNS = 8


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
        for what, speech, match in (
            ("match", options.speech, True),
            ("match off", options.speech, False),
            ("silence", silent, False),
        ):
            made[what] = folder / f"{what}.mp4"
            given = (options.video, speech, made[what], options.model)
            lip_sync_video(*given, steps=options.steps, match=match, length="cut")
        scan = scan_video(options.video, until_s=len(read_audio(options.speech)) / SAMPLE_RATE)
        choice = choose_person(scan, parse_face("auto"), options.video)
        faces = faces_of(scan, scan.people[choice.person], resolution)
        before = aligned_faces(options.video, faces, resolution)
        rows = [before]
        met = True
        for what in ("match", "match off"):
            after = aligned_faces(made[what], faces, resolution)
            rows.append(after)
            count = min(len(before), len(after))
            edges = [
                border_difference(*pair, region)
                for pair in zip(after[:count], before[:count], strict=True)
            ]
            edge = float(np.abs(np.mean(edges, axis=0)).max())
            ratio = flicker(after, region) / flicker(before, region)
            print(f"{what:10s} edge {edge:6.2f} levels   flicker {ratio:5.2f}")
            met = edge <= EDGE and ratio <= FLICKER
        open_ = openings(made["silence"])
        times = np.arange(len(open_)) / (len(open_) / (len(read_audio(silent)) / SAMPLE_RATE))
        quiet = (times > begin + 0.2) & (times < end - 0.2)
        share = np.nanmean(open_[quiet]) / np.nanmean(open_[~quiet])
        print(
            f"silence    mouth open {np.nanmean(open_[quiet]):.3f} of the face, "
            f"{share:.2f} of that in speech"
        )
        if options.sheet:
            contact_sheet(options.sheet, *rows)
    print(
        f"edge at most {EDGE:g}, flicker at most {FLICKER:g} wanted: {'met' if met else 'MISSED'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
