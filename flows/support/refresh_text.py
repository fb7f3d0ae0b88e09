"""What a person sees of a refresh, while it runs and at its end."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from datasets.errors import UserError
from datasets.shards.records import LedgerRow
from flows.support.artifacts import ProgressReport, StageBoard, funnel_rows, say, show_table
from tasks.ingest.journal_entries import GroupEntry
from tasks.ingest.verdicts import Thresholds, apply_thresholds
from tasks.publish import ledger as publish_ledger
from tasks.publish.card_page import FOLDER
from tasks.publish.version import VersionSummary
from tasks.runtime.stage import StageProgress

SHOWN_REASONS = 4
SHOWN_FILES = 3


class RefreshProgress:
    """What a person sees while sources are fetched and ingested."""

    def __init__(self, total: int, before: int, thresholds: Thresholds) -> None:
        self.total, self.before, self.thresholds = total, before, thresholds
        self.clips = self.refused = 0
        self.reasons: Counter[str] = Counter()
        self.report = ProgressReport("ingest: files")
        self.board = StageBoard("refresh-dataset-progress")
        self.report(before, total)
        self.board.stage("ingest").update(before, total)

    def start_from(self, entries: Iterable[GroupEntry], again: Collection[str]) -> None:
        """Take the groups of earlier runs.

        Args:
            entries: of the journal.
            again: keys of sources that do not count, or are worked on in this run.
        """
        for entry in entries:
            entry.sources = [each for each in entry.sources if each.key not in again]
            self._take(entry)

    def count(self, entry: GroupEntry) -> None:
        """Take a finished group."""
        self._take(entry)
        self.board.funnel(self.reasons, self.clips)

    def _take(self, entry: GroupEntry) -> None:
        rows = apply_thresholds(
            [row for each in entry.sources for row in each.rows], self.thresholds
        )
        self.clips += len(publish_ledger.select_accepted(rows))
        self.refused += sum(bool(row["clip_id"] and row["reason"]) for row in rows)
        self.reasons.update(publish_ledger.count_reasons(rows))

    def tell(self, states: list[StageProgress]) -> None:
        """How far ingesting, and fetching if there is any, has come."""
        *fetching, ingesting = states
        note = self._clips()
        for state in fetching:
            self.board.stage("download").update(state.done, state.total, state.running)
            if state.done < state.total:
                note += f", {state.done} of {state.total} fetched"
        done = self.before + ingesting.done
        refused = self.reasons.total()
        self.board.stage("ingest").update(done, self.total, ingesting.running, refused)
        if done < self.total:
            self.report(done, self.total, note)

    def end(self, entries: Iterable[GroupEntry], dropped: Collection[str] = ()) -> None:
        """Say how everything ended, counted again: a group counts once its shards are stored, after
        its last file, and a file that yielded less than before keeps what it had.

        Args:
            entries: of the journal.
            dropped: keys of sources that will not count.
        """
        self.clips = self.refused = 0
        self.reasons.clear()
        self.start_from(entries, dropped)
        self.board.funnel(self.reasons, self.clips)
        self.report(self.total, self.total, self._clips())
        self.board.flush()

    def _clips(self) -> str:
        return f"{self.clips} clips good, {self.refused} refused"


def changes_in_words(changes: dict[str, int], forgotten: bool) -> str:
    """A phrase that says what a new version is made of."""
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


def say_moved(moved: Mapping[str, str]) -> None:
    """Say which files only changed their name."""
    shown = _some([f"{before} is now {now}" for before, now in sorted(moved.items())])
    say(f"ingest: {len(moved)} files were moved and keep their clips: {shown}")


def say_duplicates(duplicates: Mapping[str, str]) -> None:
    """Say which files are not published since others with the same content are."""
    if duplicates:
        shown = _some([f"{path} (as {first})" for path, first in sorted(duplicates.items())])
        say(f"publish: {len(duplicates)} files have the content of others: {shown}")


def say_set_aside(rows: Sequence[LedgerRow]) -> None:
    """Say which files cannot be used as they are now but yielded clips before."""
    if rows:
        shown = _some([f"{row['path']} ({row['reason']})" for row in rows])
        say(
            f"publish: the clips of files that have changed but cannot be used as they are now "
            f"stay as they were: {shown}"
        )


def say_notes(notes: Mapping[str, str]) -> None:
    """Say which files were used although something is wrong with them; path -> fault."""
    if notes:
        shown = _some([f"{path} ({note})" for path, note in sorted(notes.items())])
        say(f"publish: used as far as they can be read: {shown}")


def _some(texts: Sequence[str]) -> str:
    rest = len(texts) - SHOWN_FILES
    return ", ".join(texts[:SHOWN_FILES]) + (f" and {rest} others" if rest > 0 else "")


def conclude(result: VersionSummary, test_fraction: float = 0.0) -> None:
    """Say how it went, in the terminal and as a table in Prefect.

    Args:
        result: of the flow.
        test_fraction: share of the speakers that should be kept for testing.

    Raises:
        UserError: no clip was accepted, so there is nothing to train on.
    """
    rows = funnel_rows(result["inputs"], result["clips_accepted"], result["reasons"])
    show_table("refresh-dataset-funnel", rows, f"`{result['dataset']}`")
    ledger = f"{result['dataset']}/{publish_ledger.LEDGER}"
    if not result["clips_accepted"]:
        raise UserError(
            f"no clip was accepted from {result['inputs']} files "
            f"({_in_words(result['reasons'])}): {ledger} has a row with the reason for each"
        )
    say(_result_in_words(result))
    for line in _about_speakers(result, test_fraction):
        say(line)
    say(f"what is in it: {result['dataset']}/{FOLDER}/card.html, and row by row {ledger}")


def _result_in_words(result: VersionSummary) -> str:
    """Files, clips and rows without a clip, counted separately."""
    without = result["reasons_without_clip"]
    clips = {
        reason: count - without.get(reason, 0)
        for reason, count in result["reasons"].items()
        if count > without.get(reason, 0)
    }
    good, bad = result["clips_accepted"], sum(clips.values())
    text = f"dataset {result['dataset']}: of {good + bad} clips from {result['inputs']} files, "
    text += f"{good} are accepted and {bad} refused" + (f" ({_in_words(clips)})" if bad else "")
    if without:
        text += (
            f"; in addition, {sum(without.values())} files or stretches of files have no clip "
            f"({_in_words(without)})"
        )
    return text


def _about_speakers(result: VersionSummary, test_fraction: float) -> list[str]:
    """What to know about a dataset's speakers if something is not as it should be."""
    lines = []
    if loose := result["loose_files"]:
        lines.append(
            f"speakers: {loose} files are not in a folder that names a speaker, and each counts as "
            "one; only folders keep a speaker from being in two splits: put the files of one "
            "person in one folder"
        )
    if test_fraction and not result["splits"].get("test"):
        count = result["speakers"]
        lines.append(
            f"no test split: {test_fraction:.0%} of the speakers are wanted for testing, but clips "
            f"exist of only {count} speaker{'s' * (count != 1)}, all for training: add videos of "
            "others, in a folder for each person"
        )
    return lines


def _in_words(reasons: dict[str, int]) -> str:
    shown: Sequence[tuple[str, int]] = list(reasons.items())
    words = [f"{count} {reason}" for reason, count in shown[:SHOWN_REASONS]]
    rest = sum(count for _, count in shown[SHOWN_REASONS:])
    return ", ".join([*words, f"{rest} others"] if rest else words)
