"""The ledger of generated videos compared with the truth written next to them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from datasets.media import FPS

EDGE = 2.0
"""Frames at 25 fps that a track may reach beyond a cut before it counts as spanning it."""


class Truth(TypedDict):
    """The known truth about a generated video; its file has more."""

    offset_frames: float
    """Delay of the audio, frames at 25 fps."""
    cuts_s: list[float]


@dataclass(frozen=True)
class TruthCheck:
    """How ingestion did on videos about which everything is known."""

    files: int
    """Number of videos with a truth next to them."""
    clips: int
    """Number of accepted clips from these videos."""
    offset_within_1: float | None
    """Share of these clips whose offset was found within one frame; None without clips."""
    cut_error_frames_max: float | None
    """Largest distance of a true cut from the nearest start of a shot, frames at 25 fps; None
    if no decoded video has a cut."""
    cuts_invented: int
    """Starts of shots farther than `EDGE` frames from every true cut."""
    tracks_spanning_cuts: int
    """Rows whose time span has a true cut inside."""
    speakers_shared: tuple[str, ...]
    """Speakers in both train and test; there must not be any."""
    offsets: tuple[tuple[float, float], ...]
    """(true, found) for every accepted clip."""


def read_truths(folder: Path) -> dict[str, Truth]:
    """The truths of all videos below a folder that have one, by relative path."""
    truths = {}
    for path in sorted(folder.rglob("*.mp4")):
        beside = path.with_suffix(".json")
        if beside.is_file():
            truths[path.relative_to(folder).as_posix()] = json.loads(
                beside.read_text(encoding="utf-8")
            )
    return truths


def check_truth(
    rows: Sequence[Mapping[str, Any]],
    truths: Mapping[str, Truth],
    splits: Mapping[str, str],
) -> TruthCheck:
    """Compare the ledger with the truth.

    Args:
        rows: of the ledger.
        truths: path -> truth.
        splits: clip_id -> train or test, for the clips in the shards.
    """
    known = [row for row in rows if row["path"] in truths]
    accepted = [row for row in known if row["verdict"] == "accepted"]
    offsets = tuple(
        (float(truths[row["path"]]["offset_frames"]), float(row["av_offset_frames"]))
        for row in accepted
    )
    cuts = {path: found_cuts(known, path) for path in {row["path"] for row in known}}
    decoded = {row["path"] for row in known if row["shot"] >= 0}
    errors = [
        FPS * min((abs(cut - found) for found in cuts[path]), default=np.inf)
        for path in sorted(decoded)
        for cut in truths[path]["cuts_s"]
    ]
    invented = [
        found
        for path in sorted(decoded)
        for found in cuts[path]
        if all(FPS * abs(found - cut) > EDGE for cut in truths[path]["cuts_s"])
    ]
    speakers: dict[str, set[str]] = {"train": set(), "test": set()}
    for row in accepted:
        if row["clip_id"] in splits:
            speakers[splits[row["clip_id"]]].add(row["speaker"])
    within = [abs(true - found) <= 1 for true, found in offsets]
    return TruthCheck(
        files=len(truths),
        clips=len(accepted),
        offset_within_1=float(np.mean(within)) if within else None,
        cut_error_frames_max=float(max(errors)) if errors else None,
        cuts_invented=len(invented),
        tracks_spanning_cuts=sum(_spans(row, truths[row["path"]]) for row in known),
        speakers_shared=tuple(sorted(speakers["train"] & speakers["test"])),
        offsets=offsets,
    )


def found_cuts(rows: Sequence[Mapping[str, Any]], path: str) -> list[float]:
    """Start of each shot but the first, seconds, as far as the rows show it."""
    starts: dict[int, float] = {}
    for row in rows:
        if row["path"] == path and row["shot"] > 0:
            starts[row["shot"]] = min(row["start_s"], starts.get(row["shot"], np.inf))
    return [starts[shot] for shot in sorted(starts)]


def _spans(row: Mapping[str, Any], truth: Truth) -> bool:
    """Whether a true cut lies inside the row's time span."""
    return any(
        row["start_s"] + EDGE / FPS < cut < row["end_s"] - EDGE / FPS for cut in truth["cuts_s"]
    )
