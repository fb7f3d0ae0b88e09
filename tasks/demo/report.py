"""Collects the results of a run into the report's page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.media import FPS, SAMPLES_PER_FRAME, read_audio
from datasets.store.atomic import write_atomic
from datasets.store.local import LocalStore
from tasks.demo.lipsync_score import LipSyncScore
from tasks.demo.plots import loss_curves, mouth_curves, offset_histogram
from tasks.demo.report_page import Report, number_text, render
from tasks.demo.truth_check import TruthCheck
from tasks.evaluate.run import CONTACT_SHEET, PLOTS
from tasks.pages.curves import read_curve
from tasks.pages.funnel import funnel
from tasks.publish.ledger import count_reasons, read_ledger
from tasks.recipes.config import STAGES
from tasks.train.curves import METRICS
from tasks.train.mlflow_runs import EVALUATION_FOLDER

BIG_VIDEO = 24 << 20
"""Bytes; larger videos are left out of the page."""


@dataclass(frozen=True)
class RunFiles:
    """Paths of the parts of a run."""

    dataset: Path
    train: Path
    source_video: Path
    driving_audio: Path
    output_video: Path


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    decisions: Sequence[Mapping[str, Any]],
    truth: TruthCheck | None,
    score: LipSyncScore,
    files: RunFiles,
) -> None:
    """Write `report.html`.

    Args:
        path: the page to write.
        summary: result of `summary.build`.
        decisions: whole decisions of the promotions.
        truth: comparison with the truth, for generated videos.
        score: of the lip-synced video.
        files: paths of everything else.
    """
    rows = read_ledger(LocalStore(files.dataset))
    ingest = summary["ingest"]
    seconds = {name: value for name, value in summary["seconds"].items() if name != "total"}
    evaluation = files.train / EVALUATION_FOLDER
    report = Report(
        title="LatentSync from videos to a talking face",
        lead=f"What one run of the whole workflow did in {summary['seconds']['total'] / 60:.1f} "
        "minutes: it cleaned videos, trained, measured and chose a model, and used it.",
        cards=_cards(summary),
        videos=_videos(files),
        mouth_plot=_mouths(score, files.driving_audio),
        funnel=funnel(
            [("input files", ingest["inputs"]), ("clips and shots looked at", len(rows))],
            ingest["clips_accepted"],
            count_reasons(rows),
        ),
        offsets=_offsets(rows, truth),
        curves=loss_curves(read_curves(files.train)),
        metrics=dict(summary["evaluation"]),
        evaluation_plots=(evaluation / PLOTS).read_bytes(),
        contact_sheet=(evaluation / CONTACT_SHEET).read_bytes(),
        decisions=[dict(decision) for decision in decisions],
        seconds=seconds,
        paths=[(name.replace("_", " "), str(place)) for name, place in vars(files).items()],
    )
    write_atomic(path, render(report))


def _cards(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    ingest, sync, lips = summary["ingest"], summary["syncnet"], summary["lip_sync"]
    cards = [(str(ingest["clips_accepted"]), f"clips from {ingest['inputs']} files")]
    if ingest["offset_within_1"] is not None:
        cards.append((f"{ingest['offset_within_1']:.0%}", "audio offsets within 1 frame of truth"))
    where = f"sync accuracy on {sync['heldout_speakers']} unseen speakers"
    return [
        *cards,
        (f"{sync['accuracy']:.2f}", where),
        (f"{number_text(summary['autoencoder']['psnr_db'])} dB", "autoencoder on unseen clips"),
        (f"z {lips['z']:.1f}", f"mouth follows new speech, {lips['offset_frames']:+.1f} frames"),
        (f"z {lips['input_offset_z']:.1f}", "the same mouth against the input's own speech"),
    ]


def _videos(files: RunFiles) -> list[tuple[str, Path]]:
    videos = [("Input", files.source_video), ("Output, with new speech", files.output_video)]
    # Browsers play H.264 in mp4; a user's own input may be anything.
    return [
        (caption, path)
        for caption, path in videos
        if path.suffix == ".mp4" and path.stat().st_size <= BIG_VIDEO
    ]


def _mouths(score: LipSyncScore, driving: Path) -> bytes:
    loudness = loudness_of(read_audio(driving))
    length = max(len(loudness), len(score.output_opening))
    return mouth_curves(
        np.arange(length) / FPS,
        {
            "loudness of the driving speech": loudness,
            "opening of the output's mouth": score.output_opening,
            "opening of the input's mouth": score.input_opening[:length],
        },
    )


def loudness_of(audio: np.ndarray) -> np.ndarray:
    """Root mean square (t,) of each frame at 25 fps of float32 (samples,) at 16 kHz."""
    frames = len(audio) // SAMPLES_PER_FRAME
    pieces = audio[: frames * SAMPLES_PER_FRAME].reshape(frames, SAMPLES_PER_FRAME)
    return np.sqrt((pieces**2).mean(1))


def _offsets(rows: Sequence[Mapping[str, Any]], truth: TruthCheck | None) -> bytes:
    if truth is not None and truth.offsets:
        known, found = zip(*truth.offsets, strict=True)
        return offset_histogram(found, known)
    accepted = [row["av_offset_frames"] for row in rows if row["verdict"] == "accepted"]
    return offset_histogram(accepted)


def read_curves(train: Path) -> dict[str, list[dict[str, float]]]:
    """Points of every stage that was trained, by its name."""
    curves = {stage: read_curve(train / stage / METRICS) for stage in STAGES}
    return {stage: points for stage, points in curves.items() if points}
