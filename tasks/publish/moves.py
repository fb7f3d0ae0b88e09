"""Sources that only changed their name keep their clips: nothing is decoded again.

A new name and a name that has gone, with the same content, are a move. The clips are written into
shards of a new group under their new names, as if they had been ingested from there.
"""

import json
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from datasets.shards.records import LedgerRow
from datasets.shards.writer import MAX_BYTES, ShardWriter
from datasets.sources.items import How, SourceItem
from tasks.ingest.file_run import WHOLE, clip_prefix
from tasks.ingest.journal import Journal
from tasks.ingest.journal_entries import Changes, GroupEntry, SourceEntry, Worth
from tasks.ingest.layout import SHARDS
from tasks.ingest.source_state import content_of, digest_of, plain, stamp_of
from tasks.publish.group_shards import merged, ranks_of, scratch_of


@dataclass(frozen=True)
class Move:
    """A source under its new name."""

    before: SourceEntry
    item: SourceItem

    @property
    def paths(self) -> tuple[str, str]:
        """Its path in the ledger, before and now."""
        return self.before.rows[0]["path"], plain(self.item.relative)

    def entry(self) -> SourceEntry:
        """The entry under the new name."""
        row = self.before.rows[0]
        return replace(
            self.before,
            key=plain(self.item.key),
            rows=[self._row(row) for row in self.before.rows],
            stamp=stamp_of(self.item),
            split=self.item.split,
            formerly=[*self.before.formerly, [row["path"], row["speaker"]]],
            confirmed=-1,
        )

    def _row(self, row: LedgerRow) -> LedgerRow:
        names = {"path": plain(self.item.relative), "speaker": plain(self.item.speaker)}
        return row | {**names, "clip_id": self.clip_id(row["clip_id"])}  # type: ignore[return-value]

    def clip_id(self, before: str) -> str:
        """The name of a clip as ingestion would give it now."""
        prefix, *rest = before.rsplit("-", 3)
        for part in self.item.parts or (WHOLE,):
            old, new = (f"{path}/{part.name}" if part.name else path for path in self.paths)
            if prefix == clip_prefix(old):
                return "-".join([clip_prefix(new), *rest])
        return before

    def members(self, members: Mapping[str, bytes]) -> dict[str, bytes]:
        """The files of a clip, whose facts have the new names."""
        facts = json.loads(members["json"])
        facts |= self._row({"clip_id": facts["clip_id"]})
        return {**members, "json": json.dumps(facts, sort_keys=True).encode("ascii")}


def move_sources(
    journal: Journal, changes: Changes, max_shard_bytes: int = MAX_BYTES
) -> dict[str, str]:
    """Carry over what has only changed its name; the journal then knows it by the new one.

    Args:
        journal: of the dataset.
        changes: the list of sources compared with it.
        max_shard_bytes: size at which a shard is closed.

    Returns:
        Path before -> path now.
    """
    gone = set(changes.gone)
    if not gone or not changes.new:
        return {}
    lost: list[tuple[GroupEntry, SourceEntry]] = []
    staying: set[str] = set()
    for group in journal.entries():
        for source in group.sources:
            if source.key not in gone:
                staying |= {row["speaker"] for row in source.rows}
            elif source.content and source.worth is Worth.READ and source.rows:
                lost.append((group, source))
    moves: dict[int, list[Move]] = {}
    groups = {group.number: group for group, _ in lost}
    done: dict[str, str] = {}
    for number, move in _match(lost, changes.new, staying):
        moves.setdefault(number, []).append(move)
        done[move.paths[0]] = move.paths[1]
    for number, mine in sorted(moves.items()):
        _move(journal, groups[number], mine, max_shard_bytes)
    journal.forget(move.before.key for mine in moves.values() for move in mine)
    return done


def _match(
    lost: Sequence[tuple[GroupEntry, SourceEntry]],
    new: Iterable[SourceItem],
    staying: Collection[str],
) -> list[tuple[int, Move]]:
    """New names for sources that have gone, and the numbers of their groups.

    Of several with one content those with the same file name belong together. A new speaker comes
    before one of those `staying`: a renamed folder keeps its split, a copy has that of its own.
    """
    free: dict[str, list[tuple[int, SourceEntry]]] = {}
    for group, source in sorted(lost, key=lambda pair: (pair[0].number, pair[1].key)):
        free.setdefault(source.content, []).append((group.number, source))
    sizes = {source.stamp[0] for _, source in lost if source.stamp}
    found = []
    for item in sorted(new, key=lambda each: (plain(each.speaker) in staying, each.key)):
        here = free.get(_content(item, sizes))
        if not here:
            continue
        name = PurePosixPath(plain(item.relative)).name
        chosen = min(here, key=lambda pair: PurePosixPath(pair[1].rows[0]["path"]).name != name)
        here.remove(chosen)
        found.append((chosen[0], Move(chosen[1], item)))
    return found


def _content(item: SourceItem, sizes: set[object]) -> str:
    """The content of a source as far as it is known without fetching or needless reading."""
    if item.sound or item.reason:
        return ""
    if item.how is not How.LOCAL:
        return content_of(item.sha256, "", item.parts)
    if item.expected_bytes not in sizes:
        return ""
    return content_of(digest_of(item), "", item.parts)


def _move(journal: Journal, group: GroupEntry, moves: Sequence[Move], max_shard_bytes: int) -> None:
    """Write a new group with the sources of an old one that have moved."""
    by_key = {move.before.key: move for move in moves}
    old = replace(group, sources=[each for each in group.sources if each.key in by_key])
    of_clip = {
        row["clip_id"]: by_key[each.key]
        for each in old.sources
        for row in each.rows
        if row["clip_id"]
    }
    number = journal.next_number()
    with tempfile.TemporaryDirectory(prefix="latentsync-") as scratch:
        writer = ShardWriter(scratch_of(journal, scratch), number, max_shard_bytes)
        try:
            splits = {key: shard.info.split for shard in group.shards for key in shard.keys}
            for key, members in merged(journal.store, journal, group.shards, ranks_of(old)):
                move = of_clip[key]
                writer.add(splits[key], move.clip_id(key), move.members(members))
            shards = writer.finish(journal.store, f"{journal.prefix}/{SHARDS}")
        except BaseException:
            writer.discard()
            raise
    entries = [by_key[each.key].entry() for each in old.sources]
    journal.keep(GroupEntry(number, entries, shards))
