"""Looking into uploaded files before they are queued, in a process that may die of them.

Decoders are large programs in C, and a file can be made to crash them: that must not end the
service. The process is started once and stays.
"""

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as LateError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from datasets.errors import SourceError, UserError
from tasks.lipsync.estimate import work_of
from tasks.lipsync.job import job_of
from tasks.runtime.processes import die_with_parent
from tasks.service.stage import check_length

LIMIT_S = 120.0
"""Seconds for a look, including the start of the process."""


@dataclass(frozen=True)
class Look:
    """What was seen in the files of a job."""

    problem: str = ""
    """Why it cannot be done; empty if nothing is known against it."""
    too_long: bool = False
    """A file lasts longer than allowed."""
    frames: int = 0
    """Frames of the output."""


def look(values: Mapping[str, Any], most_s: float) -> Look:
    """Look into the files of a job; never raises for what is wrong with them."""
    try:
        check_length(values, most_s)
        work = work_of(job_of(values))
    except SourceError as error:
        return Look(error.detail, too_long=error.reason.value == "not_allowed")
    except UserError as error:
        return Look(str(error))
    return Look(frames=work.written)


class Looker:
    """Looks in a process of its own, one file after the other.

    Args:
        most_s: longest video and speech, seconds.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, values: Mapping[str, Any]) -> Look:
        """What is in the files of a job, whose sources are paths."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, initializer=die_with_parent)
        try:
            return self._pool.submit(look, dict(values), self._most_s).result(LIMIT_S)
        except (BrokenProcessPool, LateError):
            self.close()
            return Look("the process that looked into the files died of them, or was too slow")

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for each in processes:
                each.kill()
            self._pool = None
