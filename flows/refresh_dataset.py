"""Turn videos into a dataset: shards of aligned clips with corrected audio, and a ledger.

    python -m flows.refresh_dataset --source folder --input VIDEOS --output runs/dataset

One row of the ledger per clip, and at least one per file, says what was measured and why it
is in the dataset or not. Killed at any moment, the same command goes on; with nothing
changed it ends at once. The dataset mirrors its source: what has gone there goes here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cli import run
from flows.runtime import local_environment

local_environment(None)

from prefect import flow, task  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from datasets.errors import UserError  # noqa: E402
from datasets.sources import SourceItem, list_folder  # noqa: E402
from flows.artifacts import ProgressReport, funnel, say, show_table  # noqa: E402
from tasks import dataset_pack  # noqa: E402
from tasks.executor import Outcome, StageProgress, run_stage  # noqa: E402
from tasks.ingest import IngestConfig, IngestStage  # noqa: E402
from tasks.ingest_journal import Entry, Journal  # noqa: E402
from tasks.locks import only_run  # noqa: E402
from tasks.ray_runtime import ray_session  # noqa: E402
from tasks.sync_score import get_scorer  # noqa: E402
from tasks.verdicts import Thresholds, judge  # noqa: E402

SOURCES = ("sample", "folder")
SHOWN_REASONS = 4


@dataclass(frozen=True)
class Refresh:
    """One refresh, its parameters checked."""

    output: Path
    config: IngestConfig
    thresholds: Thresholds
    packing: dataset_pack.PackConfig
    workers: int | None
    ray_address: str | None
    deadline_s: float

    def journal(self) -> Journal:
        return Journal(self.output.resolve() / dataset_pack.STAGING, self.config, self.deadline_s)


@task(name="list-sources", cache_policy=NO_CACHE)
def list_sources(
    source: str, folder: Path | None, refresh: Refresh, sample_clips: int
) -> list[SourceItem]:
    """All input files; the sample is made first where it is not there."""
    if source == "folder":
        assert folder is not None
        return list_folder(folder)
    from datasets.sample import make_sample

    videos = refresh.output / "sample_videos"
    report = ProgressReport("making sample videos")
    made = make_sample(videos, sample_clips, workers=refresh.workers, progress=report)
    wanted = set(made)
    return [item for item in list_folder(videos) if item.path in wanted]


@task(name="ingest", cache_policy=NO_CACHE)
def ingest(items: list[SourceItem], refresh: Refresh) -> int:
    """Ingest the files that need it on Ray; returns how many these were."""
    journal = refresh.journal()
    todo = [item for item in items if journal.finished(item) is None]
    if not todo:
        say(f"ingest: all {len(items)} files were done before")
        return 0
    if len(todo) < len(items):
        say(f"ingest: {len(items) - len(todo)} of {len(items)} files were done before")
    # The largest first, so that no worker is left with a long file at the end.
    todo.sort(key=lambda item: (-_size(item.path), item.key))
    with ray_session(refresh.ray_address, num_cpus=refresh.workers):
        _run_ingest(todo, len(items), journal, refresh)
    return len(todo)


def _run_ingest(todo: list[SourceItem], total: int, journal: Journal, refresh: Refresh) -> None:
    by_key = {item.key: item for item in todo}
    clips = refused = 0
    report = ProgressReport("ingest: files", "refresh-dataset-progress")
    before = total - len(todo)

    def keep(outcome: Outcome) -> None:
        nonlocal clips, refused
        rows = judge(journal.finish(by_key[outcome.key], outcome)["rows"], refresh.thresholds)
        good = len(dataset_pack.accepted(rows))
        clips, refused = clips + good, refused + len(rows) - good

    def tell(progress: StageProgress) -> None:
        report(before + progress.done, total, f"{clips} clips good, {refused} refused")

    report(before, total)
    for item in todo:
        journal.begin(item)
    run_stage(
        IngestStage(refresh.config, journal.clips),
        [(item.key, item) for item in todo],
        on_outcome=keep,
        workers=refresh.workers,
        deadline_s=refresh.deadline_s,
        on_progress=tell,
    )


@task(name="publish", cache_policy=NO_CACHE)
def publish(items: list[SourceItem], refresh: Refresh) -> dict[str, Any]:
    """Judge all clips and write shards, ledger and index, unless these are there already."""
    journal = refresh.journal()
    entries = [_entry(journal, item) for item in items]
    rows = judge([row for entry in entries for row in entry["rows"]], refresh.thresholds)
    rows.sort(key=lambda row: (row["path"], row["start_s"], row["track"], row["clip_id"]))
    wanted = dataset_pack.fingerprint(rows, refresh.packing)
    digest = dataset_pack.published(refresh.output, wanted)
    if digest:
        say("publish: nothing has changed")
    else:
        gone = dataset_pack.ledger_paths(refresh.output) - {row["path"] for row in rows}
        if gone:
            say(f"publish: {len(gone)} files are gone from the source and leave the dataset")
        clips = {
            clip["clip_id"]: {kind: journal.clips / name for kind, name in clip["files"].items()}
            for entry in entries
            for clip in entry["clips"]
        }
        digest = dataset_pack.pack(rows, clips, refresh.output, refresh.packing)
    good = len(dataset_pack.accepted(rows))
    return {
        "dataset": str(refresh.output.resolve()),
        "digest": digest,
        "inputs": len(items),
        "clips_accepted": good,
        "clips_rejected": len(rows) - good,
        "reasons": dataset_pack.reasons(rows),
    }


def _entry(journal: Journal, item: SourceItem) -> Entry:
    entry = journal.kept(item)
    if entry is None:
        raise RuntimeError(f"{item.key} was ingested, but its entry is gone from {journal.clips}")
    return entry


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


@flow(name="refresh-dataset")
def refresh_dataset(
    source: str = "sample",
    input: str | None = None,
    output: str = "runs/dataset",
    resolution: int = 256,
    scorer: str = "mouth-audio",
    min_confidence: float | None = Thresholds.min_confidence,
    max_offset_frames: float = Thresholds.max_offset_frames,
    test_fraction: float = 0.2,
    sample_clips: int = 48,
    workers: int | None = None,
    ray_address: str | None = None,
    deadline_s: float = 600.0,
) -> dict[str, Any]:
    """Make or refresh a dataset of talking faces from videos.

    Args:
        source: sample (generated talking heads) or folder (your videos).
        input: folder with videos, for source folder; its first level of folders names the
            speakers.
        output: folder for index.json, ledger.parquet and shards.
        resolution: side of the aligned faces in pixels.
        scorer: what measures the offset of the audio: mouth-audio.
        min_confidence: clips whose offset is less certain are refused, in the scorer's units;
            None: the scorer's own threshold.
        max_offset_frames: clips whose audio is further off are refused, frames at 25 fps.
        test_fraction: share of the speakers that are kept for testing.
        sample_clips: how many videos the sample has.
        workers: processes; by default one per core.
        ray_address: of a running Ray cluster; by default one is started here.
        deadline_s: seconds that one file may take.

    Returns:
        dataset, digest, inputs, clips_accepted, clips_rejected and reasons.
    """
    refresh = _checked(
        source,
        input,
        Refresh(
            Path(output),
            _ingest_config(resolution, scorer),
            Thresholds(min_confidence=min_confidence, max_offset_frames=max_offset_frames),
            _packing(resolution, test_fraction),
            workers,
            ray_address,
            deadline_s,
        ),
    )
    if sample_clips < 1:
        raise UserError(f"a sample of {sample_clips} videos is none: give 1 or more")
    with only_run(refresh.output / dataset_pack.STAGING):
        items = list_sources(source, Path(input) if input else None, refresh, sample_clips)
        ingest(items, refresh)
        result = publish(items, refresh)
    _conclude(result)
    return result


def _checked(source: str, folder: str | None, refresh: Refresh) -> Refresh:
    """The refresh itself, if a run can begin with it."""
    if source not in SOURCES:
        raise UserError(f"there is no source {source!r}: choose {' or '.join(SOURCES)}")
    if source == "folder" and not folder:
        raise UserError("the source 'folder' needs --input DIR, the folder with your videos")
    if source != "folder" and folder:
        raise UserError(f"--input {folder} is for --source folder, but the source is {source!r}")
    if refresh.deadline_s <= 0:
        raise UserError(f"a deadline of {refresh.deadline_s:g} s is none: give more than 0")
    get_scorer(refresh.config.scorer)
    dataset_pack.check_output(refresh.output, Path(folder) if folder else None)
    return refresh


def _ingest_config(resolution: int, scorer: str) -> IngestConfig:
    if not 32 <= resolution <= 1024 or resolution % 8:
        raise UserError(
            f"a resolution of {resolution} is not possible: give a multiple of 8 from 32 to 1024"
        )
    return IngestConfig(resolution=resolution, scorer=scorer)


def _packing(resolution: int, test_fraction: float) -> dataset_pack.PackConfig:
    if not 0 <= test_fraction < 1:
        raise UserError(f"a test fraction of {test_fraction:g} is not possible: give 0 to 0.9")
    return dataset_pack.PackConfig(resolution, test_fraction)


def _conclude(result: dict[str, Any]) -> None:
    """Say how it went, in the terminal and as a table in Prefect.

    Raises:
        UserError: no clip was accepted, so there is nothing to train on.
    """
    refused = _in_words(result["reasons"])
    rows = funnel(result["inputs"], result["clips_accepted"], result["reasons"])
    show_table("refresh-dataset-funnel", rows, f"`{result['dataset']}`")
    ledger = Path(result["dataset"]) / dataset_pack.LEDGER
    if not result["clips_accepted"]:
        raise UserError(
            f"no clip was accepted from {result['inputs']} files ({refused}): {ledger} has a row "
            "with the reason for each"
        )
    say(
        f"dataset {result['dataset']}: {result['clips_accepted']} clips accepted from "
        f"{result['inputs']} files, {result['clips_rejected']} refused"
        + (f" ({refused})" if refused else "")
    )


def _in_words(reasons: dict[str, int]) -> str:
    shown: Sequence[tuple[str, int]] = list(reasons.items())
    words = [f"{count} {reason}" for reason, count in shown[:SHOWN_REASONS]]
    rest = sum(count for _, count in shown[SHOWN_REASONS:])
    return ", ".join([*words, f"{rest} others"] if rest else words)


if __name__ == "__main__":
    raise SystemExit(run(refresh_dataset))
