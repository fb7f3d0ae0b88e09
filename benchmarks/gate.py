"""How often videos whose lips do not follow the speech seem to, and whether the gate stays shut.

    python -m benchmarks.gate DATASET [--json FILE]     about 2 minutes for 24 clips

For every pair of clips of a dataset (any split, at most --pairs) the clip's lips are compared with
the other clip's speech, as promotion does: for the input itself, another moment of it, a still
frame and a grey mask. The real video with its own speech shows what the scorer can see. From
these, evaluations of 4, 8 and 30 clips are drawn 20 times each: how many would `follows` let pass?
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.faces.landmarks import FaceMeshDetector
from datasets.shards.clips import ClipStore
from tasks.evaluate.baselines import baseline_video
from tasks.evaluate.clips import MIN_FRAMES, ChosenClip, OpenClip
from tasks.evaluate.leakage import MIN_FACES
from tasks.evaluate.metrics import landmarks_of
from tasks.evaluate.mouths import FOLLOWS_OFFSET, FOLLOWS_Z
from tasks.registry.policy import Policy
from tasks.sync.mouth_audio import MouthAudioScorer

FRAMES, SIDE = 125, 128
SEEDS, SIZES = 20, (4, 8, 30)
NAMES = ("input", "moment", "still", "grey")


def follows(landmarks: np.ndarray, seen: float, speech: np.ndarray) -> bool:
    """Whether lips follow the speech, as in an evaluation."""
    if seen < MIN_FACES:
        return False
    score = MouthAudioScorer().measure(landmarks, speech)
    return abs(score.offset_frames) <= FOLLOWS_OFFSET and score.confidence >= FOLLOWS_Z


def measure(store: ClipStore, pairs: int) -> dict[str, list[bool]]:
    """Name of a kind of video -> for every pair of clips, whether its lips follow."""
    clips = [clip for clip in store.clips if clip.num_frames >= MIN_FRAMES]
    rng = np.random.default_rng(0)
    found: dict[str, list[bool]] = {name: [] for name in ("real", *NAMES)}
    with FaceMeshDetector(max_faces=1) as detector:
        for number, clip in enumerate(clips, 1):
            count = min(clip.num_frames, FRAMES)
            frames = np.array(store.frames(clip.clip_id)[:count])
            chosen = ChosenClip(clip.clip_id, clip.speaker, count, "", count)
            own = store.audio(clip.clip_id)
            opened = OpenClip(chosen, frames, store.landmarks(clip.clip_id)[:count], own, own)
            seen = {
                name: landmarks_of(
                    baseline_video(name, opened, "reconstruction", frames, "frame"),  # type: ignore[arg-type]
                    detector,
                )
                for name in NAMES
            }
            found["real"].append(follows(*seen["input"], own))
            others = [each for each in clips if each.speaker != clip.speaker]
            for index in rng.permutation(len(others))[:pairs]:
                speech = store.audio(others[index].clip_id)
                for name in NAMES:
                    landmarks, share = seen[name]
                    length = min(len(landmarks), others[index].num_frames)
                    found[name].append(follows(landmarks[:length], share, speech))
            print(f"{number}/{len(clips)} clips", file=sys.stderr, flush=True)
    return found


def passes(outcomes: Sequence[bool], size: int, bar: float) -> int:
    """In how many of `SEEDS` evaluations of so many clips the bar would be met."""
    rng = np.random.default_rng(size)
    drawn = [rng.choice(outcomes, size).mean() for _ in range(SEEDS)]
    return sum(bool(share >= bar) for share in drawn)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; exit code 1 if anything that deserves no credit would pass."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--pairs", type=int, default=20, help="foreign speech of each clip")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    bar = next(rule.bar for rule in Policy().rules if rule.metric == "follows")
    assert bar is not None
    found = measure(ClipStore(options.dataset, resolution=SIDE, memory_bytes=0), options.pairs)
    print(
        f"{'video':8s} {'pairs':>6s} {'follows':>8s}  " + "  ".join(f"{n:>2d} clips" for n in SIZES)
    )
    table = {}
    for name, outcomes in found.items():
        opened = {size: passes(outcomes, size, bar) for size in SIZES}
        share = float(np.mean(outcomes))
        table[name] = {"pairs": len(outcomes), "follows": share, "passes": opened}
        texts = "  ".join(f"{opened[size]:2d} of {SEEDS}" for size in SIZES)
        print(f"{name:8s} {len(outcomes):6d} {share:8.1%}  {texts}")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    return int(any(sum(table[name]["passes"].values()) for name in NAMES))  # type: ignore[attr-defined]


if __name__ == "__main__":
    raise SystemExit(main())
