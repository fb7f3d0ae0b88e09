"""The effect of other thresholds on a ledger: how many clips came in or went, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets.shards.records import Verdict

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RelabelReport:
    """Counts of the clips whose verdict changed."""

    newly_accepted: dict[str, int]
    """Count by the reason for their earlier refusal, the most frequent first."""
    newly_refused: dict[str, int]
    """Count by the reason for their refusal now."""
    other_reason: int
    """Clips that are still refused, but for another reason."""
    accepted: int
    """Total number of clips accepted now."""
    refused: int

    @property
    def changed(self) -> bool:
        """Whether the dataset's clips have changed."""
        return bool(self.newly_accepted or self.newly_refused)

    def table(self) -> list[dict[str, str | int]]:
        """A table for people: one mapping from column to value per row."""
        lines = [
            *((f"newly accepted, was {why}", count) for why, count in self.newly_accepted.items()),
            *((f"newly refused: {why}", count) for why, count in self.newly_refused.items()),
            ("still refused, for another reason", self.other_reason),
            ("accepted now", self.accepted),
            ("refused now", self.refused),
        ]
        return [{"what": what, "clips": count} for what, count in lines]

    def changes(self) -> dict[str, int]:
        """Phrases for `relabelled` in the changes of a data card."""
        accepted, refused = sum(self.newly_accepted.values()), sum(self.newly_refused.values())
        return {
            "clips newly accepted by other thresholds": accepted,
            "clips newly refused by other thresholds": refused,
        }


def compare_verdicts(before: Sequence[Row], after: Sequence[Row]) -> RelabelReport:
    """Compare the verdicts of the same clips.

    Args:
        before: earlier rows of the ledger; those without a clip do not count.
        after: the same rows, judged again, in any order.

    Raises:
        ValueError: a clip is on one side only, or twice on one side.
    """
    old, new = _by_clip(before), _by_clip(after)
    if old.keys() != new.keys():
        only = sorted(old.keys() ^ new.keys())
        raise ValueError(f"{len(only)} clips are on one side only, for example {only[0]!r}")
    came, went = Counter[str](), Counter[str]()
    other = 0
    for clip, was in old.items():
        now = new[clip]
        if _good(was) and not _good(now):
            went[now["reason"]] += 1
        elif _good(now) and not _good(was):
            came[was["reason"]] += 1
        elif not _good(now) and was["reason"] != now["reason"]:
            other += 1
    accepted = sum(map(_good, new.values()))
    return RelabelReport(_rank(came), _rank(went), other, accepted, len(new) - accepted)


def _by_clip(rows: Sequence[Row]) -> dict[str, Row]:
    clips = {row["clip_id"]: row for row in rows if row["clip_id"]}
    if len(clips) < sum(bool(row["clip_id"]) for row in rows):
        twice, _ = Counter(row["clip_id"] for row in rows if row["clip_id"]).most_common(1)[0]
        raise ValueError(f"the clip {twice!r} appears more than once")
    return clips


def _good(row: Row) -> bool:
    return bool(row["verdict"] == Verdict.ACCEPTED.value)


def _rank(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
