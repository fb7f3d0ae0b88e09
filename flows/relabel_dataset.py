"""Apply other thresholds to an existing dataset: a new version without looking at a video.

    python -m flows.relabel_dataset runs/dataset --min-confidence 4

Every score is in the ledger, and clips that only thresholds refused are kept next to the
shards, so clips can be refused and admitted either way.
"""

from dataclasses import asdict
from functools import partial
from typing import Any

from prefect import flow

from datasets.errors import UserError
from datasets.store.lock import only_writer
from datasets.store.open import open_store
from flows.support.artifacts import ProgressReport, funnel_rows, say, show_table
from flows.support.cli import run
from flows.support.parameters import Limits, split, taking
from flows.support.secrets import keep_secrets
from tasks.ingest.journal import Journal
from tasks.publish import ledger
from tasks.publish.retention import Retention
from tasks.publish.settings import changed_packing, changed_thresholds, settings_of
from tasks.publish.version import VersionSummary, publish


class RelabelResult(VersionSummary):
    """What the flow returns."""

    newly_accepted: int
    newly_refused: int


@flow(name="relabel-dataset")
@keep_secrets
@taking(Limits, Retention)
def relabel_dataset(dataset: str, **options: Any) -> RelabelResult:
    """Judge the clips of a dataset by other thresholds and publish the result.

    Args:
        dataset: folder or address of the dataset.

    Returns:
        dataset, digest, inputs, clips_accepted, clips_rejected, reasons, and how many clips
        were newly_accepted and newly_refused.
    """
    limits, retention = split(options, Limits, Retention)
    store = open_store(dataset)
    if limits == Limits():
        raise UserError("no threshold is given: --help lists them")
    # Where there is no dataset, nothing is made to lock it.
    settings_of(store)
    with only_writer(store):
        settings = settings_of(store)
        packing = changed_packing(settings.packing, limits.test_fraction, limits.duplicates)
        thresholds = changed_thresholds(settings.thresholds, asdict(limits))
        before = ledger.previous_ledger(store, ("clip_id", "verdict"))
        journal = Journal(store, settings.ingest, 0.0)
        journal.must_hold({row["clip_id"] for row in ledger.select_accepted(before)})
        made = publish(
            store,
            journal,
            thresholds,
            packing,
            {"source": settings.source},
            on_progress=ProgressReport("relabel: groups"),
            retention=retention,
        )
    result: RelabelResult = {**made.summary(), "newly_accepted": 0, "newly_refused": 0}
    if made.relabelled:
        result["newly_accepted"] = sum(made.relabelled.newly_accepted.values())
        result["newly_refused"] = sum(made.relabelled.newly_refused.values())
        show_table("relabel-dataset", made.relabelled.table(), f"`{result['dataset']}`")
    rows = funnel_rows(result["inputs"], result["clips_accepted"], result["reasons"])
    show_table("refresh-dataset-funnel", rows, f"`{result['dataset']}`")
    say(
        f"dataset {result['dataset']}: {result['newly_accepted']} clips newly accepted, "
        f"{result['newly_refused']} newly refused, {result['clips_accepted']} in all; thresholds "
        + ", ".join(f"{name} {value}" for name, value in asdict(thresholds).items())
    )
    return result


main = partial(run, relabel_dataset)

if __name__ == "__main__":
    raise SystemExit(main())
