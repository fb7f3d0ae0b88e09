"""What ingestion has finished, stored so that a run that was killed goes on where it stopped.

There is one entry per group of sources (`tasks.ingest.groups`): its sources with their rows,
and the shards that it wrote. A source's entry counts as long as the file's bytes, the
configuration and the code behind it are the same. Bytes are compared by sha256, and only
if size or times have changed. What is ingested again goes into a new group, whose entry then
counts, unless it is worth less than the previous one (`tasks.ingest.journal_entries.Worth`): a file
that cannot be used today keeps its earlier clips. What is no longer in the source stays.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

CODE_VERSION = 9
"""Raised by one whenever ingestion gives a different result for the same file and configuration, or
the journal changes its format. Since 6 mirrored videos stand upright, HD without tags is read as
BT.709, HDR is shown as SDR, and interlaced pictures are deinterlaced. Since 7 clips have a key
frame twice a second and are cheaper to decode, and the journal says where their members are.
Since 8 it knows what recordings look and sound like. Since 9 faces that hang or lie are
seen as they are."""
MAX_RUNS = 3
"""Number of runs in which a source that timed out, killed its worker or could not be fetched is
tried again."""
SET_ASIDE = "what the file gave before is kept"
CHANGED = "the file was written to while it was ingested"


class PlannedGroup(TypedDict):
    """A group as it was planned."""

    number: int
    keys: list[str]
    """Keys of its sources."""
    weight: float
    """As in `SourceGroup`."""


class Plan(TypedDict):
    """The new groups of one run."""

    groups: list[PlannedGroup]


@dataclass(slots=True)
class _Known:
    """What is remembered about a source."""

    group: int
    entry: SourceEntry
    """Without rows and print, which would fill the memory."""
    tried: SourceEntry | None = None
    """A later attempt on another state of the source that was worth less, with its first row:
    the earlier result of the source still counts."""
    tried_in: int = -1
    """The group of that attempt."""


class Journal:
    """The groups of one dataset.

    Args:
        store: the dataset's store; everything is below `staging/`, in one folder per
            configuration, so that trying another one and going back costs nothing.
        config: configuration of the clips.
        deadline_s: seconds that ingesting a source may take in this run.
        download_deadline_s: seconds that fetching one may take.
        retry_failed: try everything again that failed or was unavailable, however often it
            has been tried.
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
        """Stamps of sources that have returned to the state that counts."""
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
            known = _Known(entry.number, replace(each, rows=[], recording=""))
            if before and before.group == entry.number and each.confirmed < before.tried_in:
                known.tried, known.tried_in = before.tried, before.tried_in
            self._known[each.key] = known

    def _is_whole(self, shard: Shard, there: set[str]) -> bool:
        """Whether a finished shard is intact; objects are either complete or missing.

        A published shard is the same file under a second name: truncating one truncates the other.
        """
        name = self.shard_name(shard)
        if name not in there:
            return False
        return not isinstance(self.store, LocalStore) or self.store.size(name) == shard.info.bytes

    def shard_name(self, shard: Shard) -> str:
        """Path of a finished shard in the store."""
        return f"{self.prefix}/{SHARDS}/{shard.info.name}"

    def changes(self, items: Sequence[SourceItem]) -> "Changes":
        """How a list of sources and the finished sources differ."""
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
        """Whether the result that counts for a source came from a complete file."""
        known = self._known.get(plain(item.key))
        return known is not None and known.entry.worth is Worth.READ and not known.entry.note

    def gone(self, items: Sequence[SourceItem]) -> list[str]:
        """Keys of finished sources that are missing from a list of sources."""
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
        """Whether a source that failed is tried again in this run."""
        if entry.worth is not Worth.NOT_HAD:
            return False
        fetching = entry.stage == DOWNLOAD
        more = entry.deadline_s < (self.download_deadline_s if fetching else self.deadline_s)
        return self.retry_failed or (entry.failed and (entry.runs < MAX_RUNS or more))

    def _keep_stamps(self) -> None:
        """Record the new times of files with the same bytes, so as not to read them again,
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
        """Groups of the sources that need work: those planned before, then new ones.

        The whole plan of a run is stored before its first group is begun, so that a run
        that goes on makes the same groups, wherever the previous one was killed.
        """
        todo = {plain(item.key): item for item in items}
        groups = []
        planned = [group for _, plan in self._plans.items() for group in plan["groups"]]
        for each in planned:
            if f"{each['number']:06d}" not in self._finished:
                mine = tuple(todo.pop(key) for key in each["keys"] if key in todo)
                if mine:
                    groups.append(SourceGroup(each["number"], mine, each["weight"]))
        first = self.next_number()
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

    def next_number(self) -> int:
        """The lowest number above those of all groups, planned or finished."""
        planned = [each["number"] for _, plan in self._plans.items() for each in plan["groups"]]
        return max([*planned, *map(int, self._finished)], default=-1) + 1

    def begin(self, groups: Iterable[SourceGroup]) -> "Begun":
        """Record the state of sources before work on them begins."""
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
        """Store the result of a group.

        Args:
            group: the planned group.
            outcome: results of the sources that were ingested.
            lost: rows of those that could not be fetched.
            begun: what `begin` recorded.

        Raises:
            UserError: this process does not find the shards that a worker wrote.
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
                    f"on this machine it {found}: use an output on storage that all nodes of the "
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
            content="" if reason else value.get("content", ""),
            recording="" if reason else value.get("recording", ""),
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
        """Check that clips of the published dataset are still here.

        Raises:
            UserError: some are missing, because the folder with finished work was deleted.
        """
        held = {key for entry in self.entries() for shard in entry.shards for key in shard.keys}
        if missing := clip_ids - held:
            raise UserError(
                f"{self.store.url}/{self.prefix} lacks {len(missing)} clips of the dataset: "
                "refresh it again with python -m flows.refresh_dataset"
            )

    def succeed(self, heirs: Mapping[str, str]) -> None:
        """Record that sources take the place of others with the same content, and drop those.

        Args:
            heirs: key of each source that has gone -> key of the one in its place.
        """
        about: dict[str, list[list[str]]] = {}
        for entry in self.entries() if heirs else ():
            for each in entry.sources:
                if each.key in heirs:
                    mine = about.setdefault(heirs[each.key], [])
                    mine += [*each.formerly, [each.rows[0]["path"], each.rows[0]["speaker"]]]
        for name in sorted({f"{self._known[key].group:06d}" for key in about}):
            found = self._read(name)
            assert found is not None
            for each in found.sources:
                new = about.get(each.key, [])
                each.formerly += [one for one in new if one not in each.formerly]
            self.keep(found)
        self.forget(heirs)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop sources for good; their clips leave the shards at the next publication."""
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
        # With all its sources: otherwise attempts that were worth less would be repeated.
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
        """A row for each source whose present state gives nothing, while its
        earlier result still counts; `without` holds the keys of those to leave out."""
        tried = (self._known[key].tried for key in sorted(self._known.keys() - set(without)))
        rows = [row for each in tried if each for row in each.rows]
        return [row | {"detail": f"{row['detail']}; {SET_ASIDE}"} for row in rows]

    def sweep(self) -> None:
        """Remove shards that no entry mentions, left behind by killed runs."""
        named = {self.shard_name(shard) for entry in self.entries() for shard in entry.shards}
        for name in self.store.names(f"{self.prefix}/{SHARDS}"):
            if name not in named:
                self.store.delete(name)


def _refusal(item: SourceItem, outcome: Outcome, rows: Sequence[LedgerRow]) -> str:
    """Why a source as a whole gave nothing; empty if it was read to its end.

    What the source list itself excludes counts as read: it is meant to have no clips. What must
    not be fetched does not: another policy may allow it, and its earlier clips stay.
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
