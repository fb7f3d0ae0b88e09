"""Fetch and ingest groups of sources: two pools of workers, one feeding the other.

Sources that must be fetched go through the first pool; a group is ingested once all its
sources are there. Fetching stops while enough groups wait, so that the disk is not filled by
files that cannot be ingested yet.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import SourceError
from datasets.fetch.item import discard
from datasets.sources.items import How, SourceItem
from tasks.ingest.download_stage import DownloadStage
from tasks.ingest.groups import SourceGroup
from tasks.ingest.journal import Journal
from tasks.ingest.journal_entries import GroupEntry
from tasks.ingest.stage import IngestStage, IngestWork
from tasks.runtime.pool import Pool, drive
from tasks.runtime.room import fitting_workers as fitting
from tasks.runtime.stage import GroupOutcome, ItemGroup, Limits, Outcome, StageProgress

AHEAD = 4
"""Number of groups that may wait for a worker before fetching pauses."""

FINISH_S = 3600.0
"""Seconds that storing a group's shards may take; uplinks can be slow."""


@dataclass(frozen=True)
class Crew:
    """How many workers there are, and how long they may take."""

    workers: int | None = None
    """Number of processes that ingest; None: as many as fit."""
    deadline_s: float = 600.0
    """Seconds that ingesting a source may take."""


class RefreshRun:
    """Fetches and ingests groups; needs a `ray_session`.

    Args:
        journal: stores their results.
        ingest: the stage that ingests.
        download: the stage that fetches; None if all sources are local.
        splits: speaker -> train or test.
        crew: the workers.
        on_entry: called with every finished group.
        keep_downloads: whether fetched files are kept once their group is finished.
    """

    def __init__(
        self,
        journal: Journal,
        ingest: IngestStage,
        download: DownloadStage | None,
        splits: Mapping[str, str],
        crew: Crew,
        on_entry: Callable[[GroupEntry], None],
        keep_downloads: bool = True,
    ) -> None:
        self.journal, self.splits, self.on_entry = journal, splits, on_entry
        self.keep_downloads = keep_downloads
        workers = fitting(ingest.resources, crew.workers)
        self._ingesting = Pool(
            ingest, workers, Limits(crew.deadline_s, finish_s=FINISH_S), self._ingested
        )
        self._download = download
        self._fetching: Pool | None = None
        if download is not None:
            self._fetching = Pool(
                download,
                download.settings.connections,
                Limits(download.executor_deadline_s),
                self._fetched,
                may_start=lambda: len(self._ingesting.waiting) < AHEAD + workers,
            )
        self._groups: dict[str, SourceGroup] = {}
        self._group_of: dict[str, str] = {}
        self._to_fetch: dict[str, int] = {}
        self._paths: dict[str, Path] = {}
        self._sounds: dict[str, Path] = {}
        self._lost: dict[str, list[Outcome]] = {}
        self._users: Counter[str] = Counter()
        """How many sources still need a fetched file."""

    def run(
        self,
        groups: Sequence[SourceGroup],
        on_progress: Callable[[list[StageProgress]], None] | None = None,
    ) -> None:
        """Process all groups.

        Args:
            groups: the groups to process.
            on_progress: called with the states of fetching, if there is something to fetch,
                and of ingesting.
        """
        self._begun = self.journal.begin(groups)
        # The largest first, so that no worker is left with a long group at the end.
        for group in sorted(groups, key=lambda group: (-group.weight, group.number)):
            self._groups[group.name] = group
            to_fetch = [item for item in group.items if item.how is not How.LOCAL and item.wanted]
            self._to_fetch[group.name] = len(to_fetch)
            self._users.update(each.location for item in to_fetch for each in _files(item))
            for item in to_fetch:
                self._group_of[item.key] = group.name
                assert self._fetching is not None
                self._fetching.submit(ItemGroup(item.key, ((item.key, item),)))
            for item in group.items:
                if item.how is How.LOCAL and item.wanted:
                    self._paths[item.key] = item.path
                    if item.sound:
                        self._sounds[item.key] = item.sound.path
            if not to_fetch:
                self._start(group)
        drive([pool for pool in (self._fetching, self._ingesting) if pool], on_progress)

    def _fetched(self, end: GroupOutcome) -> None:
        [outcome] = end.outcomes
        name = self._group_of.pop(outcome.key)
        if outcome.value is None:
            self._lost.setdefault(name, []).append(outcome)
        else:
            self._paths[outcome.key] = outcome.value.path
            if outcome.value.sound:
                self._sounds[outcome.key] = outcome.value.sound
        self._to_fetch[name] -= 1
        if not self._to_fetch[name]:
            self._start(self._groups[name])

    def _start(self, group: SourceGroup) -> None:
        """Queue a group, of which everything obtainable has been fetched."""
        lost = {outcome.key for outcome in self._lost.get(group.name, [])}
        works = [self._work(item) for item in group.items if item.key not in lost]
        # Without any item the batch would end at once.
        self._ingesting.submit(
            ItemGroup(group.name, tuple((work.item.key, work) for work in works))
        )

    def _work(self, item: SourceItem) -> IngestWork:
        split = item.split or self.splits[item.speaker]
        paths = self._paths.get(item.key), self._sounds.get(item.key)
        return IngestWork(item, paths[0], split, paths[1], self.journal.had_whole(item))

    def _ingested(self, end: GroupOutcome) -> None:
        group = self._groups.pop(end.key)
        entry = self.journal.finish(group, end, self._lost.pop(end.key, []), self._begun)
        for item in group.items:
            self._paths.pop(item.key, None)
            self._sounds.pop(item.key, None)
            if item.how is not How.LOCAL and item.wanted:
                self._let_go(item)
        self.on_entry(entry)

    def _let_go(self, item: SourceItem) -> None:
        """Remove fetched files that are no longer needed. Members of archives are not kept:
        they can be extracted again."""
        assert self._download is not None
        for each in _files(item):
            self._users[each.location] -= 1
            kept = self.keep_downloads and each.how is not How.MEMBER
            if kept or (self._users[each.location] and each.how is not How.MEMBER):
                continue
            with suppress(SourceError):
                discard(each, self._download.folder, self._download.settings)


def _files(item: SourceItem) -> list[SourceItem]:
    """The item, and its sound file if that comes separately and must be fetched."""
    return [item, item.sound] if item.sound and item.sound.how is not How.LOCAL else [item]
