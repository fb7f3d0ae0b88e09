"""Signs of life: a worker writes a small file every second, and the driver sees which are silent.

Ray notices a lost process at once, but believes in a node's death only after half a minute or more,
while the others wait for its gradients.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BEAT_S = 1.0
SILENT_S = 7.0
"""Seconds without a sign of life after which a worker is said to be silent."""
PATTERN = "beat-*"


@contextmanager
def beating(folder: Path, rank: int, host: str) -> Iterator[None]:
    """Show signs of life during the block.

    Args:
        folder: where; the driver must see it, too.
        rank: which worker this is.
        host: on which machine it is.
    """
    path, unfinished, ended = folder / f"beat-{rank}", folder / f".beat-{rank}", threading.Event()

    def work() -> None:
        count = 0
        while True:
            count += 1
            # A full disk is said by what writes checkpoints.
            with suppress(OSError):
                unfinished.write_text(f"{host} {count}", encoding="utf-8")
                unfinished.replace(path)
            if ended.wait(BEAT_S):
                return

    thread = threading.Thread(target=work, name="beats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


@dataclass
class _Heard:
    text: str
    at: float
    silent: bool = False


class Listener:
    """Says which workers are silent, and when they are heard of again.

    Args:
        folder: where they write.
        say: takes lines.
        clock: seconds, for tests.
    """

    def __init__(
        self, folder: Path, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.say, self.clock = folder, say, clock
        self._heard: dict[str, _Heard] = {}

    def listen(self) -> None:
        """Look once."""
        now, seen = self.clock(), set[str]()
        for path in self.folder.glob(PATTERN):
            try:
                text = path.read_text(encoding="utf-8")
            except OSError:
                continue
            seen.add(path.name)
            known = self._heard.get(path.name)
            if known is None or known.text != text:
                if known is not None and known.silent:
                    self.say(f"{_name(path.name, text)} is heard of again")
                self._heard[path.name] = _Heard(text, now)
            elif not known.silent and now - known.at >= SILENT_S:
                known.silent = True
                self.say(
                    f"{_name(path.name, text)} has not been heard of for {now - known.at:.0f} s "
                    "and may be lost: training goes on as soon as Ray knows"
                )
        for name in self._heard.keys() - seen:
            del self._heard[name]

    def forget(self) -> None:
        """Remove what is left of workers that have ended, in whatever way."""
        for path in self.folder.glob(PATTERN):
            path.unlink(missing_ok=True)
        self._heard.clear()


def _name(beat: str, text: str) -> str:
    return f"training worker {beat.partition('-')[2]} on {text.rpartition(' ')[0]}"
