"""What ingestion has finished, kept so that a run that was killed goes on where it was.

There is one entry per group of sources (`tasks.ingest.groups`): its sources with their rows,
and the shards that it made. A source's entry counts as long as the file's bytes, the
configuration and the code that made it are the same. Bytes are compared by sha256, and only
where size or times have changed. What is ingested anew comes in a new group, whose entry then
counts, unless it tells less than the one before (`tasks.ingest.journal_entries.Worth`): a file that
cannot be used today keeps the clips that it had. What is no longer in the source stays.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from datasets.errors import Reason, UserError
from datasets.redact import redact
from datasets.shards.records import ClipRow, LedgerRow
from datasets.shards.writer import Shard
from datasets.sources.items import How, SourceItem
from datasets.store.local import LocalStore
from datasets.store.lock import STAGING
from datasets.store.manifest import Manifest, config_digest
from datasets.store.protocol import Store
from tasks.ingest.config import IngestConfig
from tasks.ingest.groups import SourceGroup, group_sources
from tasks.ingest.journal_entries import (
    DOWNLOAD,
    Begun,
    Changes,
    GroupEntry,
    GroupRecord,
    SourceEntry,
    Worth,
    shards_from,
)
from tasks.ingest.layout import SHARDS
from tasks.ingest.source_state import digest_of, plain, same_stamp, stamp_of, written_since
from tasks.runtime.stage import GroupOutcome, Outcome

CODE_VERSION = 6
"""Raised when ingestion makes something else of the same file and configuration, or the journal
is kept in another form. With 6 mirrored videos stand upright, HD without tags is read as BT.709,
HDR is shown as SDR, and interlaced pictures are made whole."""
MAX_RUNS = 3
"""Runs in which a source that timed out, killed its worker or could not be fetched is tried
again."""
SET_ASIDE = "what the file gave before is kept"
CHANGED = "the file was written to while it was ingested"


class PlannedGroup(TypedDict):
    """A group as it was planned."""

    number: int
    keys: list[str]
    """Of its sources."""
    weight: float
    """As `SourceGroup` has it."""


class Plan(TypedDict):
    """The new groups of one run."""

    groups: list[PlannedGroup]


@dataclass(slots=True)
class _Known:
    """What is remembered of a source."""

    group: int
    entry: SourceEntry
    """Without rows."""
    tried: SourceEntry | None = None
    """A later attempt on another state of the source that came to less, with its first row:
    what came of the source before still counts."""
    tried_in: int = -1
    """The group of that attempt."""


class Journal:
    """Groups of one dataset.

    Args:
        store: of the dataset; everything lies below `staging/`, in one folder per
            configuration, so that trying another one and coming back costs nothing.
        config: of the clips.
        deadline_s: seconds that ingesting a source may take in this run.
        download_deadline_s: seconds that fetching one may take.
        retry_failed: try everything again that failed or was unavailable, however often that
            was.
    """

    def __init__(
        self,
        store: Store,
        config: IngestConfig,
        deadline_s: float,
        download_deadline_s: float = 0.0,
        retry_failed: bool = False,
    ) -> None:
        self.store, self.config, self.deadline_s = store, config, deadline_s
        self.download_deadline_s, self.retry_failed = download_deadline_s, retry_failed
        made_by = config_digest({"code": CODE_VERSION, "config": config.key()})
        self.prefix = f"{STAGING}/{made_by[:12]}"
        self._plans: Manifest[Plan] = Manifest(store, f"{self.prefix}/plans")
        self._groups: Manifest[GroupRecord] = Manifest(store, f"{self.prefix}/groups")
        self._known: dict[str, _Known] = {}
        self._confirmed: dict[str, list[Any]] = {}
        """Stamps of sources that are in the state again that counts."""
        there = set(store.names(f"{self.prefix}/{SHARDS}"))
        self._finished: set[str] = set()
        for name, value in sorted(self._groups.items()):
            entry = GroupEntry.from_record(value)
            if all(self._is_whole(shard, there) for shard in entry.shards):
                self._finished.add(name)
                self._remember(entry)

    def _read(self, name: str) -> GroupEntry | None:
        value = self._groups.get(name)
        return GroupEntry.from_record(value) if value else None

    def _remember(self, entry: GroupEntry) -> None:
        for each in entry.sources:
            before = self._known.get(each.key)
            if before and before.group > entry.number:
                continue
            if before and before.group < entry.number and each.worth < before.entry.worth:
                if entry.number > before.entry.confirmed:
                    before.tried = replace(each, rows=each.rows[:1])
                    before.tried_in = entry.number
                continue
            known = _Known(entry.number, replace(each, rows=[]))
            if before and before.group == entry.number and each.confirmed < before.tried_in:
                known.tried, known.tried_in = before.tried, before.tried_in
            self._known[each.key] = known

    def _is_whole(self, shard: Shard, there: set[str]) -> bool:
        """Whether a finished shard is as it was; objects are whole or not there.

        A published shard is the same file under a second name: cut there, it is cut here.
        """
        name = self.shard_name(shard)
        if name not in there:
            return False
        return not isinstance(self.store, LocalStore) or self.store.size(name) == shard.info.bytes

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
                again = known.entry.worth is Worth.NOT_HAD
                (found.again if again else found.changed).append(item)
        found.gone = self.gone(items)
        self._keep_stamps()
        return found

    def had_whole(self, item: SourceItem) -> bool:
        """Whether what counts of a source came of a file that was there to its end."""
        known = self._known.get(plain(item.key))
        return known is not None and known.entry.worth is Worth.READ and not known.entry.note

    def gone(self, items: Sequence[SourceItem]) -> list[str]:
        """Keys of finished sources that a list of sources lacks."""
        return sorted(self._known.keys() - {plain(item.key) for item in items})

    def finished(self, item: SourceItem) -> bool:
        """Whether a source needs no more work."""
        known = self._known.get(plain(item.key))
        if known is None:
            return False
        stamp, entry = stamp_of(item), known.entry
        if known.tried and same_stamp(stamp, known.tried.stamp):
            return not self._worth_another(known.tried)
        if self._worth_another(entry):
            return False
        if same_stamp(stamp, entry.stamp):
            if known.tried:
                self._confirmed[plain(item.key)] = entry.stamp
            return True
        same = item.how is How.LOCAL and bool(entry.digest) and stamp[-1:] == entry.stamp[-1:]
        same = same and digest_of(item) == entry.digest
        if same:
            self._confirmed[plain(item.key)] = stamp
        return same

    def _worth_another(self, entry: SourceEntry) -> bool:
        """Whether what could not be had is tried again in this run."""
        if entry.worth is not Worth.NOT_HAD:
            return False
        fetching = entry.stage == DOWNLOAD
        more = entry.deadline_s < (self.download_deadline_s if fetching else self.deadline_s)
        return self.retry_failed or (entry.failed and (entry.runs < MAX_RUNS or more))

    def _keep_stamps(self) -> None:
        """Write down the new times of files with the same bytes, so as not to read them again,
        and that attempts on other bytes are void."""
        by_group: dict[int, dict[str, list[Any]]] = {}
        for key, stamp in self._confirmed.items():
            by_group.setdefault(self._known[key].group, {})[key] = stamp
        self._confirmed.clear()
        last = max(map(int, self._finished), default=-1)
        for group, stamps in by_group.items():
            entry = self._read(f"{group:06d}")
            assert entry is not None
            for each in entry.sources:
                if each.key in stamps:
                    each.stamp, each.confirmed = stamps[each.key], last
            self.keep(entry)

    def plan(self, items: Sequence[SourceItem]) -> list[SourceGroup]:
        """Groups of the sources that need work: those that were planned before, then new ones.

        The plan of a run is kept as a whole before its first group is begun, so that a run
        that goes on makes the same groups, wherever the one before was killed.
        """
        todo = {plain(item.key): item for item in items}
        groups = []
        planned = [group for _, plan in self._plans.items() for group in plan["groups"]]
        for each in planned:
            if f"{each['number']:06d}" not in self._finished:
                mine = tuple(todo.pop(key) for key in each["keys"] if key in todo)
                if mine:
                    groups.append(SourceGroup(each["number"], mine, each["weight"]))
        numbers = [each["number"] for each in planned] + [int(name) for name in self._finished]
        first = max(numbers, default=-1) + 1
        if new := group_sources(list(todo.values()), first):
            plan: list[PlannedGroup] = [
                {
                    "number": group.number,
                    "keys": [plain(item.key) for item in group.items],
                    "weight": group.weight,
                }
                for group in new
            ]
            self._plans.put(f"{first:06d}", {"groups": plan})
        return [*groups, *new]

    def begin(self, groups: Iterable[SourceGroup]) -> "Begun":
        """Note the state of sources before they are worked on."""
        begun = Begun()
        for group in groups:
            for item in group.items:
                key, stamp = plain(item.key), stamp_of(item)
                known = self._known.get(key)
                begun.stamps[item.key], begun.runs[item.key] = stamp, 0
                for before in (known.tried, known.entry) if known else ():
                    if before and before.failed and same_stamp(stamp, before.stamp):
                        begun.runs[item.key] = before.runs
                        break
        return begun

    def finish(
        self,
        group: SourceGroup,
        outcome: GroupOutcome,
        lost: Sequence[Outcome],
        begun: "Begun",
    ) -> GroupEntry:
        """Keep what came of a group.

        Args:
            group: as planned.
            outcome: of the sources that were ingested.
            lost: of those that could not be fetched.
            begun: what `begin` noted.

        Raises:
            UserError: the shards that a worker wrote are not where this process looks for them.
        """
        shards = shards_from(outcome.value or [])
        self._must_see(shards)
        outcomes = {each.key: each for each in outcome.outcomes}
        fetching = {each.key: each for each in lost}
        sources = [
            self._source(item, fetching[item.key], begun, DOWNLOAD)
            if item.key in fetching
            else self._source(item, outcomes[item.key], begun, "executor")
            for item in group.items
        ]
        entry = GroupEntry(group.number, sources, shards)
        self.keep(entry)
        return entry

    def _must_see(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            name = self.shard_name(shard)
            size = self.store.size(name)
            if size != shard.info.bytes:
                found = "is not there" if size is None else f"has {size} bytes"
                raise UserError(
                    f"a worker wrote {name} with {shard.info.bytes} bytes, but in {self.store.url} "
                    f"of this machine it {found}: give an output on storage that all nodes of the "
                    "cluster share"
                )

    def keep(self, entry: GroupEntry) -> None:
        """Write a group's entry, or write it again with other shards."""
        name = f"{entry.number:06d}"
        self._groups.put(name, entry.as_record())
        self._finished.add(name)
        self._remember(entry)

    def _source(self, item: SourceItem, outcome: Outcome, begun: Begun, stage: str) -> SourceEntry:
        value = outcome.value or {"digest": "", "video_seconds": 0.0, "rows": []}
        rows = value["rows"] or [_failed_row(item, outcome.reason, stage, outcome.detail)]
        reason = _refusal(item, outcome, rows)
        if not outcome.reason and written_since(item, begun.stamps[item.key]):
            reason = Reason.NOT_READ.value
            rows = [_failed_row(item, Reason.NOT_READ, "decode", CHANGED)]
        for row in rows:
            row["path"], row["speaker"] = plain(row["path"]), plain(row["speaker"])
            row["detail"] = redact(row["detail"])
        return SourceEntry(
            key=plain(item.key),
            rows=rows,
            stamp=begun.stamps[item.key],
            digest=value["digest"],
            split=item.split,
            reason=reason,
            stage=stage if outcome.reason else "",
            note="" if reason else value.get("note", ""),
            heard="" if reason else value.get("heard", ""),
            runs=begun.runs[item.key] + 1,
            deadline_s=self.download_deadline_s if stage == DOWNLOAD else self.deadline_s,
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

    def repack(self, number: int, shards: Sequence[Shard]) -> None:
        """Write a group's entry again with other shards."""
        entry = self._read(f"{number:06d}")
        assert entry is not None
        # With all its sources: attempts that came to less would be made again otherwise.
        self.keep(GroupEntry(number, entry.sources, list(shards)))

    def entries(self) -> Iterator[GroupEntry]:
        """All finished groups, each with the sources for which it is the latest."""
        for name, value in self._groups.items():
            if name not in self._finished:
                continue
            entry = GroupEntry.from_record(value)
            entry.sources = [
                each
                for each in entry.sources
                if each.key in self._known and self._known[each.key].group == entry.number
            ]
            yield entry

    def set_aside(self, without: Iterable[str] = ()) -> list[LedgerRow]:
        """A row for each source that is in a state now that gives nothing, while what it gave
        before still counts; `without` has keys of those to leave out."""
        tried = (self._known[key].tried for key in sorted(self._known.keys() - set(without)))
        rows = [row for each in tried if each for row in each.rows]
        return [row | {"detail": f"{row['detail']}; {SET_ASIDE}"} for row in rows]

    def sweep(self) -> None:
        """Remove shards that no entry speaks of, which runs left that were killed."""
        named = {self.shard_name(shard) for entry in self.entries() for shard in entry.shards}
        for name in self.store.names(f"{self.prefix}/{SHARDS}"):
            if name not in named:
                self.store.delete(name)


def _refusal(item: SourceItem, outcome: Outcome, rows: Sequence[LedgerRow]) -> str:
    """Why a source as a whole gave nothing; empty where it was read to its end.

    What the source list itself excludes counts as read: it is meant to have no clips. What may
    not be fetched does not: another policy has it, and what it gave before stays.
    """
    if outcome.reason:
        return outcome.reason.value
    if item.reason is Reason.NOT_ALLOWED:
        return item.reason.value
    whole = item.wanted and all(row["shot"] < 0 for row in rows)
    return str(rows[0]["reason"]) if whole else ""


def _failed_row(item: SourceItem, reason: Reason, stage: str, detail: str) -> LedgerRow:
    row = ClipRow(path=item.relative, speaker=item.speaker)
    row.reason, row.stage, row.detail = reason.value, stage, detail
    return row.as_row()
