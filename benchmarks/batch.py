"""Check that a batch that is killed twice ends with every row right and nothing done twice.

    python -m benchmarks.batch                     500 small jobs
    python -m benchmarks.batch --jobs 40 --json batch.json

Each job gives a small portrait other speech by an untrained network, whose time per job is that of
reading, searching and writing. One job in fifty names a file that is not there. The command runs
until a third of the jobs are done and is killed by SIGKILL, runs again until two thirds are done
and is killed again, and then runs to its end.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.media import VideoWriter, probe, write_flac
from tasks.lipsync.batch import RECEIPTS
from tasks.runtime.processes import ROOT
from tests.support.portrait import portrait
from tests.support.real_bundle import make_real_bundle

FPS = 20
LENGTHS = (0.2, 0.25, 0.3)
"""Seconds of speech."""
BAD_EVERY = 50
LIMIT_S = 7200.0
COMMAND = (sys.executable, "-m", "flows.lip_sync_batch")


def make_jobs(folder: Path, count: int) -> Path:
    """A table of small jobs with all that they need; returns its path."""
    make_real_bundle(folder / "bundle")
    image = cv2.resize(portrait(), (160, 160))
    with VideoWriter(folder / "ein Gesicht.mp4", 160, 160, FPS, crf=10) as writer:
        for _ in range(8):
            writer.write(image)
    rng = np.random.default_rng(0)
    for seconds in LENGTHS:
        wave = 0.2 * rng.uniform(-1, 1, round(seconds * 16000))
        write_flac(folder / f"{seconds}.flac", wave.astype(np.float32), 16000)
    lines = []
    for number in range(count):
        bad = number % BAD_EVERY == BAD_EVERY - 1
        audio = "missing.flac" if bad else f"{LENGTHS[number % len(LENGTHS)]}.flac"
        job = {
            "video": str(folder / "ein Gesicht.mp4"),
            "audio": str(folder / audio),
            "steps": 1,
            "guidance": 1,
            "seed": number,
        }
        lines.append(json.dumps(job))
    (folder / "jobs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "jobs.jsonl"


def run_killed(folder: Path, count: int, kills: int, command: Sequence[str]) -> dict[str, float]:
    """Run a batch to its end, killed on the way.

    Args:
        folder: an empty one.
        count: jobs.
        kills: how often the command is killed.
        command: that runs the batch; it gets the table, the folder and the model.

    Returns:
        What came of it, by name.
    """
    table, output = make_jobs(folder, count), folder / "batch"
    began, log = time.monotonic(), folder / "log"
    before: dict[Path, int] = {}
    twice = 0
    said = ""
    for run in range(kills + 1):
        goal = count * (run + 1) // (kills + 1) if run < kills else None
        said += _run(
            [*command, str(table), str(output), "--model", str(folder / "bundle")],
            folder,
            log,
            output,
            goal,
        )
        twice += sum(path.stat().st_mtime_ns != at for path, at in before.items())
        before = {
            path: path.stat().st_mtime_ns
            for kind in (RECEIPTS, "videos")
            for path in (output / kind).glob("[!.]*")
        }
    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    told = re.search(r"about (\d+) (s|min|h) ", said)
    scale = {"s": 1, "min": 60, "h": 3600}
    return {
        "jobs": count,
        "kills": kills,
        "rows": len(rows),
        "right": sum(_is_right(number, row) for number, row in enumerate(rows)),
        "twice": twice + len(rows) - len({row["row"] for row in rows}),
        "left_over": len([*(output / "videos").glob(".*")]),
        "seconds": time.monotonic() - began,
        "work_s": sum(row["seconds"] for row in rows),
        "estimated_s": int(told[1]) * scale[told[2]] if told else float("nan"),
    }


def _run(command: Sequence[str], folder: Path, log: Path, output: Path, goal: int | None) -> str:
    """Run the command, until so many jobs are done if there is a goal; returns what it said."""
    with log.open("w+", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        end = time.monotonic() + LIMIT_S
        try:
            while process.poll() is None and time.monotonic() < end:
                done = len([*(output / RECEIPTS).glob("[!.]*.json")])
                if goal is not None and done >= goal:
                    process.kill()
                time.sleep(0.05)
        finally:
            process.kill()
            code = process.wait()
    said = log.read_text(encoding="utf-8")
    if goal is None and code:
        raise SystemExit(f"the batch ended with {code}:\n{said}")
    return said


def _is_right(number: int, row: dict[str, object]) -> bool:
    """Whether a row says what had to come of its job, and the video is so."""
    if row["row"] != number + 1:
        return False
    if number % BAD_EVERY == BAD_EVERY - 1:
        return row["status"] == "failed" and "missing.flac" in str(row["detail"])
    frames = round(LENGTHS[number % len(LENGTHS)] * FPS)
    video = probe(Path(str(row["output"])))
    whole = abs(video.duration_s - frames / FPS) < 0.5 / FPS
    return row["status"] == "done" and row["frames"] == row["faces_found"] == frames and whole


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        found = run_killed(Path(folder), options.jobs, options.kills, COMMAND)
    for name, value in found.items():
        print(f"{name:12s} {value:10.6g}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    bad = found["right"] != options.jobs or found["twice"] or found["rows"] != options.jobs
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
