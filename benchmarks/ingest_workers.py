"""Processes that are ready before the clock starts, for the chain and the floors."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from threading import BrokenBarrierError
from types import TracebackType
from typing import Any, Self, TypeVar

from datasets.faces.landmarks import FaceMeshDetector
from tasks.runtime.processes import die_with_parent

READY_S = 300.0
Item = TypeVar("Item")
Result = TypeVar("Result")
_local: dict[str, Any] = {}


@dataclass(frozen=True)
class Span:
    """When something ran: readings of `time.monotonic`, which all processes share."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


class Workers:
    """A pool of processes, each with its face models loaded.

    Args:
        count: number of processes.
        max_faces: most faces that their FaceMesh looks for.
    """

    def __init__(self, count: int, max_faces: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.count = count
        self._pool = ProcessPoolExecutor(
            count,
            mp_context=context,
            initializer=_begin,
            initargs=(context.Barrier(count), max_faces, os.environ["PATH"]),
        )

    def __enter__(self) -> Self:
        # Each of these calls waits for all the others, so each gets a process of its own.
        for call in [self._pool.submit(_ready) for _ in range(self.count)]:
            call.result(READY_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            for process in list(self._pool._processes.values()):
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> tuple[list[Result], Span]:
        """Results in the items' order, and when the first began and the last ended.

        Items are started in their order; put the longest first.
        """
        begin = time.monotonic()
        results = list(self._pool.map(function, items))
        return results, Span(begin, time.monotonic())


def _begin(barrier: Any, max_faces: int, path: str) -> None:
    die_with_parent()
    # Only the process that holds the pool handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["PATH"] = path
    _local["barrier"] = barrier
    _local["detector"] = FaceMeshDetector(max_faces)


def _ready() -> None:
    try:
        _local["barrier"].wait(READY_S)
    except BrokenBarrierError as error:
        raise RuntimeError(f"not all processes were ready within {READY_S:g} s") from error


def detector() -> FaceMeshDetector:
    """The face models of the calling process."""
    loaded: FaceMeshDetector = _local["detector"]
    return loaded
