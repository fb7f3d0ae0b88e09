"""Makes the sample: videos of people who speak, each with a file of the truth about it.

    python -m datasets.sample OUT --clips 48

writes OUT/speaker_XX/clip_YYY.mp4 and clip_YYY.json. Twelve speakers, made from one public
domain portrait, speak generated syllables; their mouths follow the same signal that the
sound is made from. 48 clips take about a minute on 2 cores. Clips that already exist
are kept, so an interrupted run goes on where it stopped.
"""

import argparse
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import soundfile

from datasets.progress import Progress
from datasets.sample.looks import DRIVING_VOICE, LOOKS
from datasets.sample.plan import ClipPlan, plan_clip
from datasets.sample.render import write_clip
from datasets.sample.voice import Speech, Voice, room_noise, speak
from datasets.store.atomic import write_atomic

RECIPE = 1
"""Raised by one whenever the same plan would look or sound different, so older clips are made
again."""
TRUTH_FPS = 25


def make_sample(
    out: Path,
    clips: int = 48,
    seed: int = 0,
    workers: int | None = None,
    seconds: tuple[float, float] = (5.0, 8.0),
    progress: Progress | None = None,
) -> list[Path]:
    """Writes `clips` videos below `out` and returns their paths in order of their number.

    The truth about each video: speaker, fps, offset_frames (of 1/25 s, positive if the
    audio is late), cuts_s, faceless_s, faces, audio (speech, silent, noise or none) and
    syllables [[onset_s, duration_s, openness]] as seen on the lips. Times are video times.

    Args:
        out: folder, made if needed.
        clips: number of clips; clip k is the same whatever this number is.
        seed: seed of all random numbers.
        workers: number of processes; all cores if None, only this process if 1.
        seconds: shortest and longest clip.
        progress: called with (clips finished, clips) after each.
    """
    plans = [plan_clip(index, seed, seconds) for index in range(clips)]
    paths = [out / f"{plan.name}.mp4" for plan in plans]
    jobs = [
        (plan, path)
        for plan, path in zip(plans, paths, strict=True)
        if not _is_finished(plan, path)
    ]
    done = clips - len(jobs)
    if progress:
        progress(done, clips)
    workers = min(workers or os.cpu_count() or 1, max(len(jobs), 1))
    making = _in_processes(jobs, workers) if workers > 1 else (_make_clip(job) for job in jobs)
    with closing(making):
        for count, _ in enumerate(making, start=done + 1):
            if progress:
                progress(count, clips)
    return paths


def speech(
    seconds: float, seed: int, voice: Voice | None = None, rate: int = 16000
) -> tuple[np.ndarray, np.ndarray]:
    """Audio float32 (seconds * rate,) and mouth opening (seconds * 25,), 0..1 at the middle
    of each frame of 1/25 s."""
    spoken = speak(seconds, seed, voice or Voice())
    times = (np.arange(round(seconds * TRUTH_FPS)) + 0.5) / TRUTH_FPS
    return spoken.audio(0.0, seconds, rate), spoken.opening(times).astype(np.float32)


def make_driving_speech(path: Path, seconds: float = 16.0, seed: int = 999) -> Path:
    """Writes a 16 kHz mono wav of a voice that speaks in no sample clip."""
    audio, _ = speech(seconds, seed, DRIVING_VOICE)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, 16000, subtype="PCM_16")
    return path


def truth(plan: ClipPlan, spoken: Speech) -> dict[str, object]:
    """The truth about a clip, as written next to it."""
    return {
        "speaker": f"speaker_{plan.speaker:02d}",
        "fps": float(plan.fps),
        "offset_frames": plan.offset_frames,
        "cuts_s": plan.cuts_s,
        "faceless_s": plan.faceless_s,
        "faces": 2 if plan.kind == "two_faces" else 1,
        "audio": plan.audio,
        "syllables": [
            [round(s.onset_s, 4), round(s.duration_s, 4), round(s.openness, 3)]
            for s in spoken.syllables
            if s.onset_s + s.duration_s > 0 and s.onset_s < plan.seconds
        ],
        "kind": plan.kind,
        "frames": plan.frames,
        "size": list(plan.size),
        "made_by": _signature(plan),
    }


def speech_of(plan: ClipPlan) -> Speech:
    """What is spoken in this clip."""
    return speak(plan.seconds, plan.seed * 100_003 + plan.index, LOOKS[plan.speaker].voice)


def _signature(plan: ClipPlan) -> list[int]:
    return [RECIPE, plan.seed, plan.index, plan.frames]


def _is_finished(plan: ClipPlan, path: Path) -> bool:
    """Whether exactly this clip exists; its truth is written last."""
    try:
        known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return path.is_file() and known.get("made_by") == _signature(plan)


def _make_clip(job: tuple[ClipPlan, Path]) -> Path:
    plan, path = job
    for stale in path.parent.glob(f".{path.name}.*.tmp"):
        stale.unlink()
    spoken = speech_of(plan)
    write_clip(path, plan, spoken, _sound(plan, spoken))
    facts = json.dumps(truth(plan, spoken), indent=1)
    write_atomic(path.with_suffix(".json"), facts + "\n")
    return path


def _sound(plan: ClipPlan, spoken: Speech) -> np.ndarray | None:
    """float32 (n,) at the plan's rate, as long as the video; None for no track at all."""
    count = round(plan.seconds * plan.audio_rate)
    if plan.audio == "none":
        return None
    if plan.audio == "silent":
        return np.zeros(count, np.float32)
    if plan.audio == "noise":
        return room_noise(plan.seconds, plan.audio_rate, plan.index)
    return spoken.audio(-plan.offset_frames / TRUTH_FPS, plan.seconds, plan.audio_rate)


def _in_processes(jobs: list[tuple[ClipPlan, Path]], workers: int) -> Generator[Path, None, None]:
    """Makes clips in fresh processes, which have ended when it returns, even after an error or
    Ctrl-C. Jobs of one speaker follow each other, since a process keeps the portraits it made."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent)
    # A blocked signal stays blocked in children, so that only this process handles Ctrl-C.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        try:
            ordered = sorted(jobs, key=lambda job: (job[0].speaker, job[0].index))
            futures = [pool.submit(_make_clip, job) for job in ordered]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for future in as_completed(futures):
            yield future.result()
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when its parent has ended, for whatever reason."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def leave() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.sample", description="Make sample videos."
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    try:
        make_sample(
            arguments.out,
            arguments.clips,
            arguments.seed,
            arguments.workers,
            progress=lambda done, total, note="": print(
                f"\r{done}/{total} clips", end="", flush=True
            ),
        )
    except KeyboardInterrupt:
        raise SystemExit("\ninterrupted: the same command goes on where it stopped") from None
    print()
