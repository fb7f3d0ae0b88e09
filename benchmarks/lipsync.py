"""What the qualities of lip-sync cost and change: one table of speed, deviation, sync and memory.

    python -m benchmarks.lipsync VIDEO SPEECH --model BUNDLE [--arms ddim:20:3 ...] [--json FILE]

The video is lip-synced once for each quality, and for each further sampler, number of steps and
`--reuse`, each time in a process of its own whose networks are loaded before the clock starts.

- speed: seconds of the exact one over those of this one, from the command to the finished file;
- networks: the same for the networks alone (encode, sampler's steps, decode);
- PSNR: of the repainted pixels against the exact result's, after encoding, dB;
- mouth: correlation of the mouth's opening over time with the exact result's;
- sync: confidence by `mouth-audio` that the lips follow the speech, mean over pieces of 5 s and its
  95 % interval over pieces; 3 and more is in sync;
- memory: the most that the process held, MiB.

Wanted: balanced 2 times as fast as exact with a correlation of 0.98, draft 4 times with 0.95.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lipsync_looks import aligned_faces, openings
from datasets.media import read_audio
from models.latentsync.model import LatentSync
from tasks.lipsync.choice import choose_person, parse_face
from tasks.lipsync.face_scan import faces_of, scan_video
from tasks.lipsync.generator import FaceGenerator
from tasks.lipsync.job import EXACT, QUALITIES, LipSyncJob
from tasks.lipsync.speaker import find_speech
from tasks.lipsync.video import run_job

BARS = {"balanced": (2.0, 0.98), "draft": (4.0, 0.95)}
"""Quality -> least speed, and least correlation of the mouth."""
DRAWS = 2000


@dataclass
class Arm:
    """What is compared."""

    name: str
    sampler: str
    steps: int
    reuse: int = 1


@dataclass(kw_only=True)
class Figures(Arm):
    """One line of the table."""

    seconds: float
    network_seconds: float
    peak_mib: float
    speed: float = 1.0
    networks: float = 1.0
    psnr: float = float("inf")
    mouth_correlation: float = 1.0
    sync: float = float("nan")
    sync_low: float = float("nan")
    sync_high: float = float("nan")


class Timed(FaceGenerator):
    """Counts the seconds of the networks."""

    seconds = 0.0

    def _painted(self, *given: Any) -> np.ndarray:
        began = time.monotonic()
        painted = super()._painted(*given)
        type(self).seconds += time.monotonic() - began
        return painted


def one(arguments: Sequence[str]) -> None:
    """Lip-sync once, and print what it took; runs in a process of its own."""
    video, speech, output, bundle, device, sampler, steps, reuse = arguments
    generator = Timed(Path(bundle), device)
    job = LipSyncJob(video, speech, output, sampler=sampler, steps=int(steps), reuse=int(reuse))
    began = time.monotonic()
    run_job(job, Path(bundle), device=device, generator=generator)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([seconds, Timed.seconds, peak]))


def made(arm: Arm, output: Path, given: Sequence[str]) -> Figures:
    """The figures of one arm, whose video lies in `output` afterwards."""
    video, speech, bundle, device = given
    command = [sys.executable, "-m", "benchmarks.lipsync", "--one"]
    command += [video, speech, str(output), bundle, device, arm.sampler]
    command += [str(arm.steps), str(arm.reuse)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, network_s, peak = json.loads(done.stdout.splitlines()[-1])
    return Figures(**asdict(arm), seconds=seconds, network_seconds=network_s, peak_mib=peak)


def sync_of(video: Path) -> tuple[float, float, float]:
    """Mean confidence over pieces of a video, and the ends of its interval."""
    pieces = [each.confidence for each in find_speech(scan_video(video), read_audio(video))]
    if not pieces:
        return float("nan"), float("nan"), float("nan")
    drawn = np.random.default_rng(0).choice(pieces, (DRAWS, len(pieces))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(np.mean(pieces)), float(low), float(high)


def arms_of(texts: Sequence[str]) -> list[Arm]:
    """The qualities, and further arms such as `unipc:8` or `ddim:20:3`."""
    found = [Arm(name, *chosen) for name, chosen in QUALITIES.items()]
    for text in texts:
        sampler, *numbers = text.split(":")
        found.append(Arm(text, sampler, *map(int, numbers)))
    return found


def measure(given: Sequence[str], texts: Sequence[str], folder: Path) -> list[Figures]:
    """All lines; prints each as soon as it is known."""
    video, bundle = Path(given[0]), Path(given[2])
    model = LatentSync.load(bundle)
    resolution, region = model.config.resolution, model.alpha[0, 0].numpy() > 0.5
    scan = scan_video(video)
    choice = choose_person(scan, parse_face("auto"), video)
    faces = faces_of(scan, scan.people[choice.person], resolution)
    found: list[Figures] = []
    pictures: np.ndarray | None = None
    opened: np.ndarray | None = None
    for arm in arms_of(texts):
        output = folder / f"{len(found)}.mp4"
        figures = made(arm, output, given)
        figures.sync, figures.sync_low, figures.sync_high = sync_of(output)
        shown = aligned_faces(output, faces, resolution)[:, region].astype(np.float32)
        curve = openings(output)
        if pictures is None or opened is None:
            pictures, opened = shown, curve
        else:
            exact = found[0]
            figures.speed = exact.seconds / figures.seconds
            figures.networks = exact.network_seconds / figures.network_seconds
            error = float(((shown - pictures) ** 2).mean())
            figures.psnr = 10 * float(np.log10(255**2 / max(error, 1e-9)))
            known = np.isfinite(curve) & np.isfinite(opened)
            figures.mouth_correlation = float(np.corrcoef(curve[known], opened[known])[0, 1])
        found.append(figures)
        print(line(figures), flush=True)
    return found


def line(each: Figures) -> str:
    return (
        f"{each.name:16s} {each.sampler:13s} {each.steps:3d} steps  speed {each.speed:5.2f}  "
        f"networks {each.networks:5.2f}  PSNR {each.psnr:5.1f} dB  "
        f"mouth {each.mouth_correlation:5.3f}  sync {each.sync:5.2f} "
        f"[{each.sync_low:.2f}, {each.sync_high:.2f}]  {each.peak_mib:5.0f} MiB"
    )


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["--one"]:
        one(given[1:])
        return 0
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lipsync",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("video")
    parser.add_argument("speech")
    parser.add_argument("--model", required=True, help="folder of a bundle")
    parser.add_argument("--arms", nargs="*", default=[], help="such as unipc:8 ddim:20:3")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(given)
    with tempfile.TemporaryDirectory(prefix="lipsync-") as name:
        inputs = (options.video, options.speech, options.model, options.device)
        found = measure(inputs, options.arms, Path(name))
    met = True
    for each in found:
        speed, correlation = BARS.get(each.name, (0.0, 0.0))
        if each.name != EXACT and (each.speed < speed or each.mouth_correlation < correlation):
            met = False
            print(f"{each.name}: {speed:g} times and {correlation:g} wanted: MISSED")
    if options.json:
        facts = {each.name: asdict(each) for each in found}
        options.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
