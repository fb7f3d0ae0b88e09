"""What a person sees of a refresh: while it runs, and how it went."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from datasets.errors import UserError
from flows.artifacts import ProgressReport, StageBoard, funnel, say, show_table
from tasks import dataset_pack
from tasks.executor import StageProgress
from tasks.journal_entries import GroupEntry
from tasks.verdicts import Thresholds, judge

SHOWN_REASONS = 4
SHOWN_FILES = 3


class RefreshProgress:
    """What a person sees while sources are fetched and ingested."""

    def __init__(self, total: int, before: int, thresholds: Thresholds) -> None:
        self.total, self.before, self.thresholds = total, before, thresholds
        self.clips = 0
        self.reasons: Counter[str] = Counter()
        self.report = ProgressReport("ingest: files")
        self.board = StageBoard("refresh-dataset-progress")
        self.report(before, total)
        self.board.stage("ingest").update(before, total)

    def count(self, entry: GroupEntry) -> None:
        """Take a finished group."""
        rows = judge([row for each in entry.sources for row in each.rows], self.thresholds)
        self.clips += len(dataset_pack.accepted(rows))
        self.reasons.update(dataset_pack.reasons(rows))
        self.board.funnel(self.reasons, self.clips)

    def tell(self, states: list[StageProgress]) -> None:
        """Where fetching, if there is any, and ingesting stand."""
        *fetching, ingesting = states
        refused = self.reasons.total()
        note = f"{self.clips} clips good, {refused} refused"
        for state in fetching:
            self.board.stage("download").update(state.done, state.total, state.running)
            if state.done < state.total:
                note += f", {state.done} of {state.total} fetched"
        done = self.before + ingesting.done
        self.board.stage("ingest").update(done, self.total, ingesting.running, refused)
        self.report(done, self.total, note)


def changes_in_words(changes: dict[str, int], forgotten: bool) -> str:
    """What a new version is made of, in words."""
    gone = "gone from the source and from the dataset" if forgotten else "gone but kept"
    words = {
        "new": "new",
        "changed": "changed",
        "again": "tried again",
        "kept": "as before",
        "gone": gone,
    }
    parts = [f"{changes[kind]} {text}" for kind, text in words.items() if changes[kind]]
    return "files: " + ", ".join(parts)


def say_set_aside(rows: Sequence[dict[str, Any]]) -> None:
    """Say which files could not be used as they are now, where they gave something before."""
    if rows:
        shown = _some([f"{row['path']} ({row['reason']})" for row in rows])
        say(
            f"publish: the clips of files that have changed but cannot be used as they are now "
            f"stay as they were: {shown}"
        )


def say_notes(notes: Mapping[str, str]) -> None:
    """Say which files were used although something is wrong with them; path -> what."""
    if notes:
        shown = _some([f"{path} ({note})" for path, note in sorted(notes.items())])
        say(f"publish: used for what is there: {shown}")


def _some(texts: Sequence[str]) -> str:
    rest = len(texts) - SHOWN_FILES
    return ", ".join(texts[:SHOWN_FILES]) + (f" and {rest} others" if rest > 0 else "")


def conclude(result: dict[str, Any]) -> None:
    """Say how it went, in the terminal and as a table in Prefect.

    Raises:
        UserError: no clip was accepted, so there is nothing to train on.
    """
    refused = _in_words(result["reasons"])
    rows = funnel(result["inputs"], result["clips_accepted"], result["reasons"])
    show_table("refresh-dataset-funnel", rows, f"`{result['dataset']}`")
    ledger = f"{result['dataset']}/{dataset_pack.LEDGER}"
    if not result["clips_accepted"]:
        raise UserError(
            f"no clip was accepted from {result['inputs']} files ({refused}): {ledger} has a row "
            "with the reason for each"
        )
    say(
        f"dataset {result['dataset']}: {result['clips_accepted']} clips accepted from "
        f"{result['inputs']} files, {result['clips_rejected']} refused"
        + (f" ({refused})" if refused else "")
    )


def _in_words(reasons: dict[str, int]) -> str:
    shown: Sequence[tuple[str, int]] = list(reasons.items())
    words = [f"{count} {reason}" for reason, count in shown[:SHOWN_REASONS]]
    rest = sum(count for _, count in shown[SHOWN_REASONS:])
    return ", ".join([*words, f"{rest} others"] if rest else words)
