"""The queue on disk: order, limits, restarts, and webhooks that are tried again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets.errors import UserError
from tasks.service.queue import (
    CANCELLED,
    DONE,
    FAILED,
    MAX_ATTEMPTS,
    QUEUED,
    RUNNING,
    JobQueue,
    QueueFullError,
)


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Iterator[JobQueue]:
    made = JobQueue(f"sqlite:///{tmp_path / 'q ü.db'}", 3, clock)
    yield made
    made.close()


def test_jobs_are_taken_in_the_order_in_which_they_came(queue: JobQueue) -> None:
    names = [queue.add({"video": str(number)}) for number in range(3)]
    assert [queue.ahead(name) for name in names] == [0, 1, 2]
    taken = [queue.take() for _ in range(4)]
    assert [each and each.id for each in taken] == [*names, None]
    assert taken[0] is not None
    assert taken[0].job == {"video": "0"}
    found = queue.get(names[0])
    assert found is not None
    assert (found.state, found.started_at, found.ended_at) == (RUNNING, 1000.0, None)
    assert [each.id for each in queue.recent(2)] == [names[2], names[1]]


def test_no_more_wait_than_are_allowed(queue: JobQueue) -> None:
    for _ in range(3):
        queue.add({})
    with pytest.raises(QueueFullError):
        queue.add({})
    queue.take()
    queue.add({})
    assert queue.waiting() == 3


def test_what_was_running_waits_again_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    uri = f"sqlite:///{tmp_path}/q.db"
    first = JobQueue(uri, 9, clock)
    names = [first.add({"number": number}) for number in range(3)]
    first.take()
    first.take()
    first.end(names[0], DONE, {"frames": 1})
    first.close()
    second = JobQueue(uri, 9, clock)
    assert second.requeue() == 1
    taken = [each for each in (second.take(), second.take(), second.take()) if each]
    assert [each.id for each in taken] == names[1:]
    second.close()


def test_what_has_ended_stays_as_it_is(queue: JobQueue) -> None:
    name = queue.add({})
    queue.take()
    assert queue.end(name, CANCELLED, {})
    assert not queue.end(name, DONE, {"frames": 3})
    found = queue.get(name)
    assert found is not None
    assert (found.state, found.result) == (CANCELLED, {})
    waiting = queue.add({})
    assert queue.end(waiting, CANCELLED, {})
    assert queue.take() is None
    assert queue.get("x" * 32) is None


def test_a_webhook_is_tried_again_later_and_later(queue: JobQueue, clock: Clock) -> None:
    name = queue.add({}, "https://example.org/hook")
    assert not queue.due()
    queue.end(name, FAILED, {"reason": "no_face"})
    pauses = []
    for _ in range(MAX_ATTEMPTS):
        began = clock.now
        while not queue.due():
            clock.now += 1
            assert clock.now - began < 4000
        pauses.append(clock.now - began)
        (delivery,) = queue.due()
        assert (delivery.url, delivery.attempts) == ("https://example.org/hook", len(pauses) - 1)
        assert f'"id": "{name}", "state": "failed"' in delivery.body
        queue.delivered(delivery, "HTTP 500")
    assert pauses == [0, 5, 10, 20, 40, 80, 160, 320]
    clock.now += 1e6
    assert not queue.due(), "given up"


def test_a_webhook_that_was_taken_is_not_sent_again(queue: JobQueue, clock: Clock) -> None:
    name = queue.add({}, "https://example.org/hook")
    queue.end(name, DONE, {})
    (delivery,) = queue.due()
    queue.delivered(delivery)
    clock.now += 1e6
    assert not queue.due()


def test_jobs_that_ended_long_ago_are_known(queue: JobQueue, clock: Clock) -> None:
    old, new, waiting = (queue.add({}) for _ in range(3))
    queue.end(old, DONE, {})
    clock.now += 100
    queue.end(new, DONE, {})
    assert queue.ended_before(1050.0) == [old]
    found = queue.get(waiting)
    assert found is not None
    assert found.state == QUEUED


@pytest.mark.parametrize("uri", ["sqlite:////no/such/folder/q.db", "nothing://x", "x"])
def test_a_database_that_cannot_be_used_is_named(uri: str) -> None:
    with pytest.raises(UserError, match="the queue's database cannot be used"):
        JobQueue(uri)
