"""Turn videos into a dataset: shards of aligned clips with corrected audio, and a ledger.

    python -m flows.refresh_dataset --source folder --input VIDEOS --output runs/dataset
    python -m flows.refresh_dataset --source hdtf --input HDTF_LISTS --output s3://bucket/hdtf

One row of the ledger per clip, and at least one per file, says what was measured and why it
is in the dataset or not. After a kill at any moment the same command goes on; with nothing
changed it ends at once. New and changed sources are added; what has disappeared from the source
stays in the dataset.
"""

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from datasets.errors import UserError
from datasets.faces.alignment import CROP, CROPS
from datasets.fetch.policy import DownloadSettings
from datasets.sample.make import make_sample
from datasets.shards.splits import assign_splits
from datasets.sources.addresses import SCHEMES, AddressPolicy
from datasets.sources.items import How, SourceItem, list_folder
from datasets.sources.lists import CUT, ListOptions, list_source
from datasets.sources.lists import SOURCES as LISTED
from datasets.store.local import LocalStore
from datasets.store.lock import only_writer
from datasets.store.open import open_store
from datasets.store.protocol import Store
from flows.support.artifacts import ProgressReport, say
from flows.support.cli import run
from flows.support.parameters import Limits, split, taking
from flows.support.parcel import Parcel
from flows.support.refresh_text import (
    RefreshProgress,
    changes_in_words,
    conclude,
    say_duplicates,
    say_moved,
    say_notes,
    say_set_aside,
)
from flows.support.secrets import keep_secrets
from tasks.ingest.config import CORRECTED, OFFSETS, IngestConfig
from tasks.ingest.download_stage import DownloadStage
from tasks.ingest.journal import Journal
from tasks.ingest.journal_entries import Changes
from tasks.ingest.run import Crew, RefreshRun
from tasks.ingest.source_state import plain
from tasks.ingest.speaker_choice import IN_SYNC, POLICIES
from tasks.ingest.stage import IngestStage
from tasks.publish import pack, receipt
from tasks.publish import version as publishing
from tasks.publish.card import SHOWN_NAMES
from tasks.publish.moves import move_sources
from tasks.publish.retention import Retention
from tasks.publish.settings import BEFORE, Settings, differences, next_settings, settings_before
from tasks.runtime.device import resolve_device
from tasks.runtime.ray_session import ray_session
from tasks.runtime.room import gpu_share_of_core
from tasks.runtime.stage import Resources
from tasks.sync.scorers import get_scorer, scorer_weights_digest
from tasks.sync.signals import MOUTH_AUDIO, NO_SCORER

SOURCES = ("sample", *LISTED)
CUT_FRAMES = 25
"""Shortest clip of a source whose clips are short: one second."""


class Told(TypedDict):
    """How a list of sources differs from what is finished."""

    changes: dict[str, int]
    """How many files are new and so on."""
    first_names: dict[str, list[str]]
    """The first few of these files."""


class RefreshResult(publishing.VersionSummary):
    """What the flow returns."""

    changes: dict[str, int]
    """How many files are new and so on."""


@dataclass(frozen=True)
class Refresh:
    """One refresh, with its parameters checked."""

    source: str
    input: str
    """What the source reads; empty for the sample."""
    store: Store
    work: Path
    """Folder on this machine for sample videos and downloads."""
    settings: Settings
    crew: Crew
    device: str
    gpu_share: float | None
    downloads: DownloadSettings
    """How files are fetched, and from where."""
    keep_downloads: bool = True
    ray_address: str | None = None
    forget_missing: bool = False
    retry_failed: bool = False
    retention: Retention = field(default_factory=Retention)

    def journal(self) -> Journal:
        return Journal(
            self.store,
            self.settings.ingest,
            self.crew.deadline_s,
            self.downloads.deadline_s,
            self.retry_failed,
        )


@task(name="list-sources", cache_policy=NO_CACHE)
@keep_secrets
def list_sources(refresh: Refresh, sample_clips: int) -> Parcel[list[SourceItem]]:
    """All sources; the sample is generated first if it does not exist."""
    if refresh.source != "sample":
        report = ProgressReport(f"listing {refresh.source}")
        options = ListOptions(report, addresses=refresh.downloads.addresses)
        return Parcel(list_source(refresh.source, refresh.input, options=options))

    videos = refresh.work / "sample_videos"
    report = ProgressReport("making sample videos")
    made = make_sample(videos, sample_clips, workers=refresh.crew.workers, progress=report)
    wanted = set(made)
    return Parcel([item for item in list_folder(videos) if item.path in wanted])


@task(name="ingest", cache_policy=NO_CACHE)
@keep_secrets
def ingest(sources: Parcel[list[SourceItem]], refresh: Refresh) -> Told:
    """Fetch and ingest the sources that need it on Ray."""
    items = sources.content
    refresh.store.sweep()
    journal = refresh.journal()
    changes = journal.changes(items)
    if moved := move_sources(journal, changes, refresh.settings.packing.max_shard_bytes):
        say_moved(moved)
        changes = journal.changes(items)
    told: Told = {"changes": changes.counts(), "first_names": changes.first_names(SHOWN_NAMES)}
    if not refresh.forget_missing:
        publishing.refuse_losses(refresh.store, journal, items)
    if not changes.todo:
        say(f"ingest: all {len(items)} files were done before")
        return told
    before = settings_before(refresh.store)
    if before and before.ingest.crop == BEFORE:
        say(
            f"ingest: {len(changes.todo)} of {len(items)} files are ingested again, since the "
            "published version has the former, larger crop, in which the chin hangs out of "
            "the mask"
        )
    if changes.kept:
        say(f"ingest: {len(changes.kept)} of {len(items)} files were done before")
    if refresh.ray_address:
        say(f"ingest: joining Ray at {refresh.ray_address}")
    else:
        say("ingest: starting Ray, some seconds")
    with ray_session(refresh.ray_address, num_cpus=refresh.crew.workers):
        _run_ingest(items, changes, journal, refresh)
    return told


def _run_ingest(
    items: list[SourceItem], changes: Changes, journal: Journal, refresh: Refresh
) -> None:
    settings = refresh.settings
    progress = RefreshProgress(len(items), len(items) - len(changes.todo), settings.thresholds)
    dropped = changes.gone if refresh.forget_missing else []
    todo = {plain(item.key) for item in changes.todo}
    progress.start_from(journal.entries(), {*todo, *dropped})
    gpus = 0.0
    if refresh.device.startswith("cuda"):
        gpus = refresh.gpu_share or gpu_share_of_core()
    stage = IngestStage(
        settings.ingest,
        settings.thresholds,
        refresh.store,
        journal.prefix,
        settings.packing.max_shard_bytes,
        Resources(cpus=1.0, gpus=gpus),
        refresh.device,
    )
    download = None
    if any(item.how is not How.LOCAL and item.wanted for item in changes.todo):
        download = DownloadStage(refresh.work.resolve() / "downloads", refresh.downloads)
    test_fraction = settings.packing.test_fraction
    before = receipt.read_previous_splits(refresh.store, test_fraction)
    official = {item.speaker: item.split for item in items if item.split}
    splits = assign_splits(
        {item.speaker for item in items}, test_fraction, fixed={**before, **official}
    )
    run = RefreshRun(
        journal, stage, download, splits, refresh.crew, progress.count, refresh.keep_downloads
    )
    run.run(journal.plan(changes.todo), progress.tell)
    progress.end(journal.entries(), dropped)


@task(name="publish", cache_policy=NO_CACHE)
@keep_secrets
def publish(sources: Parcel[list[SourceItem]], refresh: Refresh, told: Told) -> RefreshResult:
    """Judge all clips and write shards, ledger and index, unless these exist already.

    Args:
        sources: all that the source lists.
        refresh: what is asked for.
        told: what `ingest` returned.
    """
    journal = refresh.journal()
    gone = journal.gone(sources.content)
    made = publishing.publish(
        refresh.store,
        journal,
        refresh.settings.thresholds,
        refresh.settings.packing,
        {**told, "source": refresh.source},
        gone if refresh.forget_missing else (),
        ProgressReport("publish: groups"),
        gone,
        refresh.retention,
    )
    if made.changed:
        say(f"publish: {changes_in_words(told['changes'], refresh.forget_missing)}")
    else:
        say("publish: nothing has changed")
    say_duplicates(made.duplicates)
    say_notes(made.notes)
    say_set_aside(journal.set_aside())
    return {**made.summary(), "changes": told["changes"]}


@dataclass(frozen=True)
class ClipOptions:
    """What the clips of a dataset are made like.

    Args:
        resolution: side of the aligned faces in pixels.
        scorer: what measures the offset of the audio: mouth-audio, syncnet-v2, stable-syncnet, or
            none for clips that are known to be in sync; by default mouth-audio, and none for lrs2
            and lrs3.
        scorer_weights: weights for the last two: a file, a trained bundle, or a name in the
            weights table.
        crop: how faces are cut out: latentsync-1.5 (aligned, what models need) or face-box (neither
            turned nor scaled by landmarks, for studies of the sync network).
        offsets: corrected, or as-recorded: sound stays as late or early as it was, for studies.
        face_choice: which of several faces is used at a time: in-sync (the active speaker) or
            largest.
        quality: measure image quality with HyperIQA; by default as in the existing dataset, and for
            a new one where its weights are there.
    """

    resolution: int = 256
    scorer: str = ""
    scorer_weights: str = ""
    crop: str = CROP
    offsets: str = CORRECTED
    face_choice: str = IN_SYNC
    quality: bool | None = None

    def config(self, source: str) -> IngestConfig:
        """The checked settings for a source, without the image quality, which depends on the
        dataset."""
        if not 32 <= self.resolution <= 1024 or self.resolution % 8:
            raise UserError(
                f"a resolution of {self.resolution} is not possible: use a multiple of 8 from 32 "
                "to 1024"
            )
        if self.face_choice not in POLICIES:
            raise UserError(
                f"there is no face choice {self.face_choice!r}: choose {' or '.join(POLICIES)}"
            )
        for name, value, known in (
            ("crop", self.crop, CROPS),
            ("offsets", self.offsets, OFFSETS),
        ):
            if value not in known:
                raise UserError(f"--{name} can be {' or '.join(known)}, got {value!r}")
        cut = source in CUT
        scorer = self.scorer or (NO_SCORER if cut else MOUTH_AUDIO)
        get_scorer(scorer, self.scorer_weights)
        digest = scorer_weights_digest(scorer, self.scorer_weights)
        config = IngestConfig(
            self.resolution,
            scorer,
            self.scorer_weights,
            digest,
            face_choice=self.face_choice,
            crop=self.crop,
            offsets=self.offsets,
        )
        # Their test clips last a second and a half.
        return replace(config, min_frames=CUT_FRAMES, shots=False) if cut else config


@dataclass(frozen=True)
class WorkOptions:
    """Who does the work, and where.

    Args:
        device: where the scorer's network runs: cpu, cuda or mps.
        gpu_share: share of a GPU that one worker uses, with device cuda; by default enough
            to keep all cores busy, but at least a sixteenth.
        workers: number of processes; by default one per core.
        ray_address: address of a running Ray cluster; by default one is started here.
        deadline_s: seconds that ingesting one file may take; long videos get more.
        work: folder on this machine for sample videos and downloads; by default the output,
            or runs/work if that is not a local folder.
    """

    device: str = "cpu"
    gpu_share: float | None = None
    workers: int | None = None
    ray_address: str | None = None
    deadline_s: float = 600.0
    work: str | None = None

    def folder(self, store: Store) -> Path:
        """That of this machine."""
        if self.work:
            return Path(self.work)
        return store.folder if isinstance(store, LocalStore) else Path("runs/work")


@dataclass(frozen=True)
class DownloadOptions:
    """How files are fetched.

    Args:
        downloads: number of files fetched at once.
        download_mb_per_s: megabytes per second for all downloads together; 0 means no limit.
        download_deadline_s: seconds that fetching one file may take.
        download_max_gb: size of the largest file that is fetched, in units of 2^30 bytes.
        allow_private: also fetch from this machine and from private networks, which lists of
            addresses may otherwise not name.
        allow_outside: also take files that a list of addresses names outside its own folder.
        allow_scheme: a further kind of address that a list may hold, such as abfs; http, https,
            s3 and gs are always allowed.
        max_height: height limit for videos from pages such as YouTube's: the best one within it is
            taken.
        cookies: a cookies.txt for pages that need a login.
        keep_downloads: keep fetched files after they have been ingested.
    """

    downloads: int = DownloadSettings.connections
    download_mb_per_s: float = 0.0
    download_deadline_s: float = DownloadSettings.deadline_s
    download_max_gb: float = DownloadSettings.max_bytes / 2**30
    allow_private: bool = False
    allow_outside: bool = False
    allow_scheme: list[str] | None = None
    max_height: int = DownloadSettings.max_height
    cookies: str = ""
    keep_downloads: bool = True

    def settings(self) -> DownloadSettings:
        """Checked."""
        return DownloadSettings(
            max_height=self.max_height,
            connections=self.downloads,
            rate=self.download_mb_per_s * 1e6,
            deadline_s=self.download_deadline_s,
            cookies=self.cookies,
            addresses=AddressPolicy(
                self.allow_private, (*SCHEMES, *(self.allow_scheme or ())), self.allow_outside
            ),
            max_bytes=round(self.download_max_gb * 2**30),
        )


@flow(name="refresh-dataset")
@keep_secrets
@taking(ClipOptions, Limits, WorkOptions, DownloadOptions, Retention)
def refresh_dataset(
    source: str = "sample",
    input: str | None = None,
    output: str = "runs/dataset",
    sample_clips: int = 48,
    forget_missing: bool = False,
    retry_failed: bool = False,
    **options: Any,
) -> RefreshResult:
    """Make or refresh a dataset of talking faces from videos.

    Args:
        source: sample (generated talking heads), folder (your videos), urls (a list of
            addresses), hdtf, voxceleb2, lrs2 or lrs3 (the data sets' own lists and layouts).
        input: for every source but the sample: a folder with videos, whose first level of
            folders names the speakers; a file with one address per line; the folder of the
            data set. Addresses (s3://, gs://, http) work too.
        output: folder, or s3:// or gs:// address, for index.json, ledger.parquet and shards.
        sample_clips: number of videos in the sample.
        forget_missing: drop the clips of files that are no longer in the source.
        retry_failed: try all files again that failed or were unavailable, however often they
            have been tried.

    Returns:
        dataset, digest, inputs, clips_accepted, clips_rejected, reasons, reasons_without_clip,
        splits, speakers, loose_files and changes.
    """
    clips, limits, work, downloads, retention = split(
        options, ClipOptions, Limits, WorkOptions, DownloadOptions, Retention
    )
    store = open_store(output)
    config = clips.config(source)

    def settings(before: Settings | None) -> Settings:
        asked = asdict(limits)
        share, kind = limits.test_fraction, limits.duplicates
        return next_settings(before, config, asked, share, kind, clips.quality, source)

    refresh = _checked(
        Refresh(
            source,
            input or "",
            store,
            work.folder(store),
            settings(settings_before(store)),
            Crew(workers=work.workers, deadline_s=work.deadline_s),
            work.device,
            work.gpu_share,
            downloads.settings(),
            downloads.keep_downloads,
            work.ray_address,
            forget_missing,
            retry_failed,
            retention,
        )
    )
    if sample_clips < 1:
        raise UserError(f"a sample of {sample_clips} videos is not possible: ask for 1 or more")
    with only_writer(store):
        # Another run may have changed them before this one had the dataset to itself.
        before = settings_before(store)
        refresh = replace(refresh, settings=settings(before))
        if before and (other := differences(before.thresholds, refresh.settings.thresholds)):
            say(f"thresholds change: {', '.join(other)}")
        sources = list_sources(refresh, sample_clips)
        result = publish(sources, refresh, ingest(sources, refresh))
    conclude(result, refresh.settings.packing.test_fraction)
    return result


def _checked(refresh: Refresh) -> Refresh:
    """The refresh itself, if a run can start from it."""
    source, given = refresh.source, refresh.input
    if source not in SOURCES:
        raise UserError(f"there is no source {source!r}: choose one of {', '.join(SOURCES)}")
    if source != "sample" and not given:
        raise UserError(f"the source {source!r} needs --input: see --help for what it takes")
    if source == "sample" and given:
        raise UserError(f"--input {given} is given, but the source 'sample' takes no input")
    if refresh.crew.deadline_s <= 0:
        raise UserError(f"the deadline must be more than 0 s, got {refresh.crew.deadline_s:g} s")
    if refresh.device != "cpu" and not refresh.ray_address:
        resolve_device(refresh.device)
    if refresh.gpu_share is not None and not 0 < refresh.gpu_share <= 1:
        raise UserError(f"the GPU share must be above 0 and at most 1, got {refresh.gpu_share:g}")
    inside = Path(given) if given and "://" not in given else None
    pack.check_output(refresh.store, inside)
    return refresh


main = partial(run, refresh_dataset, hello="refresh: starting Prefect, some seconds")

if __name__ == "__main__":
    raise SystemExit(main())
