"""Several videos repainted side by side, so that a GPU has many windows at once.

Each video is a stream of windows that follow one another, in a thread of its own; the next
windows of all streams go through the network together. Which ones share a pass depends only on
the videos, so equal videos give equal bytes.
"""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, cast

import numpy as np

Window = Callable[..., Any]
"""Repaints one window."""
Paint = Callable[[Sequence[tuple[Any, ...]]], Sequence[Any]]
"""Repaints windows together: the arguments of each, and what it returns."""
_Message = tuple[int, str, Any]


class _Ended(Exception):
    """Tells a stream that another one has failed."""


def run_together(
    streams: Sequence[Callable[[Window], np.ndarray]], paint: Paint, at_once: int
) -> list[np.ndarray]:
    """Run streams that repaint windows; what each returns, in their order.

    Args:
        streams: each is given a function that repaints one window, and waits for it.
        paint: repaints windows together.
        at_once: most windows in one call of it.

    Raises:
        Exception: what a stream or `paint` raised.
    """
    said: SimpleQueue[_Message] = SimpleQueue()
    answers: list[SimpleQueue[Any]] = [SimpleQueue() for _ in streams]

    def run(number: int) -> None:
        def window(*inputs: Any) -> Any:
            said.put((number, "window", inputs))
            painted = answers[number].get()
            if painted is None:
                raise _Ended
            return painted

        try:
            said.put((number, "done", streams[number](window)))
        except BaseException as error:
            said.put((number, "failed", error))

    threads = [
        threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(streams))
    ]
    for thread in threads:
        thread.start()
    try:
        return _serve(said, answers, paint, at_once)
    finally:
        for answer in answers:
            answer.put(None)
        for thread in threads:
            thread.join()


def _serve(
    said: "SimpleQueue[_Message]",
    answers: Sequence["SimpleQueue[Any]"],
    paint: Paint,
    at_once: int,
) -> list[np.ndarray]:
    """Answer until all streams are done."""
    results: dict[int, np.ndarray] = {}
    while len(results) < len(answers):
        asked: dict[int, Any] = {}
        # Everyone has spoken before anyone is answered, whoever is faster.
        while len(asked) + len(results) < len(answers):
            number, what, value = said.get()
            if what == "failed":
                raise cast(BaseException, value)
            (results if what == "done" else asked)[number] = value
        order = sorted(asked)
        for first in range(0, len(order), at_once):
            chosen = order[first : first + at_once]
            painted = paint([asked[number] for number in chosen])
            for number, each in zip(chosen, painted, strict=True):
                answers[number].put(each)
    return [results[number] for number in range(len(answers))]
