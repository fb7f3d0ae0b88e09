"""The demo's own pieces, besides the flows that it runs one after another."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from datasets.errors import UserError
from datasets.media import SAMPLE_RATE, write_flac
from datasets.sample.make import make_driving_speech
from datasets.shards.clips import Clip, ClipStore
from datasets.store.local import LocalStore
from tasks.demo.lipsync_score import LipSyncScore, score_lip_sync
from tasks.demo.report import RunFiles
from tasks.demo.summary import Summary, build
from tasks.demo.truth_check import TruthCheck, check_truth, read_truths
from tasks.publish.ledger import read_ledger
from tasks.recipes.config import Recipe
from tasks.registry.versions import CANDIDATE, CHAMPION, Registry
from tasks.weights.bundle import bundle_digest

WORSE_SHARE = 0.02
"""Share of the U-Net's steps for the worse model."""


@dataclass(frozen=True)
class Material:
    """The material for the champion to work on."""

    source: Path
    """Video of a speaker that was not trained on."""
    driving: Path
    """Speech that was not trained on."""
    speaker: str


def worse(recipe: Recipe) -> list[str]:
    """Overrides that leave the U-Net all but untrained."""
    changes: list[str] = []
    for name in ("stage1", "stage2"):
        if (stage := recipe.stage(name)) is not None:
            steps = max(1, round(WORSE_SHARE * stage.steps))
            # Nobody looks at its sample videos, which take longer than its training.
            changes += [f"{name}.steps={steps}", f"{name}.sample_every=0"]
    return changes


def digest_of(trained: Path) -> str:
    """Digest of the bundle that a training left."""
    return bundle_digest(trained / "bundle")


def choose_material(
    dataset: Path, videos: Path, output: Path, generated: bool, seconds: float
) -> Material:
    """A video of the test split and speech for it.

    Args:
        dataset: what refresh-dataset wrote.
        videos: the folder that it was made from.
        output: file for the speech.
        generated: whether speech by a voice that no video has can be generated; otherwise
            another speaker's clip is used.
        seconds: length of the speech.

    Raises:
        UserError: the source videos of all accepted clips are gone.
    """
    everything = ClipStore(dataset, memory_bytes=0).clips
    clip = _source_clip(dataset, everything, videos)
    if generated:
        driving = output / "driving_speech.wav"
        if not driving.is_file():
            make_driving_speech(driving, seconds)
    else:
        driving = output / "driving_speech.flac"
        audio = _foreign_speech(dataset, everything, clip)[: round(seconds * SAMPLE_RATE)]
        write_flac(driving, audio, SAMPLE_RATE)
    return Material(videos / clip.path, driving, clip.speaker)


def _source_clip(dataset: Path, clips: Sequence[Clip], videos: Path) -> Clip:
    """The longest test clip from a video with one person and no cuts, if there is one."""
    rows: dict[str, int] = {}
    for row in read_ledger(LocalStore(dataset)):
        rows[row["path"]] = rows.get(row["path"], 0) + 1
    there = [clip for clip in clips if (videos / clip.path).is_file()]
    if not there:
        raise UserError(f"none of the videos that {dataset} was made from is in {videos} any more")
    return min(
        there,
        key=lambda clip: (clip.split != "test", rows[clip.path], -clip.num_frames, clip.clip_id),
    )


def _foreign_speech(dataset: Path, clips: Sequence[Clip], clip: Clip) -> np.ndarray:
    """Audio of the longest other clip, by another speaker if there is one."""
    others = [each for each in clips if each.clip_id != clip.clip_id] or [clip]
    longest = min(
        others, key=lambda each: (each.speaker == clip.speaker, -each.num_frames, each.clip_id)
    )
    return ClipStore(dataset, memory_bytes=0).audio(longest.clip_id)


class Measurement(TypedDict):
    """Measurements of how well it worked, as JSON."""

    truth: dict[str, Any] | None
    """Fields of `TruthCheck`; None if no truth is known."""
    score: dict[str, Any]
    """Fields of `LipSyncScore`, arrays as lists."""


def measure(videos: Path, files: RunFiles) -> Measurement:
    """The truth check, if there is a truth, and the score of the output, as JSON."""
    truths = read_truths(videos)
    splits = {clip.clip_id: clip.split for clip in ClipStore(files.dataset, memory_bytes=0).clips}
    truth = check_truth(read_ledger(LocalStore(files.dataset)), truths, splits) if truths else None
    score = score_lip_sync(files.output_video, files.driving_audio, files.source_video)
    openings = ("output_opening", "input_opening")
    return {
        "truth": asdict(truth) if truth else None,
        "score": {
            name: value.round(5).tolist() if name in openings else value
            for name, value in vars(score).items()
        },
    }


def restore_measurement(content: Measurement) -> tuple[TruthCheck | None, LipSyncScore]:
    """Turn the result of `measure` back into objects."""
    truth = content["truth"]
    score: dict[str, Any] = {
        name: np.array(value) if isinstance(value, list) else value
        for name, value in content["score"].items()
    }
    return (TruthCheck(**truth) if truth else None), LipSyncScore(**score)


def summarise(
    ingested: Mapping[str, Any],
    trained: Mapping[str, Any],
    decisions: Sequence[Mapping[str, Any]],
    truth: TruthCheck | None,
    score: LipSyncScore,
    seconds: Mapping[str, float],
    uri: str,
) -> Summary:
    """The summary.

    Args:
        ingested: result of refresh-dataset.
        trained: result of the first train-latentsync, with its `evaluation`.
        decisions: of the promotions.
        truth: comparison with the truth, for generated videos.
        score: of the output.
        seconds: of each step.
        uri: of the MLflow store.
    """
    registry = Registry(uri)
    model = decisions[0]["model"]
    stages = {name: value for name, value in trained["seconds"].items() if name != "total"}
    stages["train_other"] = max(0.0, seconds["train"] - sum(stages.values()))
    spent: dict[str, float] = {}
    for name, value in seconds.items():
        spent |= stages if name == "train" else {name: value}
    metrics = trained["metrics"]
    return build(
        ingest={
            "inputs": ingested["inputs"],
            "clips_accepted": ingested["clips_accepted"],
            "clips_rejected": ingested["clips_rejected"],
            "offset_within_1": truth.offset_within_1 if truth else None,
            "cut_error_frames_max": truth.cut_error_frames_max if truth else None,
        },
        syncnet=metrics["syncnet"],
        autoencoder=metrics.get("autoencoder", {"psnr_db": None}),
        lip_sync={
            "offset_frames": score.offset_frames,
            "z": score.z,
            "input_offset_z": score.input_offset_z,
        },
        evaluation=trained["evaluation"],
        registry={
            "candidate": registry.alias(model, CANDIDATE),
            "champion": registry.alias(model, CHAMPION),
            "decisions": [
                {
                    "candidate": each["candidate"],
                    "champion_before": each["champion_before"],
                    "verdict": each["verdict"],
                    "reasons": list(each["reasons"]),
                }
                for each in decisions
            ],
        },
        seconds={**spent, "total": sum(seconds.values())},
    )


def check_claims(truth: TruthCheck | None) -> list[str]:
    """Sentences about requirements on ingestion that are not met."""
    if truth is None:
        return []
    faults = []
    if truth.tracks_spanning_cuts:
        faults.append(f"{truth.tracks_spanning_cuts} tracks span a cut")
    if truth.speakers_shared:
        faults.append(f"speakers in both train and test: {', '.join(truth.speakers_shared)}")
    if truth.cuts_invented:
        faults.append(f"{truth.cuts_invented} cuts were found that do not exist")
    return faults
