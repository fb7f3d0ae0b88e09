"""One content, one place: which sources hold what another source is published with.

Equal files are found by their digests, other encodings of one recording by their prints
(`datasets.media.prints`). Of several sources the first is published. Which one that is depends on
what is listed and what was published before, never on who was finished first.
"""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from datasets.errors import Reason, UserError
from datasets.media import FPS
from datasets.media.prints import (
    CONTOUR,
    LENGTH_S,
    LENGTH_SHARE,
    SAME_CONTOUR_DB,
    Print,
    contour,
    same_recording,
)
from datasets.shards.records import LedgerRow, Verdict
from tasks.ingest.journal_entries import GroupEntry, SourceEntry, Worth

STAGE = "duplicates"
RECORDINGS, FILES = "recordings", "files"
KINDS = (RECORDINGS, FILES)
"""What counts as the same: recordings in any encoding, or equal files alone."""


def check_kind(kind: str) -> str:
    """The kind itself.

    Raises:
        UserError: there is no such kind.
    """
    if kind not in KINDS:
        raise UserError(f"duplicates by {kind!r} are not known: choose {' or '.join(KINDS)}")
    return kind


@dataclass(frozen=True)
class Duplicate:
    """Why a source is not published."""

    first: SourceEntry
    """The source that is published in its place."""
    how: str
    """What the two have in common, for a person."""

    @property
    def path(self) -> str:
        """The ledger's name of the published source."""
        return self.first.rows[0]["path"]


@dataclass(frozen=True)
class Standing:
    """What decides which of several sources is the first."""

    accepted: Mapping[str, int]
    """Key of each source -> frames of its clips that meet the thresholds."""
    gone: Collection[str]
    """Keys of those that are no longer listed."""
    published: Set[str]
    """Paths of those with clips in the previous version."""

    def rank(self, group: int, source: SourceEntry) -> tuple[object, ...]:
        """The lowest is first: groups are numbered in the order of the list that planned them."""
        frames = self.accepted.get(source.key, 0)
        # A published one stays the first under another name: its split must not change.
        names = {source.rows[0]["path"], *dict(source.formerly)}
        return (
            not frames,
            source.key in self.gone,
            names.isdisjoint(self.published),
            # A damaged or cut copy must not stand for a whole one.
            bool(source.note),
            -frames,
            group,
            source.key,
        )


def find_duplicates(
    groups: Sequence[GroupEntry], standing: Standing, kind: str = RECORDINGS
) -> dict[str, Duplicate]:
    """Key of each source that is not published -> the one in its place.

    Args:
        groups: all groups, with the sources that count.
        standing: what decides which of several sources is the first.
        kind: one of `KINDS`.
    """
    ranked = sorted(
        (
            (standing.rank(group.number, source), source)
            for group in groups
            for source in group.sources
            if source.content and source.worth is Worth.READ and source.rows
        ),
        key=lambda pair: pair[0],
    )
    firsts: dict[str, SourceEntry] = {}
    found: dict[str, Duplicate] = {}
    known = _Recordings(len(ranked))
    for _, source in ranked:
        twin = firsts.setdefault(source.content, source)
        if twin is not source:
            # Of another encoding's file there may be copies, too.
            first = found[twin.key].first if twin.key in found else twin
            found[source.key] = Duplicate(first, f"the same file as {twin.rows[0]['path']}")
        elif kind == RECORDINGS and (made := Print.of(source.recording)):
            other = known.find(made)
            if other is None:
                known.add(made, source)
                continue
            first, (pictures, sound) = other
            how = f"the same recording as {first.rows[0]['path']}"
            how += f" (pictures differ by {pictures:.2f}, sound by {sound:.2f})"
            found[source.key] = Duplicate(first, how)
    return found


class _Recordings:
    """Prints of what is published, found by length and loudness before they are compared.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int) -> None:
        self._frames = np.zeros(most, np.int64)
        self._contours = np.zeros((most, CONTOUR), np.float32)
        self._known: list[tuple[Print, SourceEntry]] = []

    def add(self, made: Print, source: SourceEntry) -> None:
        number = len(self._known)
        self._frames[number], self._contours[number] = made.frames, contour(made)
        self._known.append((made, source))

    def find(self, made: Print) -> tuple[SourceEntry, tuple[float, float]] | None:
        """The first source with the same recording, and their distances."""
        count = len(self._known)
        reach = max(LENGTH_S * FPS, LENGTH_SHARE * made.frames / (1 - LENGTH_SHARE))
        near = np.flatnonzero(np.abs(self._frames[:count] - made.frames) <= reach)
        apart = np.abs(self._contours[near] - contour(made)).mean(axis=1)
        for number in near[apart <= SAME_CONTOUR_DB]:
            other, source = self._known[number]
            if distances := same_recording(other, made):
                return source, distances
        return None


def mark(rows: Sequence[LedgerRow], duplicate: Duplicate) -> list[LedgerRow]:
    """The rows of a source that is not published."""
    told: LedgerRow = {
        "verdict": Verdict.DUPLICATE.value,
        "reason": Reason.DUPLICATE.value,
        "stage": STAGE,
        "detail": duplicate.how,
        "duplicate_of": duplicate.path,
    }
    return [row | told for row in rows]


def heirs_of(groups: Sequence[GroupEntry], gone: Collection[str]) -> dict[str, str]:
    """Key of each source that has gone and whose content a listed one holds -> key of that one.

    Among several the one of the earliest group is taken, and then the first by its key.
    """
    listed: dict[str, tuple[int, str]] = {}
    lost: dict[str, str] = {}
    for group in groups:
        for source in group.sources:
            if not source.content or source.worth is not Worth.READ:
                continue
            if source.key in gone:
                lost[source.key] = source.content
            else:
                here = (group.number, source.key)
                listed[source.content] = min(listed.get(source.content, here), here)
    return {key: listed[content][1] for key, content in lost.items() if content in listed}


def inherited_splits(
    splits: Mapping[str, str], pairs: Collection[tuple[str, str]]
) -> dict[str, str]:
    """Splits of new speakers who have the recordings of earlier ones.

    Args:
        splits: speaker -> split in the versions so far.
        pairs: speaker now, and speaker before, of the same content.
    """
    found: dict[str, set[str]] = {}
    for now, before in pairs:
        if now not in splits and before in splits:
            found.setdefault(now, set()).add(splits[before])
    # What models were trained on must not become what they are judged by.
    return {now: "train" if "train" in they else "test" for now, they in found.items()}
