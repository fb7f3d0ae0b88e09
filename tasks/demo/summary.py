"""The demo's results, as `summary.json` and as text for the terminal."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from datasets.store.atomic import write_atomic
from tasks.demo.report_page import measured_by, number_text
from tasks.registry.metric import Metric

KEYS: dict[str, tuple[str, ...]] = {
    "ingest": (
        "inputs",
        "clips_accepted",
        "clips_rejected",
        "offset_within_1",
        "cut_error_frames_max",
    ),
    "syncnet": ("accuracy", "loss", "heldout_speakers"),
    "autoencoder": ("psnr_db",),
    "lip_sync": ("offset_frames", "z", "input_offset_z"),
    "evaluation": (),
    "registry": ("candidate", "champion", "decisions"),
    "seconds": (),
}
"""The summary's keys, which other programs may rely on. `evaluation` has one entry per metric with
value, label, n and, if it has no value, reason; `seconds` one per stage and `total`."""
WIDTH = 88


class IngestSummary(TypedDict):
    """The results of ingestion."""

    inputs: int
    clips_accepted: int
    clips_rejected: int
    offset_within_1: float | None
    """Share of the clips; None if the truth is not known."""
    cut_error_frames_max: float | None


class SyncSummary(TypedDict):
    """How well the sync network separates pairs."""

    accuracy: float
    loss: float
    heldout_speakers: int


class AutoencoderSummary(TypedDict):
    """How well the autoencoder reconstructs frames."""

    psnr_db: float | None


class LipSyncSummary(TypedDict):
    """As `LipSyncScore`."""

    offset_frames: float
    z: float
    input_offset_z: float


class DecisionSummary(TypedDict):
    """A promotion."""

    candidate: int
    champion_before: int | None
    verdict: str
    reasons: list[str]


class RegistrySummary(TypedDict):
    """The registry's final state."""

    candidate: int | None
    champion: int | None
    decisions: list[DecisionSummary]


class Summary(TypedDict):
    """Content of `summary.json`."""

    ingest: IngestSummary
    syncnet: SyncSummary
    autoencoder: AutoencoderSummary
    lip_sync: LipSyncSummary
    evaluation: dict[str, Metric]
    registry: RegistrySummary
    seconds: dict[str, float]
    """Seconds by stage, and `total`."""


def build(**parts: Mapping[str, object]) -> Summary:
    """Build the summary from its parts, in the fixed order and with only the fixed keys.

    Raises:
        ValueError: a part or a key is missing.
    """
    if set(parts) != set(KEYS):
        raise ValueError(f"a summary has the parts {sorted(KEYS)}, got {sorted(parts)}")
    summary: dict[str, Mapping[str, object]] = {}
    for name, keys in KEYS.items():
        missing = [key for key in keys if key not in parts[name]]
        if missing:
            raise ValueError(f"the summary's part {name} does not have {', '.join(missing)}")
        summary[name] = {key: parts[name][key] for key in keys} if keys else parts[name]
    return cast(Summary, summary)


def write_summary(path: Path, summary: Summary) -> None:
    """Write the summary as JSON, atomically."""
    write_atomic(path, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def as_text(summary: Summary, reasons: dict[str, int], outputs: list[tuple[str, str]]) -> str:
    """The summary for the terminal.

    Args:
        summary: from `build`.
        reasons: how many clips were refused for which reason.
        outputs: (description, path) of everything to look at.
    """
    ingest, sync = summary["ingest"], summary["syncnet"]
    lines = [
        "",
        "=" * WIDTH,
        f"Ingestion    {ingest['inputs']} files: {ingest['clips_accepted']} clips accepted, "
        f"{ingest['clips_rejected']} refused",
    ]
    lines += [f"               {count:4d}  {reason}" for reason, count in sorted(reasons.items())]
    if ingest["offset_within_1"] is not None:
        lines.append(
            f"             offset within 1 frame of the truth on {ingest['offset_within_1']:.1%}, "
            f"cuts within {number_text(ingest['cut_error_frames_max'])} frames"
        )
    where = f"{sync['heldout_speakers']} held-out speakers"
    lines += [
        f"Sync network accuracy {sync['accuracy']:.3f}, loss {sync['loss']:.3f} on {where}",
        f"Autoencoder  PSNR {number_text(summary['autoencoder']['psnr_db'])} dB on unseen clips",
        "Evaluation",
        *_metric_lines(summary["evaluation"]),
        f"Lip-sync     offset {number_text(summary['lip_sync']['offset_frames'])} frames, "
        f"z {number_text(summary['lip_sync']['z'])} against the driving speech, "
        f"{number_text(summary['lip_sync']['input_offset_z'])} against the input's own",
        f"Registry     candidate: version {summary['registry']['candidate']}, champion: version "
        f"{summary['registry']['champion']}",
    ]
    for decision in summary["registry"]["decisions"]:
        text = f"version {decision['candidate']} {decision['verdict']}: " + "; ".join(
            decision["reasons"]
        )
        lines += textwrap.wrap(text, WIDTH, initial_indent=" " * 13, subsequent_indent=" " * 15)
    seconds = summary["seconds"]
    parts = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items() if name != "total")
    lines += textwrap.wrap(
        f"Time         {seconds['total']:.0f} s: {parts}", WIDTH, subsequent_indent=" " * 13
    )
    lines += ["", *[f"{what:24s} {where}" for what, where in outputs], "=" * WIDTH]
    return "\n".join(lines)


def _metric_lines(metrics: dict[str, Metric]) -> list[str]:
    return [
        f"  {name:18s} {number_text(entry['value']):>9s}  n {entry['n']:<5d} {measured_by(entry)}"
        for name, entry in metrics.items()
    ]
