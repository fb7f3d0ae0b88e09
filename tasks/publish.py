"""Judge everything that is finished and publish it as a new version, if anything is new."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from datasets.errors import UserError
from datasets.shards import read_index
from datasets.store import Store
from tasks import dataset_pack
from tasks.dataset_pack import PackConfig
from tasks.ingest_file import IngestConfig
from tasks.ingest_journal import Journal
from tasks.verdicts import Thresholds, judge


@dataclass(frozen=True)
class Published:
    """A version of a dataset."""

    dataset: str
    digest: str
    previous: str
    """Digest of the version before; the same one where nothing has changed."""
    inputs: int
    rows: list[dict[str, Any]]

    @property
    def changed(self) -> bool:
        return self.digest != self.previous

    def summary(self) -> dict[str, Any]:
        """Counts for a flow's result."""
        good = len(dataset_pack.accepted(self.rows))
        return {
            "dataset": self.dataset,
            "digest": self.digest,
            "inputs": self.inputs,
            "clips_accepted": good,
            "clips_rejected": len(self.rows) - good,
            "reasons": dataset_pack.reasons(self.rows),
        }


def publish(
    store: Store,
    journal: Journal,
    thresholds: Thresholds,
    packing: PackConfig,
    notes: Mapping[str, Any],
) -> Published:
    """Publish what a journal holds.

    Args:
        store: of the dataset.
        journal: of its groups.
        thresholds: which clips are good enough.
        packing: how they are split and packed.
        notes: what else the receipt should say of this version.
    """
    groups = list(journal.entries())
    found = [row for group in groups for source in group.sources for row in source.rows]
    rows = judge(found, thresholds)
    rows.sort(key=dataset_pack.ledger_order)
    previous = _digest(store)
    digest = dataset_pack.published(store, dataset_pack.fingerprint(groups, rows, packing))
    if digest is None:
        kept = {"ingest": asdict(journal.config), "thresholds": asdict(thresholds), **notes}
        digest = dataset_pack.pack(
            store, journal, groups, rows, packing, {**kept, "previous": previous}
        )
    inputs = sum(len(group.sources) for group in groups)
    return Published(store.url, digest, previous, inputs, rows)


def _digest(store: Store) -> str:
    """Of the version that is published; empty when there is none."""
    try:
        return str(read_index(store.url)["digest"])
    except UserError:
        return ""


@dataclass(frozen=True)
class Settings:
    """What a published dataset was made with."""

    ingest: IngestConfig
    thresholds: Thresholds
    packing: PackConfig


def settings_of(store: Store) -> Settings:
    """Read them from the receipt of the last refresh.

    Raises:
        UserError: there is no dataset, or its receipt is gone or of another release.
    """
    read_index(store.url)
    receipt = dataset_pack.read_receipt(store) or {}
    try:
        return Settings(
            IngestConfig(**receipt["ingest"]),
            Thresholds(**receipt["thresholds"]),
            PackConfig(**receipt["packing"]),
        )
    except (KeyError, TypeError):
        raise UserError(
            f"{store.url}/{dataset_pack.RECEIPT} does not say how the dataset was made: refresh "
            "it once with python -m flows.refresh_dataset"
        ) from None
