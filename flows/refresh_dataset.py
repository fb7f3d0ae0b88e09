"""Turn videos into a dataset: shards of aligned clips with corrected audio, and a ledger.

    python -m flows.refresh_dataset --source folder --input VIDEOS --output runs/dataset
    python -m flows.refresh_dataset --source hdtf --input HDTF_LISTS --output s3://bucket/hdtf

One row of the ledger per clip, and at least one per file, says what was measured and why it
is in the dataset or not. Killed at any moment, the same command goes on; with nothing
changed it ends at once. New and changed sources are added; what has gone from the source
stays in the dataset.
"""

from collections import Counter
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
from datasets.fetch_policy import DownloadSettings  # noqa: E402
from datasets.source_lists import SOURCES as LISTED  # noqa: E402
from datasets.source_lists import ListOptions, list_source  # noqa: E402
from datasets.sources import How, SourceItem, list_folder  # noqa: E402
from datasets.splits import assign_splits  # noqa: E402
from datasets.store import LocalStore, Store, open_store  # noqa: E402
from flows.artifacts import (  # noqa: E402
    ProgressReport,
    StageBoard,
    funnel,
    say,
    show_table,
)
from tasks import dataset_pack  # noqa: E402
from tasks import publish as publishing  # noqa: E402
from tasks.download import DownloadStage  # noqa: E402
from tasks.executor import Resources, StageProgress  # noqa: E402
from tasks.ingest import IngestStage  # noqa: E402
from tasks.ingest_config import IngestConfig  # noqa: E402
from tasks.ingest_journal import Journal  # noqa: E402
from tasks.journal_entries import Changes, GroupEntry  # noqa: E402
from tasks.locks import only_writer  # noqa: E402
from tasks.published import is_fetched  # noqa: E402
from tasks.ray_runtime import ray_session  # noqa: E402
from tasks.refresh_run import Crew, RefreshRun  # noqa: E402
from tasks.sync_score import get_scorer  # noqa: E402
from tasks.verdicts import Thresholds, judge  # noqa: E402

SOURCES = ("sample", *LISTED)
SHOWN_REASONS = 4


@dataclass(frozen=True)
class Refresh:
    """One refresh, its parameters checked."""

    source: str
    input: str
    """Empty for the sample."""
    store: Store
    work: Path
    """Folder of this machine for sample videos and downloads."""
    config: IngestConfig
    thresholds: Thresholds
    packing: dataset_pack.PackConfig
    crew: Crew
    device: str
    gpu_share: float
    downloads: DownloadSettings
    keep_downloads: bool = True
    ray_address: str | None = None
    forget_missing: bool = False

    def journal(self) -> Journal:
        return Journal(self.store, self.config, self.crew.deadline_s)


@task(name="list-sources", cache_policy=NO_CACHE)
def list_sources(refresh: Refresh, sample_clips: int) -> list[SourceItem]:
    """All sources; the sample is made first where it is not there."""
    if refresh.source != "sample":
        report = ProgressReport(f"listing {refresh.source}")
        return list_source(refresh.source, refresh.input, options=ListOptions(report))
    from datasets.sample import make_sample

    videos = refresh.work / "sample_videos"
    report = ProgressReport("making sample videos")
    made = make_sample(videos, sample_clips, workers=refresh.crew.workers, progress=report)
    wanted = set(made)
    return [item for item in list_folder(videos) if item.path in wanted]


@task(name="ingest", cache_policy=NO_CACHE)
def ingest(items: list[SourceItem], refresh: Refresh) -> dict[str, int]:
    """Fetch and ingest the sources that need it on Ray; returns how many are new and so on."""
    refresh.store.sweep()
    journal = refresh.journal()
    changes = journal.changes(items)
    if not changes.todo:
        say(f"ingest: all {len(items)} files were done before")
        return changes.counts()
    if changes.kept:
        say(f"ingest: {len(changes.kept)} of {len(items)} files were done before")
    with ray_session(refresh.ray_address, num_cpus=refresh.crew.workers):
        _run_ingest(items, changes, journal, refresh)
    return changes.counts()


def _run_ingest(
    items: list[SourceItem], changes: Changes, journal: Journal, refresh: Refresh
) -> None:
    progress = _Progress(len(items), len(items) - len(changes.todo), refresh.thresholds)
    gpus = refresh.gpu_share if refresh.device.startswith("cuda") else 0.0
    stage = IngestStage(
        refresh.config,
        refresh.thresholds,
        refresh.store,
        journal.prefix,
        refresh.packing.max_shard_bytes,
        Resources(cpus=1.0, gpus=gpus),
        refresh.device,
    )
    download = None
    if any(item.how is not How.LOCAL and item.wanted for item in changes.todo):
        download = DownloadStage(refresh.work.resolve() / "downloads", refresh.downloads)
    before = dataset_pack.placed_before(refresh.store, refresh.packing.test_fraction)
    official = {item.speaker: item.split for item in items if item.split}
    splits = assign_splits(
        {item.speaker for item in items},
        refresh.packing.test_fraction,
        fixed={**before, **official},
    )
    run = RefreshRun(
        journal, stage, download, splits, refresh.crew, progress.count, refresh.keep_downloads
    )
    run.run(journal.plan(changes.todo), progress.tell)
    progress.board.flush()


class _Progress:
    """What a person sees while sources are fetched and ingested."""

    def __init__(self, total: int, before: int, thresholds: Thresholds) -> None:
        self.total, self.before, self.thresholds = total, before, thresholds
        self.clips = 0
        self.reasons: Counter[str] = Counter()
        self.report = ProgressReport("ingest: files")
        self.board = StageBoard("refresh-dataset-progress")
        self.report(before, total)
        self.board.stage("ingest").update(before, total)

    def count(self, entry: GroupEntry) -> None:
        """Take a finished group."""
        rows = judge([row for each in entry.sources for row in each.rows], self.thresholds)
        self.clips += len(dataset_pack.accepted(rows))
        self.reasons.update(dataset_pack.reasons(rows))
        self.board.funnel(self.reasons, self.clips)

    def tell(self, states: list[StageProgress]) -> None:
        """Where fetching, if there is any, and ingesting stand."""
        *fetching, ingesting = states
        refused = self.reasons.total()
        note = f"{self.clips} clips good, {refused} refused"
        for state in fetching:
            self.board.stage("download").update(state.done, state.total, state.running)
            if state.done < state.total:
                note += f", {state.done} of {state.total} fetched"
        done = self.before + ingesting.done
        self.board.stage("ingest").update(done, self.total, ingesting.running, refused)
        self.report(done, self.total, note)


@task(name="publish", cache_policy=NO_CACHE)
def publish(items: list[SourceItem], refresh: Refresh, changes: dict[str, int]) -> dict[str, Any]:
    """Judge all clips and write shards, ledger and index, unless these are there already."""
    journal = refresh.journal()
    if refresh.forget_missing:
        journal.forget(journal.changes(items).gone)
    made = publishing.publish(
        refresh.store,
        journal,
        refresh.thresholds,
        refresh.packing,
        {"changes": changes, "source": refresh.source},
    )
    if made.changed:
        say(f"publish: {_changed(changes, refresh.forget_missing)}")
    else:
        say("publish: nothing has changed")
    return made.summary() | {"changes": changes}


def _changed(changes: dict[str, int], forgotten: bool) -> str:
    """What a new version is made of, in words."""
    gone = "gone from the source and from the dataset" if forgotten else "gone but kept"
    words = {
        "new": "new",
        "changed": "changed",
        "again": "tried again",
        "kept": "as before",
        "gone": gone,
    }
    parts = [f"{changes[kind]} {text}" for kind, text in words.items() if changes[kind]]
    return "files: " + ", ".join(parts)


@flow(name="refresh-dataset")
def refresh_dataset(
    source: str = "sample",
    input: str | None = None,
    output: str = "runs/dataset",
    resolution: int = 256,
    scorer: str = "mouth-audio",
    scorer_weights: str = "",
    device: str = "cpu",
    gpu_share: float = 0.25,
    min_confidence: float | None = None,
    max_offset_frames: float = Thresholds.max_offset_frames,
    test_fraction: float = 0.2,
    sample_clips: int = 48,
    workers: int | None = None,
    ray_address: str | None = None,
    deadline_s: float = 600.0,
    downloads: int = DownloadSettings.connections,
    download_mb_per_s: float = 0.0,
    download_deadline_s: float = DownloadSettings.deadline_s,
    max_height: int = DownloadSettings.max_height,
    cookies: str = "",
    keep_downloads: bool = True,
    forget_missing: bool = False,
    work: str | None = None,
) -> dict[str, Any]:
    """Make or refresh a dataset of talking faces from videos.

    Args:
        source: sample (generated talking heads), folder (your videos), urls (a list of
            addresses), hdtf or voxceleb2 (the data sets' own lists and layouts).
        input: for all sources but the sample: a folder with videos, whose first level of
            folders names the speakers; a file with one address per line; the folder of the
            data set. Addresses (s3://, gs://, http) will do, too.
        output: folder, or s3:// or gs:// address, for index.json, ledger.parquet and shards.
        resolution: side of the aligned faces in pixels.
        scorer: what measures the offset of the audio: mouth-audio, syncnet-v2 or
            stable-syncnet.
        scorer_weights: of the two networks: a file, a trained bundle, or a name of the
            weights table.
        device: where the scorer's network runs: cpu, cuda or mps.
        gpu_share: part of a GPU that one worker takes, with device cuda.
        min_confidence: clips whose offset is less certain are refused, in the scorer's units;
            by default the scorer's own threshold.
        max_offset_frames: clips whose audio is further off are refused, frames at 25 fps.
        test_fraction: share of the speakers that are kept for testing.
        sample_clips: how many videos the sample has.
        workers: processes; by default one per core.
        ray_address: of a running Ray cluster; by default one is started here.
        deadline_s: seconds that ingesting one file may take; long videos have more.
        downloads: files that are fetched at once.
        download_mb_per_s: megabytes per second for all downloads together; 0: no limit.
        download_deadline_s: seconds that fetching one file may take.
        max_height: of videos from pages such as YouTube's: the best one not above it is taken.
        cookies: a cookies.txt for pages that want a login.
        keep_downloads: keep fetched files after they were ingested.
        forget_missing: drop the clips of files that are no longer in the source.
        work: folder of this machine for sample videos and downloads; by default the output,
            or runs/work where that is no local folder.

    Returns:
        dataset, digest, inputs, clips_accepted, clips_rejected, reasons and changes.
    """
    store = open_store(output)
    local = store.folder if isinstance(store, LocalStore) else Path("runs/work")
    refresh = _checked(
        Refresh(
            source,
            input or "",
            store,
            Path(work) if work else local,
            _ingest_config(resolution, scorer, scorer_weights),
            Thresholds(min_confidence=min_confidence, max_offset_frames=max_offset_frames),
            dataset_pack.with_fraction(dataset_pack.PackConfig(resolution), test_fraction),
            Crew(workers=workers, deadline_s=deadline_s),
            device,
            gpu_share,
            DownloadSettings(
                max_height=max_height,
                connections=downloads,
                rate=download_mb_per_s * 1e6,
                deadline_s=download_deadline_s,
                cookies=cookies,
            ),
            keep_downloads,
            ray_address,
            forget_missing,
        )
    )
    if sample_clips < 1:
        raise UserError(f"a sample of {sample_clips} videos is none: give 1 or more")
    with only_writer(store):
        items = list_sources(refresh, sample_clips)
        changes = ingest(items, refresh)
        result = publish(items, refresh, changes)
    _conclude(result)
    return result


def _checked(refresh: Refresh) -> Refresh:
    """The refresh itself, if a run can begin with it."""
    source, given = refresh.source, refresh.input
    if source not in SOURCES:
        raise UserError(f"there is no source {source!r}: choose one of {', '.join(SOURCES)}")
    if source != "sample" and not given:
        raise UserError(f"the source {source!r} needs --input: --help says what it is")
    if source == "sample" and given:
        raise UserError(f"--input {given} is given, but the source is 'sample', which has none")
    if refresh.crew.deadline_s <= 0:
        raise UserError(f"a deadline of {refresh.crew.deadline_s:g} s is none: give more than 0")
    if refresh.device != "cpu" and not refresh.ray_address:
        from tasks.training import resolve_device

        resolve_device(refresh.device)
    if refresh.device.startswith("cuda") and not 0 < refresh.gpu_share <= 1:
        raise UserError(f"a GPU share of {refresh.gpu_share:g} is none: give more than 0, up to 1")
    get_scorer(refresh.config.scorer, refresh.config.scorer_weights)
    inside = Path(given) if given and "://" not in given else None
    dataset_pack.check_output(refresh.store, inside)
    return refresh


def _ingest_config(resolution: int, scorer: str, weights: str) -> IngestConfig:
    if not 32 <= resolution <= 1024 or resolution % 8:
        raise UserError(
            f"a resolution of {resolution} is not possible: give a multiple of 8 from 32 to 1024"
        )
    quality = is_fetched("hyperiqa")
    return IngestConfig(
        resolution=resolution, scorer=scorer, scorer_weights=weights, quality=quality
    )


def _conclude(result: dict[str, Any]) -> None:
    """Say how it went, in the terminal and as a table in Prefect.

    Raises:
        UserError: no clip was accepted, so there is nothing to train on.
    """
    refused = _in_words(result["reasons"])
    rows = funnel(result["inputs"], result["clips_accepted"], result["reasons"])
    show_table("refresh-dataset-funnel", rows, f"`{result['dataset']}`")
    ledger = f"{result['dataset']}/{dataset_pack.LEDGER}"
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
