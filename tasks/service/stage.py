"""A job of the service on a worker: its sources brought, checked, and lip-synced."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets.errors import Reason, SourceError, UserError
from datasets.fetch.item import fetch
from datasets.fetch.policy import DownloadSettings
from datasets.media import SAMPLE_RATE, probe
from datasets.sources.items import How, SourceItem
from models.files.errors import is_disk_full
from tasks.lipsync.batch import (
    Item,
    JobResult,
    LipSyncStage,
    failure,
    read_receipt,
    write_receipt,
)
from tasks.lipsync.job import job_of
from tasks.lipsync.turns import read_speech
from tasks.runtime.failures import causes

UPLOAD = "upload:"
"""Begins the name of a file that was uploaded; everything else is an address."""


@dataclass(frozen=True)
class Place:
    """Where a job of the service is worked on."""

    folder: Path
    """The job's own."""
    uploads: Path
    """Where uploaded files are."""

    @property
    def receipt(self) -> Path:
        """What it came to."""
        return self.folder / "receipt.json"

    @property
    def progress(self) -> Path:
        """How far it is."""
        return self.folder / "progress.json"

    def output(self, values: Mapping[str, Any]) -> Path:
        """The video to write: of the name that was asked for only the suffix counts."""
        suffix = Path(str(values.get("output") or "out.mp4")).suffix.lower()
        return self.folder / f"out{suffix}"


@dataclass(frozen=True)
class ServiceItem:
    """A job on its way to a worker."""

    values: dict[str, Any]
    """Its options, with sources as they were given."""
    place: Place


@dataclass
class ServiceStage(LipSyncStage):
    """Lip-syncs jobs of the service.

    Args:
        downloads: which addresses may be fetched, and how much of them.
        most_s: longest video and speech, seconds.
    """

    downloads: DownloadSettings = field(default_factory=DownloadSettings)
    most_s: float = 600.0

    def process(self, item: Any) -> JobResult:
        place: Place = item.place
        # The service was ended between the job and the note about it.
        if found := read_receipt(place.receipt):
            return found
        try:
            values = with_sources(item.values, lambda source: str(self._file(source, place)))
            values["output"] = str(place.output(item.values))
            check_length(values, self.most_s)
            result = self._done(Item(values, place.receipt, place.progress))
        except (SourceError, UserError) as error:
            result = failure(error)
        except OSError as error:
            if not any(is_disk_full(each) for each in causes(error)):
                raise
            result = JobResult("failed", Reason.INTERNAL, "the disk of the service is full")
        # The paths are of no interest to whom the answer is for.
        hidden = replace(result, detail=result.detail.replace(str(place.folder.parent), ""))
        hidden = replace(hidden, detail=hidden.detail.replace(str(place.uploads), ""))
        write_receipt(place.receipt, hidden)
        shutil.rmtree(place.folder / "fetched", ignore_errors=True)
        return hidden

    def _file(self, source: str, place: Place) -> Path:
        if source.startswith(UPLOAD):
            return place.uploads / source.removeprefix(UPLOAD)
        item = SourceItem(source, source, source, "", How.FILE)
        return fetch(item, place.folder / "fetched", self.downloads).path


def with_sources(values: Mapping[str, Any], found: Callable[[str], str]) -> dict[str, Any]:
    """Options of a job with every source replaced by what is found for it."""
    given = dict(values)
    for name in ("video", "audio"):
        if given.get(name):
            given[name] = found(str(given[name]))
    if given.get("segments"):
        given["segments"] = [
            {**each, "audio": found(str(each["audio"]))} if each.get("audio") else dict(each)
            for each in given["segments"]
        ]
    return given


def check_length(values: Mapping[str, Any], most_s: float) -> None:
    """Check that no file of a job lasts longer than allowed.

    Args:
        values: options with paths.
        most_s: seconds.

    Raises:
        SourceError: NOT_ALLOWED, or the file cannot be used.
        UserError: the speech cannot be used.
    """
    job = job_of(values)
    lengths = {job.video: probe(Path(job.video)).duration_s}
    lengths |= {name: len(read_speech(Path(name))) / SAMPLE_RATE for name in job.files[1:]}
    longest = max(lengths.values())
    if longest > most_s:
        text = f"a file lasts {longest:.1f} s, at most {most_s:g} s are taken"
        raise SourceError(Reason.NOT_ALLOWED, text)
