"""The content of a data card: counts, hours, speakers, the funnel, distributions, changes.

    card = data_card(rows, index, changes)
    files = card_files(card)        # tasks.publish.card_page: card/card.html, card/README.md

Everything is counted from the ledger's rows, and the same rows in any order give the same
card. Nothing in it depends on when or where it is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from datasets.media import FPS
from datasets.shards.records import COLUMNS, Verdict
from tasks.publish.card_scores import Distribution, distributions

TOP_SPEAKERS = 20
SHOWN_NAMES = 20
"""Most files named in the list of changes; the others are only counted."""
UNUSED = ("detail", "shot", "track", "start_s", "end_s")
TEXTS = ("path", "clip_id", "speaker", "scorer", "verdict", "reason", "stage", "split")
NOT_STATED = "licence not stated: whoever passes the dataset on must know the rights to the videos"

SOURCES = {
    "sample": "generated talking heads made by this project; the portrait is scikit-image's "
    "astronaut(), public domain",
    "folder": f"the user's own files; {NOT_STATED}",
    "urls": f"files from the addresses that were given; {NOT_STATED}",
    "hdtf": "HDTF (Zhang et al., CVPR 2021): its lists of videos, intervals and crops are "
    "CC BY 4.0; the footage is YouTube video of third parties, licence not stated",
    "voxceleb2": "VoxCeleb2 (Chung, Nagrani, Zisserman, 2018): the footage is YouTube video of "
    "third parties; licence not stated",
}
"""What is known about the licence of each source."""


class Changes(TypedDict, total=False):
    """What differs from the previous version; a missing key means no change."""

    previous: str
    """Digest of the previous version; empty for the first."""
    new: int | Sequence[str]
    """Input files that were not there before."""
    changed: int | Sequence[str]
    """Input files whose content has changed."""
    gone: int | Sequence[str]
    """Input files that the source no longer has and whose clips are kept."""
    forgotten: int | Sequence[str]
    """Input files that the source no longer has and that were dropped with their clips."""
    names: Mapping[str, Sequence[str]]
    """The first few files of each kind above that is given as a number."""
    relabelled: Mapping[str, int]
    """Effects of other thresholds as phrases, with the number of clips."""


CHANGES = {
    "new": "new input files",
    "changed": "changed input files",
    "gone": "input files that are gone from the source, their clips kept",
    "forgotten": "input files that are gone from the source, dropped with their clips",
}


@dataclass(frozen=True)
class Change:
    """One kind of change."""

    what: str
    count: int
    names: tuple[str, ...] = ()
    """Paths of the first few files."""


@dataclass(frozen=True)
class SplitLine:
    """A split, or all of them."""

    name: str
    clips: int
    frames: int | None
    """Number of frames at 25 fps; None if the rows do not say which split they are in."""
    speakers: int | None
    shards: int
    bytes: int


@dataclass(frozen=True)
class ReasonLine:
    """Rows refused for one reason at one step."""

    reason: str
    stage: str
    rows: int
    frames: int
    """Number of frames at 25 fps; 0 for files that could not be read."""


@dataclass(frozen=True)
class SpeakerLine:
    """A speaker's accepted clips."""

    speaker: str
    clips: int
    frames: int


@dataclass(frozen=True)
class DataCard:
    """The whole content of a card."""

    digest: str
    facts: dict[str, str]
    """Facts about every sample: resolution, fps, sample rate, scorer."""
    inputs: int
    """Input files."""
    clips_found: int
    """Clips that were cut, accepted or not."""
    clips_accepted: int
    frames_accepted: int
    speakers: int
    """Number of speakers with an accepted clip."""
    splits: tuple[SplitLine, ...]
    shared_speakers: int | None
    """Speakers in more than one split, which should be 0; None if rows have no split."""
    loose_files: int
    """Input files not in a folder that names a speaker: each counts as a speaker."""
    test_fraction: float | None
    """Share of the speakers to keep for testing; None if unknown."""
    reasons: tuple[ReasonLine, ...]
    """The most frequent first."""
    distributions: tuple[Distribution, ...]
    top_speakers: tuple[SpeakerLine, ...]
    """The speakers with the most hours."""
    thresholds: dict[str, str]
    sources: tuple[tuple[str, str], ...]
    """Names of the sources, and what is known about their licences."""
    previous: str
    """Digest of the previous version; empty for the first."""
    changes: tuple[Change, ...]


def data_card(
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    index: Mapping[str, Any],
    changes: Changes | Mapping[str, Any] | None = None,
) -> DataCard:
    """Count the content of the card.

    Args:
        rows: judged rows of the ledger, with `datasets.shards.records.COLUMNS`. If they also have
            `split`, hours and speakers are given for each split. Other columns with numbers are
            shown as scores.
        index: content of `index.json`. `thresholds` (name -> value) and `source` (name or list
            of names) are shown if present, as are `loose_files` (how many are not in a
            folder that names a speaker) and, if there is no test split, `test_fraction`.
        changes: changes since the previous version, see `Changes`.

    Raises:
        ValueError: `changes` has an unknown key.
    """
    frame = _frame(rows)
    clips = frame[frame["clip_id"] != ""]
    good = frame[frame["accepted"]]
    thresholds = dict(index.get("thresholds") or {})
    known = dict(changes or {})
    return DataCard(
        digest=str(index["digest"]),
        facts=_facts(index, good),
        inputs=int(frame["path"].nunique()),
        clips_found=len(clips),
        clips_accepted=len(good),
        frames_accepted=int(good["num_frames"].sum()),
        speakers=int(good["speaker"].nunique()),
        splits=_splits(good, index),
        shared_speakers=_shared_speakers(good),
        loose_files=int(index.get("loose_files", 0)),
        test_fraction=index.get("test_fraction"),
        reasons=_reasons(frame[~frame["accepted"]]),
        distributions=distributions(clips, thresholds),
        top_speakers=_top_speakers(good),
        thresholds={name: _value(value) for name, value in sorted(thresholds.items())},
        sources=_sources(index.get("source")),
        previous=str(known.pop("previous", "")),
        changes=_changes(known),
    )


def _frame(rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """The columns that the card is made from, with `accepted`."""
    if isinstance(rows, pd.DataFrame):
        frame = rows[[name for name in rows.columns if name not in UNUSED]].copy(deep=False)
    else:
        names = dict.fromkeys((*COLUMNS, *(rows[0] if rows else ())))
        columns = {name: _column(name, rows) for name in names if name not in UNUSED}
        frame = pd.DataFrame(columns, dtype=None if rows else object)
    for name in TEXTS:
        if name in frame:
            frame[name] = frame[name].astype(object)
    frame["num_frames"] = frame["num_frames"].astype(np.int64)
    frame["accepted"] = (frame["verdict"] == Verdict.ACCEPTED.value).astype(bool)
    return frame


def _column(name: str, rows: Sequence[Mapping[str, Any]]) -> pd.Series | list[Any]:
    values = [row[name] for row in rows] if name in COLUMNS else [row.get(name) for row in rows]
    # Texts stay strings as they are: converting a million rows takes seconds.
    return pd.Series(values, dtype=object) if name in TEXTS else values


def _facts(index: Mapping[str, Any], good: pd.DataFrame) -> dict[str, str]:
    facts = {
        "aligned faces": f"{index['resolution']} x {index['resolution']} pixels",
        "video": f"{index['fps']:g} frames per second",
    }
    if "sample_rate" in index:
        facts["audio"] = f"{index['sample_rate']} Hz, mono PCM, its offset corrected"
    scorers = sorted({str(name) for name in good["scorer"].unique() if name})
    return facts | {"scorer of the offset": ", ".join(scorers) or "none"}


def _splits(good: pd.DataFrame, index: Mapping[str, Any]) -> tuple[SplitLine, ...]:
    shards: list[Mapping[str, Any]] = list(index.get("shards", ()))
    counts: Mapping[str, int] = index.get("counts", {})
    told = "split" in good
    names = sorted(set(counts) | (set(good["split"].unique()) if told else set()))
    lines = []
    for name in names:
        part = good[good["split"] == name] if told else None
        own = [shard for shard in shards if shard["split"] == name]
        lines.append(
            SplitLine(
                name=str(name),
                clips=len(part) if part is not None else counts[name],
                frames=int(part["num_frames"].sum()) if part is not None else None,
                speakers=int(part["speaker"].nunique()) if part is not None else None,
                shards=len(own),
                bytes=sum(shard["bytes"] for shard in own),
            )
        )
    return (
        *lines,
        SplitLine(
            name="all",
            clips=len(good),
            frames=int(good["num_frames"].sum()),
            speakers=int(good["speaker"].nunique()),
            shards=len(shards),
            bytes=sum(shard["bytes"] for shard in shards),
        ),
    )


def _shared_speakers(good: pd.DataFrame) -> int | None:
    if "split" not in good:
        return None
    return int((good.groupby("speaker")["split"].nunique() > 1).sum())


def _reasons(refused: pd.DataFrame) -> tuple[ReasonLine, ...]:
    groups = refused.groupby(["reason", "stage"], sort=True)["num_frames"].agg(["size", "sum"])
    lines = [
        ReasonLine(str(reason), str(stage), int(size), int(frames))
        for (reason, stage), size, frames in zip(
            groups.index, groups["size"], groups["sum"], strict=True
        )
    ]
    return tuple(sorted(lines, key=lambda line: (-line.rows, line.reason, line.stage)))


def _top_speakers(good: pd.DataFrame) -> tuple[SpeakerLine, ...]:
    groups = good.groupby("speaker", sort=True)["num_frames"].agg(["size", "sum"])
    # A stable sort leaves speakers of equal length in order of name.
    groups = groups.sort_values("sum", ascending=False, kind="stable").head(TOP_SPEAKERS)
    return tuple(
        SpeakerLine(str(speaker), int(size), int(frames))
        for speaker, size, frames in zip(groups.index, groups["size"], groups["sum"], strict=True)
    )


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_value(each)}" for name, each in sorted(value.items()))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sources(source: Any) -> tuple[tuple[str, str], ...]:
    names = [source] if isinstance(source, str) else sorted(source or ())
    return tuple((name, SOURCES.get(name, NOT_STATED)) for name in names)


def _changes(changes: Mapping[str, Any]) -> tuple[Change, ...]:
    more = ("names", "relabelled")
    unknown = set(changes) - {*CHANGES, *more}
    if unknown:
        raise ValueError(f"changes has {sorted(unknown)}: {[*CHANGES, *more]} are known")
    found = []
    names = dict(changes.get("names") or {})
    for key, what in CHANGES.items():
        value = changes.get(key, 0)
        listed = names.get(key, ()) if isinstance(value, int) else value
        count = value if isinstance(value, int) else len(value)
        found.append(Change(what, count, tuple(sorted(listed)[:SHOWN_NAMES])))
    found += [Change(what, int(n)) for what, n in dict(changes.get("relabelled") or {}).items()]
    return tuple(change for change in found if change.count)


def hours(frames: int) -> float:
    """Length of a number of frames at 25 fps."""
    return frames / FPS / 3600
