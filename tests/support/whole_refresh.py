"""A refresh in one process: real videos, real shards, neither Prefect nor Ray."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.fetch.item import fetch
from datasets.fetch.policy import DownloadSettings
from datasets.shards.index import read_index, read_samples
from datasets.shards.records import Verdict
from datasets.sources.addresses import AddressPolicy
from datasets.sources.items import How, SourceItem
from datasets.store.local import LocalStore
from tasks.ingest.journal import Journal
from tasks.ingest.stage import IngestWork
from tasks.ingest.verdicts import Thresholds
from tasks.publish.moves import move_sources
from tasks.publish.pack import PackConfig
from tasks.publish.version import Published, publish, refuse_losses
from tasks.runtime.stage import GroupOutcome, Outcome
from tests.support.ingest_stage import CONFIG, make_stage

PRIVATE = DownloadSettings(addresses=AddressPolicy(allow_private=True))


@dataclass
class Refreshed:
    """A published version, and what it took."""

    made: Published
    decoded: list[str]
    """Paths of the sources that were decoded."""
    moved: dict[str, str]

    def accepted(self) -> dict[str, str]:
        """Path of each published source -> its speaker."""
        return {
            row["path"]: row["speaker"]
            for row in self.made.rows
            if row["verdict"] == Verdict.ACCEPTED.value
        }

    def duplicates(self) -> dict[str, str]:
        """Path of each duplicate -> path of the source in its place."""
        return {
            row["path"]: row["duplicate_of"]
            for row in self.made.rows
            if row["verdict"] == Verdict.DUPLICATE.value
        }


class WholeRefresh:
    """Refreshes one dataset again and again.

    Args:
        folder: for the dataset and downloads.
    """

    def __init__(self, folder: Path) -> None:
        self.out, self.cache = folder / "out", folder / "cache"
        self.store = LocalStore(self.out)
        self.stage = make_stage(folder)
        self.packing = PackConfig(CONFIG.resolution, 0.3)

    def __call__(
        self,
        items: Sequence[SourceItem],
        backwards: bool = False,
        forget: bool = False,
        kind: str = "recordings",
    ) -> Refreshed:
        """Publish a list of sources.

        Args:
            items: the list.
            backwards: finish the groups in the opposite order, as other workers might.
            forget: drop what has gone.
            kind: what counts as a duplicate.
        """
        journal = Journal(self.store, CONFIG, 0.0)
        changes = journal.changes(items)
        moved = move_sources(journal, changes)
        todo = journal.changes(items).todo
        if not forget:
            refuse_losses(self.store, journal, items)
        groups = journal.plan(todo)
        begun = journal.begin(groups)
        decoded = [each.relative for each in todo]
        for group in reversed(groups) if backwards else groups:
            journal.finish(group, self._ingest(journal, group.name, group.items), [], begun)
        gone = journal.gone(items)
        packing = replace(self.packing, duplicates=kind)
        made = publish(
            self.store,
            Journal(self.store, CONFIG, 0.0),
            Thresholds(),
            packing,
            {},
            gone if forget else (),
            gone=gone,
        )
        return Refreshed(made, decoded, moved)

    def _ingest(self, journal: Journal, name: str, items: Sequence[SourceItem]) -> GroupOutcome:
        stage = self.stage
        stage.store, stage.prefix = self.store, journal.prefix
        stage.begin(name)
        outcomes = []
        for item in items:
            local = item.how is How.LOCAL
            path = item.path if local else fetch(item, self.cache, PRIVATE).path
            value = stage.process(IngestWork(item, path, "train"))
            outcomes.append(Outcome(item.key, value, item.reason, "", 1, 0.1))
        return GroupOutcome(name, tuple(outcomes), stage.finish(name))

    def shards(self) -> dict[str, set[str]]:
        """Split -> the paths that its clips' own facts name."""
        import json

        found: dict[str, set[str]] = {}
        for shard in read_index(self.out)["shards"]:
            for _, members in read_samples(self.store, f"shards/{shard['name']}"):
                found.setdefault(shard["split"], set()).add(json.loads(members["json"])["path"])
        return found
