"""The service without its web server: taking jobs, working on them, and cleaning up."""

import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets.errors import SourceError, UserError
from datasets.fetch.policy import DownloadSettings
from datasets.media.output import container_of
from tasks.lipsync.job import job_of, job_schema
from tasks.service.look import Look
from tasks.service.queue import CANCELLED, DONE, ENDED, RUNNING, JobQueue, JobRecord
from tasks.service.stage import UPLOAD, Place, with_sources

OUTPUT = {"output": "out.mp4"}
"""What is written where nothing is said."""
NAME = re.compile(r"[0-9a-f]{32}(\.[a-z0-9]{1,5})?")
"""Names of uploads, made here."""
SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


@dataclass(frozen=True)
class ServiceSettings:
    """How much the service takes.

    Args:
        folder: for uploads, jobs and the queue.
        most_bytes: largest file that is uploaded or fetched.
        most_s: longest video and speech, seconds.
        most_waiting: jobs that may wait.
        keep_s: seconds after which ended jobs and uploads are removed.
        downloads: which addresses may be fetched.
    """

    folder: Path
    most_bytes: int = 2 << 30
    most_s: float = 600.0
    most_waiting: int = 100
    keep_s: float = 86400.0
    downloads: DownloadSettings = field(default_factory=DownloadSettings)


class TooLargeError(Exception):
    """A file lasts longer than allowed; the text is for whom it is from."""


class Service:
    """What the web server calls.

    Args:
        settings: how much it takes.
        queue: its jobs.
        clock: seconds since 1970.
        look: looks into uploaded files before a job is taken; None: only the worker does.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        queue: JobQueue,
        clock: Callable[[], float] = time.time,
        look: Callable[[Mapping[str, Any]], Look] | None = None,
    ) -> None:
        self.settings, self.queue, self._clock = settings, queue, clock
        self._look = look
        for each in (self.uploads, self.jobs):
            each.mkdir(parents=True, exist_ok=True)

    @property
    def uploads(self) -> Path:
        """Folder of uploaded files."""
        return self.settings.folder / "uploads"

    @property
    def jobs(self) -> Path:
        """Folder with a folder for each job."""
        return self.settings.folder / "jobs"

    def place(self, identity: str) -> Place:
        """Where a job is worked on."""
        return Place(self.jobs / identity, self.uploads)

    def new_upload(self, name: str = "") -> Path:
        """Where an upload is put; of the name that it has elsewhere only the suffix is kept.

        Raises:
            UserError: the disk is nearly full.
        """
        keep = self.settings.downloads.keep_free_bytes
        if shutil.disk_usage(self.uploads).free < keep:
            raise UserError("the service's disk is nearly full: try again later")
        suffix = Path(name).suffix.lower()
        return self.uploads / (secrets.token_hex(16) + (suffix if SUFFIX.fullmatch(suffix) else ""))

    def add(self, values: Mapping[str, Any]) -> JobRecord:
        """Take a job.

        Args:
            values: options of a job, with `upload:NAME` or addresses as sources, and `webhook`.

        Raises:
            UserError: a sentence about what is wrong with it.
            TooLargeError: a file lasts longer than allowed.
            QueueFullError: too many wait.
        """
        given = dict(values)
        webhook = given.pop("webhook", None) or ""
        if not isinstance(webhook, str):
            raise UserError(f"webhook must be an address, got {webhook!r}")
        if webhook:
            self._check_address("webhook", webhook)
        self._looked(self.checked(given))
        found = self.queue.get(self.queue.add(given, webhook))
        assert found is not None
        return found

    def checked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a job with paths, where its sources were uploaded.

        Raises:
            UserError: what is wrong with it.
        """
        given = OUTPUT | {name: each for name, each in values.items() if each is not None}
        # By the schema first, so that what follows has the right types.
        job = job_of(given)
        container_of(Path(job.output))
        if job.segments:
            given["segments"] = [
                {name: each for name, each in asdict(segment).items() if each is not None}
                for segment in job.segments
            ]
        return with_sources(given, self._path)

    def _looked(self, values: Mapping[str, Any]) -> Look | None:
        """What is in the files of a job; None: they are elsewhere, or nobody looks."""
        there = all(Path(each).is_absolute() for each in job_of(values).files)
        if self._look is None or not there:
            return None
        seen = self._look(values)
        if seen.too_long:
            raise TooLargeError(seen.problem)
        if seen.problem:
            raise UserError(self.without_paths(seen.problem))
        return seen

    def without_paths(self, text: str) -> str:
        """A sentence without the service's own folders."""
        return text.replace(f"{self.uploads}/", UPLOAD).replace(f"{self.jobs}/", "")

    def estimate(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """How long a job would take, by what the latest ones took.

        Args:
            values: options of a job.

        Returns:
            frames of the output, seconds of work, and how many jobs wait; None where it is not
            known: a file is not here yet, or no job has been done.

        Raises:
            UserError, TooLargeError: as `add`.
        """
        given = {name: each for name, each in values.items() if name != "webhook"}
        seen = self._looked(self.checked(given))
        waiting = self.queue.waiting()
        if seen is None:
            return {"frames": None, "seconds": None, "waiting": waiting}
        done = [each for each in self.queue.recent(200) if each.state == DONE]
        frames = sum(each.result["frames"] for each in done)
        seconds = sum(each.result["seconds"] for each in done)
        expected = round(seconds / frames * seen.frames, 1) if frames else None
        return {"frames": seen.frames, "seconds": expected, "waiting": waiting}

    def _path(self, source: str) -> str:
        if not source.startswith(UPLOAD):
            self._check_address("a source", source)
            return source
        name = source.removeprefix(UPLOAD)
        path = self.uploads / name
        if not NAME.fullmatch(name) or not path.is_file():
            raise UserError(
                f"there is no upload {source!r}: POST /uploads gives the name of a file"
            )
        return str(path)

    def _check_address(self, what: str, address: str) -> None:
        if not address.lower().startswith(("http://", "https://")):
            raise UserError(
                f"{what} must be an http or https address, or {UPLOAD}NAME of an upload, "
                f"got {address!r}"
            )
        try:
            self.settings.downloads.addresses.check(address)
        except SourceError as error:
            raise UserError(f"{what} {address!r} is refused: {error.detail}") from error

    def describe(self, record: JobRecord) -> dict[str, Any]:
        """What is told about a job."""
        told: dict[str, Any] = {
            "id": record.id,
            "state": record.state,
            "created_at": record.created_at,
            "started_at": record.started_at,
            "ended_at": record.ended_at,
            "job": record.job,
        }
        if record.state in ENDED:
            told |= {"result": record.result}
        elif record.state == RUNNING:
            told |= {"progress": self._progress(record.id)}
        else:
            told |= {"ahead": self.queue.ahead(record.id)}
        return told

    def _progress(self, identity: str) -> dict[str, Any]:
        try:
            found = json.loads(self.place(identity).progress.read_text(encoding="utf-8"))
            return dict(found)
        except (OSError, ValueError, TypeError):
            return {"step": "starting", "done": 0, "total": None}

    def cancel(self, identity: str) -> bool:
        """Cancel a job that has not ended; returns whether there was one."""
        return self.queue.end(identity, CANCELLED, {"status": CANCELLED})

    def clean(self) -> int:
        """Remove files that are kept no longer; returns how many jobs and uploads went."""
        before = self._clock() - self.settings.keep_s
        gone = 0
        for identity in self.queue.ended_before(before):
            folder = self.jobs / identity
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
                gone += 1
        needed = self._needed()
        for path in self.uploads.iterdir():
            if path.stat().st_mtime < before and path.name not in needed:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _needed(self) -> set[str]:
        """Uploads of jobs that have not ended."""
        found: set[str] = set()
        for record in self.queue.recent(10 * self.settings.most_waiting):
            if record.state not in ENDED:
                values = with_sources(record.job, lambda each: each.removeprefix(UPLOAD))
                found |= {Path(each).name for each in job_of(OUTPUT | values).files}
        return found


def service_schema() -> dict[str, Any]:
    """The JSON schema of a job of the service: one of a job, but for where its files are."""
    schema = job_schema()
    segment = schema.pop("$defs")["Segment"]
    text = json.dumps(schema).replace(json.dumps({"$ref": "#/$defs/Segment"}), json.dumps(segment))
    found: dict[str, Any] = json.loads(text)
    where = "upload:NAME of an upload, or an http or https address"
    found["properties"]["video"]["description"] += f" Here: {where}."
    found["properties"]["audio"]["description"] += f" Here: {where}."
    found["properties"]["output"]["description"] = "a name whose suffix says what is written"
    found["properties"]["webhook"] = {
        "type": "string",
        "description": "address that is told when the job has ended",
    }
    return found | {"required": ["video"]}
