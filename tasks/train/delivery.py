"""Sends the points of a run's curves to MLflow while it trains.

The curve files of the stages are the truth, and the spool: points that cannot be sent now are
sent later, also by the next start of the same run. Which points MLflow already has is asked of
MLflow itself, so that none is lost or sent twice, whatever was killed.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tasks.registry.patience import is_away, patiently
from tasks.registry.tracking import RunTracker, quiet
from tasks.train.curves import METRICS, RUNTIME
from tasks.train.samples import FOLDER
from tasks.train.stages import TrainingJob

INTERVAL_S = 10.0
"""Seconds between two looks at the files."""

Point = tuple[str, float, int]
"""Name, value, step."""


@dataclass
class StageDelivery:
    """The points of one stage on their way to its MLflow run."""

    uri: str
    run: str
    files: Sequence[Path]
    tracker: RunTracker | None = None
    sent: set[tuple[str, int]] = field(default_factory=set)
    """Name and step of the points that MLflow has."""
    videos: Path | None = None
    """Folder of the stage's sample videos."""
    shown: set[str] = field(default_factory=set)
    """Names of those that MLflow has got from here."""
    read: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """File -> its size and time of change when all of it had been sent."""

    def send(self) -> int:
        """Send what is new; returns how many points that was.

        Raises:
            Exception: what MLflow's client raised. What has arrived is asked again before the
                next attempt, since an answer may have been lost on its way.
        """
        seen = {path: _version(path) for path in self.files}
        videos = [path for path in self._videos() if path.name not in self.shown]
        if self.tracker is not None and seen == self.read and not videos:
            return 0
        try:
            if self.tracker is None:
                tracker = RunTracker.attach(self.uri, self.run)
                self.sent = tracker.points()
                self.tracker = tracker
            new = [
                point
                for path in self.files
                for point in read_points(path)
                if (point[0], point[2]) not in self.sent
            ]
            with quiet():
                self.tracker.log_points(new)
                for path in videos:
                    self.tracker.log_artifact(path, FOLDER)
                    self.shown.add(path.name)
            self.sent.update((name, step) for name, _, step in new)
        except Exception:
            self.tracker = None
            raise
        self.read = seen
        return len(new)

    def _videos(self) -> list[Path]:
        return sorted(self.videos.glob("*.mp4")) if self.videos else []


def read_points(path: Path) -> Iterator[Point]:
    """The points of a curve file; a line that is still being written is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            return
        step = int(entry.pop("step"))
        yield from ((name, float(value), step) for name, value in entry.items())


def _version(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


class Delivery:
    """All stages of a run.

    Args:
        say: shows one line to the person who waits.
    """

    def __init__(self, job: TrainingJob, say: Callable[[str], None]) -> None:
        self.say = say
        self.stages = [
            StageDelivery(
                job.tracking_uri,
                run,
                (job.output / name / METRICS, job.output / name / RUNTIME),
                videos=job.output / name / FOLDER,
            )
            for name, run in job.runs
            if job.tracking_uri
        ]
        self.away = False

    def send(self) -> None:
        """Send what is new.

        Raises:
            Exception: MLflow does not answer, or refuses.
        """
        for each in self.stages:
            each.send()

    def try_to_send(self) -> None:
        """Send what is new; a server that does not answer is said once, and training goes on."""
        try:
            self.send()
        except Exception as error:
            if not self.away:
                self.away = True
                state = "does not answer" if is_away(error) else "does not take the curves"
                self.say(f"MLflow {state}: training goes on, and curves are sent later")
            return
        if self.away:
            self.away = False
            self.say("MLflow answers again: the curves are complete")


@contextmanager
def delivering(job: TrainingJob, say: Callable[[str], None]) -> Iterator[None]:
    """Send curves during the block, and the rest at its end.

    Raises:
        Exception: MLflow still does not answer long after a successful block.
    """
    delivery, ended = Delivery(job, say), threading.Event()

    def work() -> None:
        while not ended.wait(INTERVAL_S):
            delivery.try_to_send()

    thread = threading.Thread(target=work, name="curves", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        thread.join()
        delivery.try_to_send()
        raise
    ended.set()
    thread.join()
    patiently(delivery.send, "sending the curves", say)
