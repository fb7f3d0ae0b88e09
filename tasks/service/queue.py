"""The service's jobs and webhooks on disk: SQLite, or another database by its address.

All changes are transactions, and each move from state to state names the state before it, so that
no answer, cancellation or restart overwrites another.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from datasets.errors import UserError

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
MAX_ATTEMPTS = 8
"""Deliveries of a webhook before it is given up."""
BACKOFF_S, MAX_BACKOFF_S = 5.0, 3600.0
"""Pause after the first failed delivery; it doubles with each further one."""

_TABLES = sa.MetaData()
_JOBS = sa.Table(
    "lipsync_jobs",
    _TABLES,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), unique=True, nullable=False),
    sa.Column("state", sa.String(16), index=True, nullable=False),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("webhook", sa.Text, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("ended_at", sa.Float),
)
_DELIVERIES = sa.Table(
    "lipsync_deliveries",
    _TABLES,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String(32), nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", sa.Float),
    sa.Column("problem", sa.Text, nullable=False),
)


class QueueFullError(Exception):
    """There is no room for another job."""


@dataclass(frozen=True)
class JobRecord:
    """A job as the queue knows it."""

    id: str
    state: str
    job: dict[str, Any]
    """Its options, with sources as they were given."""
    webhook: str
    result: dict[str, Any]
    """What it came to; empty before that."""
    created_at: float
    """Seconds since 1970."""
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True)
class Delivery:
    """A webhook that is to be sent."""

    number: int
    url: str
    body: str
    attempts: int


class JobQueue:
    """Jobs in the order in which they came.

    Args:
        uri: SQLAlchemy's address of the database, such as `sqlite:////data/queue.db`.
        most_waiting: jobs that may wait.
        clock: seconds since 1970.

    Raises:
        UserError: the database cannot be used.
    """

    def __init__(
        self, uri: str, most_waiting: int = 100, clock: Callable[[], float] = time.time
    ) -> None:
        self._most_waiting, self._clock = most_waiting, clock
        try:
            self._engine = sa.create_engine(uri)
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _set_up_sqlite)
            _TABLES.create_all(self._engine)
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise UserError(f"the queue's database cannot be used: {error}") from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add(self, job: Mapping[str, Any], webhook: str = "") -> str:
        """Put a job at the end; returns its id.

        Raises:
            QueueFullError: too many wait already.
        """
        identity = uuid.uuid4().hex
        with self._engine.begin() as base:
            if self._count(base) >= self._most_waiting:
                raise QueueFullError
            base.execute(
                _JOBS.insert().values(
                    id=identity,
                    state=QUEUED,
                    job=json.dumps(job),
                    webhook=webhook,
                    result="",
                    created_at=self._clock(),
                )
            )
        return identity

    def waiting(self) -> int:
        """How many jobs wait."""
        with self._engine.begin() as base:
            return self._count(base)

    def _count(self, base: sa.Connection) -> int:
        where = _JOBS.c.state == QUEUED
        return int(base.scalar(sa.select(sa.func.count()).select_from(_JOBS).where(where)) or 0)

    def take(self) -> JobRecord | None:
        """The job that waits longest, which is running from now on."""
        with self._engine.begin() as base:
            row = base.execute(
                sa.select(_JOBS).where(_JOBS.c.state == QUEUED).order_by(_JOBS.c.number).limit(1)
            ).first()
            if row is None:
                return None
            at = self._clock()
            moved = self._move(base, row.id, (QUEUED,), state=RUNNING, started_at=at)
            return _record(row) if moved else None

    def requeue(self) -> int:
        """Let those that were running when the service ended wait again, in their old order."""
        with self._engine.begin() as base:
            done = base.execute(
                _JOBS.update().where(_JOBS.c.state == RUNNING).values(state=QUEUED, started_at=None)
            )
            return int(done.rowcount)

    def end(self, identity: str, state: str, result: Mapping[str, Any]) -> bool:
        """End a job that is running or waiting, and let its webhook be sent.

        Returns:
            Whether it was so; one that has ended stays as it is.
        """
        with self._engine.begin() as base:
            text, at = json.dumps(result), self._clock()
            given = {"state": state, "result": text, "ended_at": at}
            if not self._move(base, identity, (QUEUED, RUNNING), **given):
                return False
            row = base.execute(sa.select(_JOBS).where(_JOBS.c.id == identity)).one()
            if row.webhook:
                body = {"id": identity, "state": state, "result": result}
                base.execute(
                    _DELIVERIES.insert().values(
                        job_id=identity,
                        url=row.webhook,
                        body=json.dumps(body),
                        attempts=0,
                        next_at=at,
                        problem="",
                    )
                )
            return True

    def _move(
        self, base: sa.Connection, identity: str, before: tuple[str, ...], **values: Any
    ) -> bool:
        where = (_JOBS.c.id == identity) & _JOBS.c.state.in_(before)
        return base.execute(_JOBS.update().where(where).values(**values)).rowcount == 1

    def get(self, identity: str) -> JobRecord | None:
        """A job by its id."""
        with self._engine.begin() as base:
            row = base.execute(sa.select(_JOBS).where(_JOBS.c.id == identity)).first()
            return None if row is None else _record(row)

    def recent(self, count: int) -> list[JobRecord]:
        """The latest jobs, the newest first."""
        with self._engine.begin() as base:
            rows = base.execute(sa.select(_JOBS).order_by(_JOBS.c.number.desc()).limit(count))
            return [_record(row) for row in rows]

    def ahead(self, identity: str) -> int:
        """How many wait that came before this one."""
        number = sa.select(_JOBS.c.number).where(_JOBS.c.id == identity).scalar_subquery()
        where = (_JOBS.c.state == QUEUED) & (_JOBS.c.number < number)
        with self._engine.begin() as base:
            return int(base.scalar(sa.select(sa.func.count()).select_from(_JOBS).where(where)) or 0)

    def ended_before(self, moment: float) -> list[str]:
        """Ids of jobs that ended before a moment, seconds since 1970."""
        with self._engine.begin() as base:
            where = _JOBS.c.state.in_(ENDED) & (_JOBS.c.ended_at < moment)
            return list(base.scalars(sa.select(_JOBS.c.id).where(where)))

    def due(self) -> list[Delivery]:
        """Webhooks whose time has come."""
        with self._engine.begin() as base:
            where = _DELIVERIES.c.next_at <= self._clock()
            rows = base.execute(
                sa.select(_DELIVERIES).where(where).order_by(_DELIVERIES.c.next_at).limit(20)
            )
            return [Delivery(row.number, row.url, row.body, row.attempts) for row in rows]

    def delivered(self, delivery: Delivery, problem: str = "") -> None:
        """Note that a webhook was sent, or what went wrong: then it is tried again, later and
        later, until it is given up."""
        attempts = delivery.attempts + 1
        next_at = None
        if problem and attempts < MAX_ATTEMPTS:
            next_at = self._clock() + min(BACKOFF_S * 2**delivery.attempts, MAX_BACKOFF_S)
        with self._engine.begin() as base:
            base.execute(
                _DELIVERIES.update()
                .where(_DELIVERIES.c.number == delivery.number)
                .values(attempts=attempts, next_at=next_at, problem=problem)
            )


def _record(row: Any) -> JobRecord:
    return JobRecord(
        row.id,
        row.state,
        json.loads(row.job),
        row.webhook,
        json.loads(row.result) if row.result else {},
        row.created_at,
        row.started_at,
        row.ended_at,
    )


def _set_up_sqlite(connection: Any, _: Any) -> None:
    # Readers do not wait for the writer, and a commit is on the disk.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=30000")
