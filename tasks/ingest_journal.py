"""What ingestion has finished, kept so that a run that was killed goes on where it was.

There is one entry per group of sources (`tasks.source_groups`): its sources with their rows,
and the shards that it made. A source's entry counts as long as the file's bytes, the
configuration and the code that made it are the same. Bytes are compared by sha256, and only
where size or times have changed. What is ingested anew comes in a new group, whose entry then
counts; what is no longer in the source stays.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets.errors import Reason, UserError
from datasets.locations import shown
from datasets.manifest import Manifest, config_digest, content_digest
from datasets.records import ClipRow
from datasets.shards import Shard, ShardInfo
from datasets.sources import How, SourceItem
from datasets.store import Store
from tasks.executor import BatchOutcome, Outcome
from tasks.ingest import SHARDS
from tasks.ingest_config import IngestConfig
from tasks.locks import STAGING
from tasks.source_groups import SourceGroup, group_sources

CODE_VERSION = 3
"""Raised when ingestion makes something else of the same file and configuration."""
MAX_RUNS = 3
"""Runs in which a source that timed out, killed its worker or could not be fetched is tried
again."""
FAILURES = (Reason.TIMED_OUT, Reason.WORKER_DIED, Reason.INTERNAL, Reason.DOWNLOAD_FAILED)


@dataclass
class SourceEntry:
    """What came of one source."""

    key: str
    rows: list[dict[str, Any]]
    stamp: list[Any]
    """Size and times of a local file, or the version that the listing gave."""
    digest: str = ""
    """sha256 of the file; empty when it was not read."""
    split: str = ""
    """Where its clips belong by the data set itself; otherwise empty."""
    failed: bool = False
    """Whether another run may do better."""
    runs: int = 1
    deadline_s: float = 0.0
    seconds: float = 0.0
    video_seconds: float = 0.0


@dataclass
class GroupEntry:
    """What came of one group."""

    number: int
    sources: list[SourceEntry]
    shards: list[Shard] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "GroupEntry":
        shards = [Shard(ShardInfo(**each["info"]), tuple(each["keys"])) for each in value["shards"]]
        return cls(value["number"], [SourceEntry(**each) for each in value["sources"]], shards)


@dataclass
class _Known:
    """What is remembered of a source besides its rows."""

    group: int
    stamp: list[Any]
    digest: str
    failed: bool
    runs: int
    deadline_s: float
    tried: SourceEntry | None = None
    """A later attempt on a changed file that failed: what came of the file before still counts."""


class Journal:
    """Groups of one dataset.

    Args:
        store: of the dataset; everything lies below `staging/`, in one folder per
            configuration, so that trying another one and coming back costs nothing.
        config: of the clips.
        deadline_s: seconds that a source may take in this run.
    """

    def __init__(self, store: Store, config: IngestConfig, deadline_s: float) -> None:
        self.store, self.config, self.deadline_s = store, config, deadline_s
        made_by = config_digest({"code": CODE_VERSION, "config": asdict(config)})
        self.prefix = f"{STAGING}/{made_by[:12]}"
        self._plans = Manifest(store, f"{self.prefix}/plans")
        self._groups = Manifest(store, f"{self.prefix}/groups")
        self._known: dict[str, _Known] = {}
        self._restamped: dict[str, list[Any]] = {}
        there = set(store.names(f"{self.prefix}/{SHARDS}"))
        self._finished: set[str] = set()
        for name, value in sorted(self._groups.items()):
            entry = GroupEntry.from_dict(value)
            if all(self.shard_name(shard) in there for shard in entry.shards):
                self._finished.add(name)
                self._remember(entry)

    def _read(self, name: str) -> GroupEntry | None:
        value = self._groups.get(name)
        return GroupEntry.from_dict(value) if value else None

    def _remember(self, entry: GroupEntry) -> None:
        for each in entry.sources:
            before = self._known.get(each.key)
            if before and before.group > entry.number:
                continue
            if before and before.group < entry.number and each.failed and not before.failed:
                before.tried = replace(each, rows=[])
                continue
            self._known[each.key] = _Known(
                entry.number, each.stamp, each.digest, each.failed, each.runs, each.deadline_s
            )

    def shard_name(self, shard: Shard) -> str:
        """Where a finished shard is in the store."""
        return f"{self.prefix}/{SHARDS}/{shard.info.name}"

    def changes(self, items: Sequence[SourceItem]) -> "Changes":
        """What a list of sources has that is not known yet, and the other way round."""
        found = Changes()
        for item in items:
            known = self._known.get(plain(item.key))
            if known is None:
                found.new.append(item)
            elif self.finished(item):
                found.kept.append(item)
            else:
                (found.again if known.failed else found.changed).append(item)
        found.gone = sorted(self._known.keys() - self.listed(items))
        self._keep_stamps()
        return found

    @staticmethod
    def listed(items: Sequence[SourceItem]) -> set[str]:
        """Keys of sources as entries have them."""
        return {plain(item.key) for item in items}

    def finished(self, item: SourceItem) -> bool:
        """Whether a source needs no more work."""
        known = self._known.get(plain(item.key))
        if known is None:
            return False
        if known.failed and self._worth_another(known.runs, known.deadline_s):
            return False
        stamp = stamp_of(item)
        if same_stamp(stamp, known.stamp):
            return True
        tried = known.tried
        if tried and same_stamp(stamp, tried.stamp):
            return not self._worth_another(tried.runs, tried.deadline_s)
        same = item.how is How.LOCAL and bool(known.digest) and stamp[-1:] == known.stamp[-1:]
        same = same and _digest(item) == known.digest
        if same:
            self._restamped[plain(item.key)] = stamp
        return same

    def _worth_another(self, runs: int, deadline_s: float) -> bool:
        """Whether what failed is tried again in this run."""
        return runs < MAX_RUNS or deadline_s < self.deadline_s

    def _keep_stamps(self) -> None:
        """Write down the new times of files with the same bytes, so as not to read them again."""
        by_group: dict[int, dict[str, list[Any]]] = {}
        for key, stamp in self._restamped.items():
            by_group.setdefault(self._known[key].group, {})[key] = stamp
        self._restamped.clear()
        for group, stamps in by_group.items():
            entry = self._read(f"{group:06d}")
            assert entry is not None
            for each in entry.sources:
                each.stamp = stamps.get(each.key, each.stamp)
            self.keep(entry)

    def plan(self, items: Sequence[SourceItem]) -> list[SourceGroup]:
        """Groups of the sources that need work: those that were planned before, then new ones.

        A plan is kept, so that a run that goes on makes the same groups.
        """
        todo = {plain(item.key): item for item in items}
        groups = []
        planned = sorted(self._plans.keys())
        for name in planned:
            if name not in self._finished:
                value = self._plans.get(name) or {"keys": [], "weight": 0.0}
                mine = tuple(todo.pop(key) for key in value["keys"] if key in todo)
                if mine:
                    groups.append(SourceGroup(int(name), mine, value["weight"]))
        last = max([int(name) for name in [*planned, *self._finished]], default=-1)
        for group in group_sources(list(todo.values()), last + 1):
            keys = [plain(item.key) for item in group.items]
            self._plans.put(group.name, {"keys": keys, "weight": group.weight})
            groups.append(group)
        return groups

    def begin(self, groups: Iterable[SourceGroup]) -> "Begun":
        """Note the state of sources before they are worked on."""
        begun = Begun()
        for group in groups:
            for item in group.items:
                key, stamp = plain(item.key), stamp_of(item)
                known = self._known.get(key)
                begun.stamps[item.key], begun.runs[item.key] = stamp, 0
                if known and known.failed and same_stamp(stamp, known.stamp):
                    begun.runs[item.key] = known.runs
                elif known and known.tried and same_stamp(stamp, known.tried.stamp):
                    begun.runs[item.key] = known.tried.runs
        return begun

    def finish(
        self,
        group: SourceGroup,
        outcome: BatchOutcome,
        lost: Sequence[Outcome],
        begun: "Begun",
    ) -> GroupEntry:
        """Keep what came of a group.

        Args:
            group: as planned.
            outcome: of the sources that were ingested.
            lost: of those that could not be fetched.
            begun: what `begin` noted.
        """
        outcomes = {each.key: each for each in [*outcome.outcomes, *lost]}
        sources = [self._source(item, outcomes[item.key], begun) for item in group.items]
        made = outcome.value or []
        shards = [Shard(ShardInfo(**each["info"]), tuple(each["keys"])) for each in made]
        entry = GroupEntry(group.number, sources, shards)
        self.keep(entry)
        return entry

    def keep(self, entry: GroupEntry) -> None:
        """Write a group's entry, or write it again with other shards."""
        name = f"{entry.number:06d}"
        self._groups.put(name, entry.as_dict())
        self._finished.add(name)
        self._remember(entry)

    def _source(self, item: SourceItem, outcome: Outcome, begun: "Begun") -> SourceEntry:
        value = outcome.value or {"digest": "", "video_seconds": 0.0, "rows": []}
        rows = value["rows"] or [_failed_row(item, outcome)]
        for row in rows:
            row["path"], row["speaker"] = plain(row["path"]), plain(row["speaker"])
        return SourceEntry(
            key=plain(item.key),
            rows=rows,
            stamp=begun.stamps[item.key],
            digest=value["digest"],
            split=item.split,
            failed=any(row["reason"] in FAILURES for row in rows),
            runs=begun.runs[item.key] + 1,
            deadline_s=self.deadline_s,
            seconds=outcome.seconds,
            video_seconds=value["video_seconds"],
        )

    def must_hold(self, clip_ids: set[str]) -> None:
        """Make sure that clips of the published dataset are still here.

        Raises:
            UserError: they are not, because the folder with finished work was deleted.
        """
        held = {key for entry in self.entries() for shard in entry.shards for key in shard.keys}
        if missing := clip_ids - held:
            raise UserError(
                f"{self.store.url}/{self.prefix} lacks {len(missing)} clips of the dataset: "
                "refresh it again with python -m flows.refresh_dataset"
            )

    def forget(self, keys: Iterable[str]) -> None:
        """Drop sources for good; their clips leave their shards at the next publication."""
        gone = set(keys)
        if not gone:
            return
        # In older groups, too, or these would count again.
        for name in sorted(self._finished):
            entry = self._read(name)
            assert entry is not None
            if any(each.key in gone for each in entry.sources):
                entry.sources = [each for each in entry.sources if each.key not in gone]
                self.keep(entry)
        for key in gone:
            self._known.pop(key, None)

    def entries(self) -> Iterator[GroupEntry]:
        """All finished groups, each with the sources for which it is the latest."""
        for name, value in self._groups.items():
            if name not in self._finished:
                continue
            entry = GroupEntry.from_dict(value)
            entry.sources = [
                each
                for each in entry.sources
                if each.key in self._known and self._known[each.key].group == entry.number
            ]
            yield entry

    def sweep(self) -> None:
        """Remove shards that no entry speaks of, which runs left that were killed."""
        named = {self.shard_name(shard) for entry in self.entries() for shard in entry.shards}
        for name in self.store.names(f"{self.prefix}/{SHARDS}"):
            if name not in named:
                self.store.delete(name)


@dataclass
class Changes:
    """A list of sources against what is finished."""

    new: list[SourceItem] = field(default_factory=list)
    changed: list[SourceItem] = field(default_factory=list)
    """Their bytes, or what is wanted of them, are others than before."""
    again: list[SourceItem] = field(default_factory=list)
    """They failed before and are tried again."""
    kept: list[SourceItem] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    """Keys that are finished but no longer listed."""

    @property
    def todo(self) -> list[SourceItem]:
        return [*self.new, *self.changed, *self.again]

    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {
            "new": len(self.new),
            "changed": len(self.changed),
            "again": len(self.again),
            "kept": len(self.kept),
            "gone": len(self.gone),
        }


@dataclass
class Begun:
    """State of sources when work on them began."""

    stamps: dict[str, list[Any]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)


def plain(name: str) -> str:
    """A name that any encoding can hold: bytes that are no UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _failed_row(item: SourceItem, outcome: Outcome) -> dict[str, Any]:
    row = ClipRow(path=item.relative, speaker=item.speaker)
    stage = "download" if outcome.reason in FETCHING else "executor"
    row.reason, row.stage, row.detail = outcome.reason.value, stage, outcome.detail
    return dict(row.as_dict())


FETCHING = (Reason.DOWNLOAD_FAILED, Reason.UNAVAILABLE)
"""Reasons that the download stage gives."""


def stamp_of(item: SourceItem) -> list[Any]:
    """What changes when a source does, without reading it; its last value is a digest of what
    the source says of it."""
    told = {
        "parts": [asdict(part) for part in item.parts],
        "speaker": item.speaker,
        "split": item.split,
        "reason": item.reason,
        "sound": stamp_of(item.sound) if item.sound else [],
    }
    told_digest = config_digest(told)
    if item.how is not How.LOCAL:
        return [shown(item.location), item.version, item.sha256, told_digest]
    try:
        found = Path(item.location).stat()
    except OSError:
        return [told_digest]
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, told_digest]


def same_stamp(now: list[Any], before: list[Any]) -> bool:
    """Whether two stamps are of the same state; a server that did not answer says nothing."""
    silent = len(now) == len(before) == 4 and now[1] == "" and isinstance(now[0], str)
    return now == before or (silent and [now[0], *now[2:]] == [before[0], *before[2:]])


def _digest(item: SourceItem) -> str:
    try:
        return content_digest(item.path)
    except OSError:
        return ""
