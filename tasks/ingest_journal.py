"""What ingestion has finished, kept so that a run that was killed goes on where it was.

A file's entry counts as long as the file's bytes, the configuration and the code that made
it are the same. Bytes are compared by sha256, and only where size or times have changed.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets.errors import Reason
from datasets.manifest import Manifest, config_digest, content_digest
from datasets.records import ClipRow
from datasets.sources import SourceItem
from tasks.executor import Outcome
from tasks.ingest import IngestConfig

CODE_VERSION = 1
"""Raised when ingestion makes something else of the same file and configuration."""
MAX_RUNS = 3
"""Runs in which a file that timed out or killed its worker is tried again."""
FAILURES = (Reason.TIMED_OUT, Reason.WORKER_DIED, Reason.INTERNAL)

Entry = dict[str, Any]


def plain(name: str) -> str:
    """A name that any encoding can hold: bytes that are no UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Journal:
    """Entries of the files of one dataset.

    Args:
        staging: where entries and clips are kept, in one folder per configuration, so that
            trying another one and coming back costs nothing.
        config: the stage's configuration.
        deadline_s: seconds that a file may take in this run.
    """

    def __init__(self, staging: Path, config: IngestConfig, deadline_s: float) -> None:
        self.made_by = config_digest({"code": CODE_VERSION, "config": asdict(config)})
        self.manifest = Manifest(staging / self.made_by[:12] / "journal")
        self.clips = staging / self.made_by[:12] / "clips"
        """Where the stage writes; an entry counts while the files of its clips are there."""
        self.deadline_s = deadline_s
        self._begun: dict[str, tuple[list[int], int]] = {}

    def finished(self, item: SourceItem) -> Entry | None:
        """The entry of a file that needs no more work."""
        entry = self.kept(item)
        if entry is None:
            return None
        if entry["failed"] and (entry["runs"] < MAX_RUNS or entry["deadline_s"] < self.deadline_s):
            return None
        stat = _stat(item.path)
        if entry["stat"] == stat:
            return entry
        if not stat or not entry["digest"] or _digest(item.path) != entry["digest"]:
            return None
        entry["stat"] = stat
        self.manifest.put(plain(item.key), entry)
        return entry

    def kept(self, item: SourceItem) -> Entry | None:
        """What this configuration and code made of a file, whatever the file is by now."""
        entry = self.manifest.get(plain(item.key))
        mine = entry is not None and entry.get("made_by") == self.made_by
        return entry if mine and entry and self._files_there(entry) else None

    def begin(self, item: SourceItem) -> None:
        """Note a file's state before it is worked on, and that its old clips will go."""
        old = self.manifest.get(plain(item.key)) or {}
        stat = _stat(item.path)
        again = old.get("failed") and old.get("stat") == stat
        runs = int(old["runs"]) if again else 0
        self._begun[item.key] = (stat, runs)
        if old and not old["failed"]:
            # Without this, being killed after new clips replaced the old ones would leave an
            # entry that speaks of clips which are no longer there.
            self.manifest.put(plain(item.key), {"made_by": "", "failed": False})

    def finish(self, item: SourceItem, outcome: Outcome) -> Entry:
        """Keep what came of a file that `begin` was called for."""
        stat, runs = self._begun.pop(item.key)
        failed = outcome.reason in FAILURES
        result: Mapping[str, Any] = outcome.value or {
            "digest": "",
            "rows": [_failed_row(item, outcome)],
            "clips": [],
            "video_seconds": 0.0,
        }
        kept = ("digest", "rows", "clips", "video_seconds")
        entry = {name: result[name] for name in kept} | {
            "made_by": self.made_by,
            "stat": stat,
            "failed": failed,
            "runs": runs + 1,
            "deadline_s": self.deadline_s,
            "seconds": outcome.seconds,
        }
        for row in entry["rows"]:
            row["path"], row["speaker"] = plain(row["path"]), plain(row["speaker"])
        self.manifest.put(plain(item.key), entry)
        return entry

    def _files_there(self, entry: Entry) -> bool:
        names = [name for clip in entry["clips"] for name in clip["files"].values()]
        return all((self.clips / name).is_file() for name in names)


def _failed_row(item: SourceItem, outcome: Outcome) -> dict[str, object]:
    row = ClipRow(path=item.relative, speaker=item.speaker)
    row.reason, row.stage, row.detail = outcome.reason.value, "executor", outcome.detail
    return row.as_dict()


def _stat(path: Path) -> list[int]:
    """Size and times; empty when the file is gone."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _digest(path: Path) -> str:
    try:
        return content_digest(path)
    except OSError:
        return ""
