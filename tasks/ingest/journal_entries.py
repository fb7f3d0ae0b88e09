"""The entries of ingestion's journal, one for each group of sources."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, TypedDict, cast

from datasets.errors import Reason
from datasets.shards.records import LedgerRow, complete
from datasets.shards.writer import Shard, ShardInfo, ShardRecord
from datasets.sources.items import SourceItem

FAILURES = (
    Reason.TIMED_OUT,
    Reason.WORKER_DIED,
    Reason.INTERNAL,
    Reason.DOWNLOAD_FAILED,
    Reason.NOT_READ,
)
"""Reasons after which another run may succeed without anybody's help."""
DOWNLOAD = "download"
"""Stage in which a source that could not be fetched was lost."""


class Worth(IntEnum):
    """How much an entry knows about its source. An entry never replaces one of greater worth."""

    NOT_HAD = 0
    """It could not be fetched or worked on."""
    REFUSED = 1
    """It was looked at and refused as a whole."""
    READ = 2
    """It was read to its end, or the source list itself excludes it."""


@dataclass(slots=True)
class SourceEntry:
    """The result of one source."""

    key: str
    rows: list[LedgerRow]
    stamp: list[Any]
    """Size and times of a local file, or the version from the listing."""
    digest: str = ""
    """sha256 of the file; empty if it was not read."""
    content: str = ""
    """Equal for sources with the same content (`tasks.ingest.source_state.content_of`); empty if
    it was not read."""
    recording: str = ""
    """Text of the recording's `datasets.media.prints.Print`; empty if there is none."""
    formerly: list[list[str]] = field(default_factory=list)
    """Path and speaker of each source that had this content before and has gone."""
    split: str = ""
    """The split that the data set itself gives its clips; otherwise empty."""
    reason: str = ""
    """Why the source as a whole gave nothing; empty if it was read."""
    stage: str = ""
    """The stage in which it was lost, if it was."""
    note: str = ""
    """A note on a file that was used although something is wrong with it."""
    heard: str = ""
    """Which of several streams of sound was used; empty if there was only one."""
    runs: int = 1
    deadline_s: float = 0.0
    """Seconds allowed in the stage in which it ended."""
    confirmed: int = -1
    """Number of the last group when the file was found to be in this state again: attempts on
    other states up to that group are void."""
    seconds: float = 0.0
    video_seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether another run may succeed."""
        return self.reason in FAILURES

    @property
    def worth(self) -> Worth:
        if self.failed or self.reason in (Reason.UNAVAILABLE, Reason.NOT_ALLOWED):
            return Worth.NOT_HAD
        return Worth.REFUSED if self.reason else Worth.READ


class GroupRecord(TypedDict):
    """A `GroupEntry` as stored in the journal's file."""

    number: int
    sources: list[dict[str, Any]]
    """Of `SourceEntry`."""
    shards: list[ShardRecord]


@dataclass
class GroupEntry:
    """The result of one group."""

    number: int
    sources: list[SourceEntry]
    shards: list[Shard] = field(default_factory=list)

    def as_record(self) -> GroupRecord:
        """The entry as JSON data."""
        return cast(GroupRecord, asdict(self))

    @classmethod
    def from_record(cls, value: GroupRecord) -> "GroupEntry":
        sources = [
            SourceEntry(**{**each, "rows": [complete(row) for row in each["rows"]]})
            for each in value["sources"]
        ]
        return cls(value["number"], sources, shards_from(value["shards"]))


def shards_from(values: Iterable[ShardRecord]) -> list[Shard]:
    """Shards from their JSON form."""
    return [
        Shard(ShardInfo(**each["info"]), tuple(each["keys"]), tuple(each["places"]))
        for each in values
    ]


@dataclass
class Changes:
    """A list of sources compared with what is finished."""

    new: list[SourceItem] = field(default_factory=list)
    changed: list[SourceItem] = field(default_factory=list)
    """Sources whose bytes, or requested parts, have changed."""
    again: list[SourceItem] = field(default_factory=list)
    """Sources that failed before and are tried again."""
    kept: list[SourceItem] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    """Keys of sources that are finished but no longer listed."""

    @property
    def todo(self) -> list[SourceItem]:
        return [*self.new, *self.changed, *self.again]

    def counts(self) -> dict[str, int]:
        """The number of files of each kind."""
        return {
            "new": len(self.new),
            "changed": len(self.changed),
            "again": len(self.again),
            "kept": len(self.kept),
            "gone": len(self.gone),
        }

    def first_names(self, count: int) -> dict[str, list[str]]:
        """The first few files of each kind that changes a version."""
        kinds = {
            "new": [item.relative for item in self.new],
            "changed": [item.relative for item in self.changed],
            "gone": self.gone,
        }
        return {kind: sorted(names)[:count] for kind, names in kinds.items()}


@dataclass
class Begun:
    """State of sources when work on them began."""

    stamps: dict[str, list[Any]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
