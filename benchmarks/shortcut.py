"""Does an open pose channel let a network copy lips instead of hearing, and does a narrow one not?

    python -m benchmarks.shortcut DATASET            a minute on two cores
    python -m benchmarks.shortcut DATASET --strong   also with as much sound as `tiny` hears

SyncDiff's claim (arXiv 2503.13371) without pictures, weights or a GPU. A frame is six principal
numbers of the outer lips and six of the upper face. A small network predicts the lips by diffusion
from the frame's own upper face, lips and face of another moment, sound, and the frame before
through a bottleneck, as our variant's U-Net does. Then lips of unseen speakers are generated with
another clip's speech, as a chain.

`r` is the correlation of the generated opening of the mouth with that of the mouth that spoke.
`follows audio` and `follows pose` say how far the opening goes with the one that was heard, and
with the one that the pose frame of a random other moment shows. Exit code 0 where the shortcut is
there and the narrow bottleneck closes it.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.faces.points import FACE_OVAL, OUTER_LIPS, STEADY
from datasets.shards.clips import ClipStore
from models.audio.mel_tokens import MelTokens
from models.latentsync.diffusion import TRAIN_STEPS, make_scheduler

LIPS, FACE = 6, 6
"""Principal numbers of lips and of the upper face."""
UPPER = (*STEADY, *FACE_OVAL[:2], *FACE_OVAL[-2:])
"""24 points that hardly move with speech."""
TOP, BOTTOM = OUTER_LIPS.index(0), OUTER_LIPS.index(17)
STILL = 1e-6
"""Least deviation that is a movement, as a share of the face's side."""
CHAIN_FRAMES = 66
AWAY = 16
BATCH, WIDTH, RATE = 64, 160, 2e-3
POWER = 1 / 2
"""Timesteps are T * u^POWER with u uniform: they favour noise."""
STEPS, GUIDANCE, DROPPED = 4, 1.5, 0.1
ARMS = ("none", "vector 2", "vector 8", "full")
SEEDS = 3


@dataclass(frozen=True)
class Clips:
    """Clips of a split, each in principal numbers."""

    lips: list[Tensor]
    """(t, 6)."""
    face: list[Tensor]
    """(t, 6)."""
    sound: list[Tensor]
    """(t, tokens, 80)."""


@dataclass(frozen=True)
class Basis:
    """Principal directions of points within clips, from the training clips."""

    mean: np.ndarray
    directions: np.ndarray
    """(numbers, points * 2), scaled so that numbers have unit deviation within clips."""
    back: np.ndarray
    share: float
    """Of the variance within clips."""

    @classmethod
    def of(cls, clips: Sequence[np.ndarray], numbers: int) -> "Basis":
        within = np.concatenate([each - each.mean(0) for each in clips])
        _, values, rows = np.linalg.svd(within, full_matrices=False)
        deviation = values[:numbers, None] / np.sqrt(len(within))
        # Where nothing moves there is no number, rather than rounding blown up.
        moves = deviation > STILL
        directions = np.where(moves, rows[:numbers] / np.maximum(deviation, STILL), 0.0)
        share = float((values[:numbers] ** 2).sum() / (values**2).sum()) if values[0] else 1.0
        mean = np.concatenate(clips).mean(0)
        return cls(mean, directions, rows[:numbers] * deviation, share)

    def numbers(self, points: np.ndarray) -> Tensor:
        return torch.from_numpy((points - self.mean) @ self.directions.T).float()


@dataclass(frozen=True)
class Study:
    """The data of all arms."""

    train: Clips
    test: Clips
    lips: Basis
    face: Basis

    def opening(self, lips: Tensor) -> Tensor:
        """How far the mouth is open, in deviations within clips: (..., 6) -> (...)."""
        rows = torch.from_numpy(self.lips.back).float()
        gap = rows[:, 2 * BOTTOM + 1] - rows[:, 2 * TOP + 1]
        return lips @ (gap / gap.norm())


def read(dataset: Path, tokens: int) -> Study:
    """The dataset's landmarks and sound.

    Args:
        tokens: mel tokens that a frame hears.
    """
    encoder = MelTokens()
    points: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    sound: dict[str, list[Tensor]] = {}
    for split in ("train", "test"):
        store = ClipStore(dataset, split, memory_bytes=0)
        for clip in store.clips:
            landmarks = store.landmarks(clip.clip_id).astype(np.float64) / store.resolution
            both = [
                landmarks[:, list(which)].reshape(len(landmarks), -1)
                for which in (OUTER_LIPS, UPPER)
            ]
            points.setdefault(split, []).append((both[0], both[1]))
            heard = encoder.encode(store.audio(clip.clip_id), len(landmarks))[..., :80]
            middle = heard.shape[1] // 2
            reach = slice(middle - tokens // 2, middle + tokens // 2 + 1)
            sound.setdefault(split, []).append(heard[:, reach] / encoder.gain)
    lips = Basis.of([each[0] for each in points["train"]], LIPS)
    face = Basis.of([each[1] for each in points["train"]], FACE)
    made = {
        split: Clips(
            [lips.numbers(each[0]) for each in points[split]],
            [face.numbers(each[1]) for each in points[split]],
            sound[split],
        )
        for split in points
    }
    return Study(made["train"], made["test"], lips, face)


class Bottleneck(nn.Module):
    """The frame before, lips and face, through an arm's bottleneck."""

    def __init__(self, arm: str) -> None:
        super().__init__()
        self.arm = arm
        numbers = {"none": 0, "full": LIPS + FACE}
        self.width = numbers[arm] if arm in numbers else int(arm.split()[1])
        self.layers = nn.Sequential(
            nn.Linear(LIPS + FACE, 64), nn.SiLU(), nn.Linear(64, max(1, self.width)), nn.Tanh()
        )

    def forward(self, pose: Tensor) -> Tensor:
        if self.arm == "none":
            return pose[:, :0]
        return pose if self.arm == "full" else self.layers(pose)


class Predictor(nn.Module):
    """Clean lips from noisy ones and everything that a frame is shown."""

    def __init__(self, arm: str, heard: int) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(arm)
        inputs = LIPS + FACE + LIPS + FACE + heard + 2 + self.bottleneck.width
        self.layers = nn.Sequential(
            nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(),
            nn.Linear(WIDTH, LIPS),
        )  # fmt: skip
        self.scheduler = make_scheduler("sample")

    def forward(self, noisy: Tensor, time: Tensor, shown: "Shown") -> Tensor:
        level = self.scheduler.alphas_cumprod[time][:, None]
        parts = [noisy, level.sqrt(), (1 - level).sqrt(), shown.face, shown.identity, shown.sound]
        return self.layers(torch.cat([*parts, self.bottleneck(shown.pose)], dim=1))

    @torch.no_grad()
    def sample(self, shown: "Shown", noise: Tensor) -> Tensor:
        """Lips (n, 6) by DDIM with guidance on the sound."""
        scheduler = make_scheduler("sample")
        scheduler.set_timesteps(STEPS)
        lips = noise
        silent = Shown(shown.face, shown.identity, torch.zeros_like(shown.sound), shown.pose)
        for step in scheduler.timesteps:
            time = step.expand(len(lips))
            without = self(lips, time, silent)
            made = without + GUIDANCE * (self(lips, time, shown) - without)
            lips = scheduler.step(made, step, lips).prev_sample
        return lips


@dataclass(frozen=True)
class Shown:
    """What the network sees and hears of some frames."""

    face: Tensor
    """(n, 6)."""
    identity: Tensor
    """(n, 12) another moment."""
    sound: Tensor
    """(n, tokens * 80)."""
    pose: Tensor
    """(n, 12) the frame before."""


def train(study: Study, arm: str, steps: int, seed: int) -> tuple[Predictor, float]:
    """An arm's network, and its loss over the last tenth of the steps."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    clips = study.train
    network = Predictor(arm, clips.sound[0].flatten(1).shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    lengths = np.array([len(each) for each in clips.lips])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    lips, face = torch.cat(clips.lips), torch.cat(clips.face)
    whole, sound = torch.cat([lips, face], dim=1), torch.cat(clips.sound).flatten(1)
    losses = []
    for _ in range(steps):
        which = rng.choice(len(lengths), BATCH, p=lengths / lengths.sum())
        at = rng.integers(1, lengths[which])
        away = (at + rng.integers(AWAY, lengths[which] - AWAY)) % lengths[which]
        here = torch.from_numpy(starts[which] + at)
        heard = sound[here] * torch.from_numpy(rng.random((BATCH, 1)) >= DROPPED).float()
        shown = Shown(
            face[here], whole[torch.from_numpy(starts[which] + away)], heard, whole[here - 1]
        )
        time = torch.from_numpy((TRAIN_STEPS * rng.random(BATCH) ** POWER).astype(np.int64))
        noisy = network.scheduler.add_noise(lips[here], torch.randn(BATCH, LIPS), time)
        loss = F.mse_loss(network(noisy, time, shown), lips[here])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return network.eval(), float(np.mean(losses[-max(1, steps // 10) :]))


def chain(study: Study, network: Predictor, seed: int) -> float:
    """Mean correlation of generated openings with those of the mouths that spoke, in chains."""
    clips, found = study.test, []
    noise = torch.randn(1, LIPS, generator=torch.Generator().manual_seed(seed))
    for number, face in enumerate(clips.face):
        other = (number + 1) % len(clips.face)
        frames = min(CHAIN_FRAMES, len(face), len(clips.lips[other]))
        identity = torch.cat([clips.lips[number][-1:], face[-1:]], dim=1)
        sound, pose, made = clips.sound[other].flatten(1), identity, []
        for frame in range(frames):
            here = slice(frame, frame + 1)
            lips = network.sample(Shown(face[here], identity, sound[here], pose), noise)
            pose = torch.cat([lips, face[here]], dim=1)
            made.append(lips)
        pair = [study.opening(each) for each in (torch.cat(made), clips.lips[other][:frames])]
        found.append(float(torch.corrcoef(torch.stack(pair))[0, 1]))
    return float(np.mean(found))


def follow(study: Study, network: Predictor, seed: int) -> tuple[float, float]:
    """How far the opening goes with the one that was heard, and with that of a pose frame, and an
    upper face, of a random other moment; 1 is all the way."""
    clips, rng = study.test, np.random.default_rng(seed)
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for lips, face, sound in zip(clips.lips, clips.face, clips.sound, strict=True):
        at, moment, away = (torch.from_numpy(rng.integers(len(lips), size=120)) for _ in range(3))
        whole = torch.cat([lips, face], dim=1)
        shown = Shown(face[moment], whole[away], sound[at].flatten(1), whole[moment])
        generator = torch.Generator().manual_seed(seed)
        made = network.sample(shown, torch.randn(120, LIPS, generator=generator))
        three = [study.opening(each) for each in (made, lips[at], lips[moment])]
        columns.append(tuple(each - each.mean() for each in three))  # type: ignore[arg-type]
    opened, heard, seen = (torch.cat(each).double().numpy() for each in zip(*columns, strict=True))
    both = np.stack([heard, seen], axis=1)
    audio, pose = np.linalg.lstsq(both, opened, rcond=None)[0]
    return float(audio), float(pose)


@dataclass(frozen=True)
class Row:
    """What an arm showed, means over its seeds."""

    arm: str
    r: float
    follows_audio: float
    follows_pose: float
    loss: float
    r_spread: float
    """Largest r less smallest."""


def run_arm(study: Study, arm: str, steps: int, seeds: int) -> Row:
    found = []
    for seed in range(seeds):
        network, loss = train(study, arm, steps, seed)
        found.append((chain(study, network, seed), *follow(study, network, seed), loss))
    r, audio, pose, loss = (float(each) for each in np.mean(found, axis=0))
    return Row(arm, r, audio, pose, loss, float(np.ptp([each[0] for each in found])))


def broken_bars(rows: Sequence[Row]) -> list[str]:
    """The bars of the weak sound that do not hold, as sentences."""
    none, two, eight, full = (next(row for row in rows if row.arm == arm) for arm in ARMS)
    bars = {
        "an open channel costs at least 0.08 of sync": none.r - full.r >= 0.08,
        "an open channel is copied, by at least 0.15": (
            full.follows_pose - none.follows_pose >= 0.15
        ),
        "two numbers cost at most 0.03 of sync": two.r >= none.r - 0.03,
        "two numbers are not copied, by at most 0.06": (
            two.follows_pose <= none.follows_pose + 0.06
        ),
        "the open channel's loss is at most 0.85 of none's": full.loss <= 0.85 * none.loss,
        "sync falls from 2 numbers over 8 to all": two.r > eight.r > full.r,
    }
    return [text for text, holds in bars.items() if not holds]


def table(rows: Sequence[Row]) -> str:
    """Rows as Markdown."""
    lines = ["| arm | r | follows audio / pose | loss |", "|---|---|---|---|"]
    lines += [
        f"| {row.arm} | {row.r:.2f} ({row.r_spread:.2f}) | {row.follows_audio:.2f} / "
        f"{row.follows_pose:.2f} | {row.loss:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shortcut", description=__doc__)
    parser.add_argument("dataset", type=Path, help="such as the demo's, runs/demo/dataset")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--strong", action="store_true", help="also with 7 mel tokens, 900 steps")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(argv)
    kinds: dict[str, tuple[int, int]] = {"weak sound: 1 mel token, 250 steps": (1, 250)}
    if options.strong:
        kinds["strong sound: 7 mel tokens, 900 steps"] = (7, 900)
    content: dict[str, Any] = {}
    broken: list[str] = []
    for name, (tokens, steps) in kinds.items():
        study = read(options.dataset, tokens)
        frames = sum(len(each) for each in study.train.lips)
        rows = [run_arm(study, arm, steps, options.seeds) for arm in ARMS]
        print(
            f"{name}; {len(study.train.lips)} clips, {frames} frames, {len(study.test.lips)} clips "
            f"of unseen speakers, means of {options.seeds} seeds (range of r); the numbers hold "
            f"{study.lips.share:.0%} of the lips' variance within clips, {study.face.share:.0%} of "
            f"the face's\n\n{table(rows)}\n"
        )
        content[name] = [asdict(row) for row in rows]
        broken = broken or (broken_bars(rows) if tokens == 1 else [])
    for text in broken:
        print(f"does not hold: {text}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"arms": content, "broken": broken}, indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
