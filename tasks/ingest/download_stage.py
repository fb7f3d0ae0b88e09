"""The download stage: from a source item to a file on this machine.

It waits for networks rather than computing, so many of its workers share a core; how many
there are is `settings.connections`.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from datasets.fetch.item import fetch
from datasets.fetch.policy import DownloadSettings
from datasets.sources.items import SourceItem
from tasks.runtime.stage import Resources, Stage

WORKER_CPUS = 0.0
"""No CPUs for Ray to count: ingest workers occupy all of them, so no fetch would begin."""
GRACE_S = 60.0
"""Seconds beyond the item's own deadline that the executor waits for a worker: time to
put picture and sound together, and to notice a silent connection."""


@dataclass(frozen=True)
class Downloaded:
    """The fetched file of one item."""

    path: Path
    bytes: int
    sha256: str
    """Empty for a file that was already here."""
    seconds: float
    """Seconds that it took; near 0 if it was already here."""
    sound: Path | None = None
    """The file with the audio, if that comes separately."""


@dataclass
class DownloadStage(Stage):
    """Turns a `SourceItem` into `Downloaded`, using a cache folder."""

    folder: Path
    """The cache; shared by all workers of a machine."""
    settings: DownloadSettings = field(default_factory=DownloadSettings)
    resources: Resources = field(default_factory=lambda: Resources(cpus=WORKER_CPUS))

    @property
    def executor_deadline_s(self) -> float:
        """Seconds after which a worker counts as hung."""
        return self.settings.deadline_s + GRACE_S

    def process(self, item: SourceItem) -> Downloaded:
        """Fetch one item; raises SourceError with the reason for its row in the ledger."""
        began = time.monotonic()
        sound, settings = None, self.settings
        if item.sound:
            sound = fetch(item.sound, self.folder, settings).path
            left_s = settings.deadline_s - (time.monotonic() - began)
            settings = replace(settings, deadline_s=max(left_s, 0.001))
        video = fetch(item, self.folder, settings)
        spent = time.monotonic() - began
        return Downloaded(video.path, video.bytes, video.sha256, spent, sound)
