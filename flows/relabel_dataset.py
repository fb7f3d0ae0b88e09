"""Other thresholds for a dataset that is there: a new version without looking at a video.

    python -m flows.relabel_dataset runs/dataset --min-confidence 4

Every score is in the ledger, and clips that only thresholds refused are kept beside the
shards, so clips can be refused and admitted either way.
"""

from dataclasses import asdict

from flows.support.cli import run
from flows.support.prefect_local import local_environment

local_environment(None)

from prefect import flow  # noqa: E402

from datasets.errors import UserError  # noqa: E402
from datasets.store.lock import only_writer  # noqa: E402
from datasets.store.open import open_store  # noqa: E402
from flows.support.artifacts import ProgressReport, funnel_rows, say, show_table  # noqa: E402
from tasks.ingest.journal import Journal  # noqa: E402
from tasks.publish import ledger, pack  # noqa: E402
from tasks.publish.settings import changed_thresholds, settings_of  # noqa: E402
from tasks.publish.version import VersionSummary, publish  # noqa: E402


class RelabelResult(VersionSummary):
    """What the flow returns."""

    newly_accepted: int
    newly_refused: int


@flow(name="relabel-dataset")
def relabel_dataset(
    dataset: str,
    min_confidence: float | None = None,
    max_offset_frames: float | None = None,
    min_face_px: float | None = None,
    min_coverage: float | None = None,
    min_sharpness: float | None = None,
    max_yaw_deg: float | None = None,
    min_brightness: float | None = None,
    max_brightness: float | None = None,
    min_quality: float | None = None,
    test_fraction: float | None = None,
) -> RelabelResult:
    """Judge the clips of a dataset by other thresholds and publish the result.

    Args:
        dataset: folder or address of the dataset.
        min_confidence: smallest confidence in the offset; what is not given stays as it was.
        max_offset_frames: largest offset of the audio, frames at 25 fps.
        min_face_px: smallest face in the source, pixels.
        min_coverage: smallest share of frames on which the face was found.
        min_sharpness: smallest variance of the Laplacian.
        max_yaw_deg: furthest turn of the head, degrees.
        min_brightness: darkest face, mean grey level.
        max_brightness: brightest face, mean grey level.
        min_quality: smallest image quality, where it was measured.
        test_fraction: share of the speakers that are kept for testing.

    Returns:
        dataset, digest, inputs, clips_accepted, clips_rejected, reasons, and how many clips
        were newly_accepted and newly_refused.
    """
    # All parameters, of which the thresholds are picked.
    asked = locals()
    store = open_store(dataset)
    if all(value is None for name, value in asked.items() if name != "dataset"):
        raise UserError("no threshold is given: --help lists them")
    # Where there is no dataset, nothing is made to lock it.
    settings_of(store)
    with only_writer(store):
        settings = settings_of(store)
        packing = settings.packing
        if test_fraction is not None:
            packing = pack.with_fraction(packing, test_fraction)
        thresholds = changed_thresholds(settings.thresholds, asked)
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


if __name__ == "__main__":
    raise SystemExit(run(relabel_dataset))
