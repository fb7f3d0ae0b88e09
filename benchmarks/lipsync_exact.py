"""Check that lip-sync gives the same result as networks of the published size called directly.

    python -m benchmarks.lipsync_exact VIDEO SPEECH     about 15 minutes on 2 cores, 25 GB of disk

Files with every published key and shape, of random values, become a bundle by
`tasks.registry.import_weights`. The first 40 frames of a video are lip-synced by it with each
frame as its own reference, and the frames before they are encoded are compared with those of
`tests.support.lipsync_by_hand`, which holds everything in memory and calls
`LatentSync.generate` window by window. Rounding may differ by one grey level.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.convert import DISK_BYTES, run_step
from datasets.media import SAMPLE_RATE, VideoWriter, read_audio, read_frames, write_flac
from datasets.media.canvas import Canvas
from tasks.lipsync import video as lipsync_video
from tasks.weights.download import free_bytes
from tests.support.lipsync_by_hand import lip_sync_by_hand

COUNT = 40
STEPS, GUIDANCE = 1, 1.5
FPS = 25.0


class Recorder(VideoWriter):
    """Keeps the frames that are written, before they are encoded."""

    frames: list[np.ndarray]

    def write(self, picture: np.ndarray | Canvas, time_s: Any = None) -> None:
        assert isinstance(picture, Canvas)
        type(self).frames.append(picture.rgb.copy())
        super().write(picture, time_s)


def cut(video: Path, speech: Path, folder: Path) -> tuple[Path, Path, np.ndarray]:
    """The first frames of a video and as much speech, as files, and the first frame."""
    frames = [
        frame.rgb for _, frame in zip(range(COUNT), read_frames(video, fps=FPS), strict=False)
    ]
    if len(frames) < COUNT:
        raise SystemExit(f"{video} has {len(frames)} frames at 25 fps, {COUNT} are needed")
    height, width = frames[0].shape[:2]
    with VideoWriter(folder / "video.mp4", width, height, FPS, crf=8) as writer:
        for frame in frames:
            writer.write(frame)
    wave = read_audio(speech)[: round(COUNT / FPS * SAMPLE_RATE)]
    write_flac(folder / "speech.flac", wave, SAMPLE_RATE)
    return folder / "video.mp4", folder / "speech.flac", frames[0]


def compare(folder: Path, video: Path, speech: Path) -> dict[str, float]:
    """Lip-sync in both ways; returns the largest difference of a value and the share that
    differ."""
    video, speech, first = cut(video, speech, folder)
    bundle = folder / "bundle"
    Recorder.frames = []
    lipsync_video.VideoWriter = Recorder  # type: ignore[misc]
    began = time.monotonic()
    result = lipsync_video.lip_sync_video(
        video,
        speech,
        folder / "out.mp4",
        bundle,
        steps=STEPS,
        guidance=GUIDANCE,
        reference="frame",
        match=False,
        occlusion="off",
    )
    seconds = time.monotonic() - began
    # The networks of one way are let go before those of the other are loaded.
    gc.collect()
    expected = lip_sync_by_hand(
        video, speech, bundle, count=COUNT, ways=1, steps=STEPS, guidance=GUIDANCE
    )
    got = np.stack(Recorder.frames)
    differing = np.abs(got.astype(int) - expected)
    return {
        "frames": result.frames,
        "repainted": result.faces_found,
        "largest_difference": float(differing.max()),
        "share_differing": float((differing > 0).mean()),
        "largest_change_of_the_input": float(np.abs(got[0].astype(int) - first).max()),
        "seconds": seconds,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lipsync_exact",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs"), help="where to make the folder")
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args(argv)
    options.work.mkdir(parents=True, exist_ok=True)
    if (free := free_bytes(options.work)) < DISK_BYTES:
        print(
            f"{options.work} has {free / 1e9:.0f} GB free, but {DISK_BYTES / 1e9:.0f} are needed: "
            "choose another folder with --work",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="lipsync-exact-", dir=options.work) as name:
        folder = Path(name)
        for step in ("write", "files", "bundle"):
            print(f"{step}: {run_step(step, folder)['said']}", flush=True)
        (folder / "unet.pt").unlink()
        figures = compare(folder, options.video, options.speech)
    for key, value in figures.items():
        print(f"{key:28s} {value:.6g}")
    met = figures["largest_difference"] <= 1 and figures["repainted"] == COUNT
    print(f"at most one grey level apart wanted: {'met' if met else 'MISSED'}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
