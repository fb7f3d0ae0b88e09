"""Judge everything that is finished and publish it as a new version, if anything is new."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from datasets.errors import UserError
from datasets.shards import read_index, remove_replaced
from datasets.store import Store
from tasks import dataset_pack
from tasks.data_card import data_card
from tasks.data_card_page import card_files
from tasks.dataset_pack import PackConfig
from tasks.ingest_config import IngestConfig
from tasks.ingest_journal import Journal
from tasks.relabel_report import RelabelReport, relabel_report
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
    relabelled: RelabelReport | None = None
    """What other thresholds than those of the version before did to its clips."""

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
        notes: what else the receipt and the data card should say of this version: `changes`,
            and the `source`.
    """
    groups = list(journal.entries())
    found = [row for group in groups for source in group.sources for row in source.rows]
    rows = judge(found, thresholds)
    rows.sort(key=dataset_pack.ledger_order)
    previous, relabelled = _digest(store), None
    digest = dataset_pack.published(store, dataset_pack.fingerprint(groups, rows, packing))
    if digest is not None:
        # A run that was killed may have left the shards that its new index replaced.
        remove_replaced(store, read_index(store.url))
    else:
        kept = {"ingest": asdict(journal.config), "thresholds": asdict(thresholds), **notes}
        kept["previous"] = previous
        relabelled = _relabelled(store, rows, thresholds)

        def card(index: Mapping[str, Any], splits: Mapping[str, str]) -> Mapping[str, bytes]:
            return _card(rows, index, splits, kept, relabelled)

        digest = dataset_pack.pack(store, journal, groups, rows, packing, kept, card)
        journal.sweep()
    inputs = sum(len(group.sources) for group in groups)
    return Published(store.url, digest, previous, inputs, rows, relabelled)


def _relabelled(
    store: Store, rows: list[dict[str, Any]], thresholds: Thresholds
) -> RelabelReport | None:
    """What became of the clips of the published version; None where thresholds are the same."""
    receipt = dataset_pack.read_receipt(store) or {}
    if receipt.get("thresholds") in (None, asdict(thresholds)):
        return None
    columns = ("clip_id", "verdict", "reason")
    now = {row["clip_id"]: row for row in rows if row["clip_id"]}
    before = [row for row in dataset_pack.read_ledger(store, columns) if row["clip_id"] in now]
    return relabel_report(before, [now[row["clip_id"]] for row in before])


def _card(
    rows: list[dict[str, Any]],
    index: Mapping[str, Any],
    splits: Mapping[str, str],
    notes: Mapping[str, Any],
    relabelled: RelabelReport | None,
) -> Mapping[str, bytes]:
    """The files of the data card."""
    shown = [{**row, "split": splits.get(row["speaker"], "")} for row in rows]
    about = {name: notes[name] for name in ("thresholds", "source") if notes.get(name)}
    counts = notes.get("changes", {})
    changes: dict[str, Any] = {"previous": notes["previous"]}
    changes |= {kind: counts.get(kind, 0) for kind in ("new", "changed", "gone")}
    if relabelled:
        changes["relabelled"] = relabelled.changes()
    return card_files(data_card(shown, {**index, **about}, changes))


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
    source: str = ""


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
            receipt.get("source", ""),
        )
    except (KeyError, TypeError):
        raise UserError(
            f"{store.url}/{dataset_pack.RECEIPT} does not say how the dataset was made: refresh "
            "it once with python -m flows.refresh_dataset"
        ) from None
