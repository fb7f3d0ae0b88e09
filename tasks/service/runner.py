"""Works on the queue with workers that keep their model, until it is told to stop."""

import time
from collections.abc import Callable
from dataclasses import asdict

from tasks.lipsync.batch import DONE as WORKED
from tasks.lipsync.batch import ended
from tasks.runtime.pool import Pool, keep_driving
from tasks.runtime.stage import GroupOutcome, ItemGroup, Limits
from tasks.service.queue import CANCELLED, DONE, FAILED
from tasks.service.service import Service
from tasks.service.stage import ServiceItem, ServiceStage
from tasks.service.webhooks import Webhooks

LOOK_S = 0.5
"""Seconds between two looks at what was cancelled and what is to be sent."""
CLEAN_S = 60.0


class Runner:
    """One thread's work; needs a `ray_session`.

    Args:
        service: whose jobs are worked on.
        stage: what a worker does.
        workers: how many work at once.
        webhooks: sends what is due.
        deadline_s: seconds that a job may take.
        clock: seconds.
    """

    def __init__(
        self,
        service: Service,
        stage: ServiceStage,
        workers: int,
        webhooks: Webhooks | None = None,
        deadline_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service, self._webhooks, self._clock = service, webhooks, clock
        limits = Limits(deadline_s=deadline_s, recycle_after=500)
        self._workers = workers
        self._pool = Pool(stage, workers, limits, self._ended)
        self._running: set[str] = set()
        self._looked = self._cleaned = -CLEAN_S
        self._stopped = False

    def stop(self) -> None:
        """Let `run` end soon; what is running then goes on when the service starts again."""
        self._stopped = True

    def run(self) -> None:
        """Work until `stop`."""
        self._service.queue.requeue()
        keep_driving(self._pool, self._feed)

    def _feed(self) -> bool:
        if self._stopped:
            return False
        queue = self._service.queue
        while len(self._running) < self._workers and (record := queue.take()):
            place = self._service.place(record.id)
            place.folder.mkdir(parents=True, exist_ok=True)
            self._running.add(record.id)
            item = ServiceItem(record.job, place)
            self._pool.submit(ItemGroup(record.id, ((record.id, item),)))
        now = self._clock()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._end_cancelled()
            if self._webhooks:
                self._webhooks.send_due()
        if now - self._cleaned >= CLEAN_S:
            self._cleaned = now
            self._service.clean()
        return True

    def _end_cancelled(self) -> None:
        for identity in list(self._running):
            record = self._service.queue.get(identity)
            if record is None or record.state == CANCELLED:
                self._pool.cancel(identity)
                self._running.discard(identity)

    def _ended(self, group: GroupOutcome) -> None:
        (outcome,) = group.outcomes
        result = ended(outcome, self._service.place(group.key).receipt)
        state = DONE if result.status == WORKED else FAILED
        self._running.discard(group.key)
        self._service.queue.end(group.key, state, asdict(result))
