"""One run at a time on object storage, which has no locks.

Every run keeps a file with a number that it raises every few seconds. A newcomer watches the
files of others: if its number moves, a run is alive; if it stands still, the run has died. No
clocks are compared, and the service needs to offer only files.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from datasets.errors import UserError
from datasets.store.protocol import Store

log = logging.getLogger(__name__)

BEAT_S = 10.0
"""Seconds after which the number is raised."""
PATIENCE_S = 60.0
"""Seconds of standing still after which a run counts as dead."""


class Lease:
    """A run's own file among those of others.

    Args:
        store: where the run writes.
        folder: folder of the runs' files in the store.
        beat_s: seconds between two beats.
        patience_s: seconds after which others count as dead.
        sleep: function that waits.
        on_loss: called when another run has taken over, in the thread that beats.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        beat_s: float = BEAT_S,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
        on_loss: Callable[[], None] = interrupt_main,
    ) -> None:
        self.store, self.folder = store, folder
        self.beat_s, self.patience_s, self.sleep = beat_s, patience_s, sleep
        self.on_loss = on_loss
        self.name = f"{folder}/{uuid.uuid4().hex}.json"
        self.host = f"{socket.gethostname()}, process {os.getpid()}"
        self.lost = self.holds = False
        self.term = 0
        """How many earlier runs were taken for dead: the later one of two goes on."""
        self._beats = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)

    def take(self) -> None:
        """Hold the store from now on.

        Raises:
            UserError: another run holds it.
        """
        # It beats while it watches, so that two that start at once see each other alive.
        self._beat()
        self._thread.start()
        try:
            self._watch()
        except BaseException:
            self.release()
            raise
        self.holds = True
        self._beat()

    def release(self) -> None:
        """Release the store."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError):
            self.store.delete(self.name)

    def _watch(self) -> None:
        """Wait until all others have ended or stood still for long enough."""
        seen: dict[str, bytes] = {}
        waited = 0.0
        while others := self._others():
            for name, content in others.items():
                state = _parse(content)
                moved = name in seen and seen[name] != content
                # Of two that start at once, the one with the smaller name goes on.
                if moved and (state.get("holds") or name < self.name):
                    raise UserError(
                        f"another run ({state.get('host', 'unknown')}) is working on "
                        f"{self.store.url}: wait for it, or choose another output"
                    )
            alive = any(seen.get(name, content) != content for name, content in others.items())
            if waited >= self.patience_s and not alive:
                for name, content in others.items():
                    self.term = max(self.term, _term(_parse(content)) + 1)
                    self.store.delete(name)
                return
            if not seen:
                log.warning(
                    "another run on %s is at work or was killed: watching it for %g s to see which",
                    self.store.url,
                    self.patience_s,
                )
            waited = 0.0 if alive else waited
            seen = others
            self.sleep(self.beat_s)
            waited += self.beat_s

    def _others(self) -> dict[str, bytes]:
        found = {}
        for name in self.store.names(self.folder):
            if name != self.name:
                with suppress(FileNotFoundError):
                    found[name] = self.store.read(name)
        return found

    def _beat(self) -> None:
        self._beats += 1
        state = {
            "host": self.host,
            "holds": self.holds,
            "term": self.term,
            "beats": self._beats,
        }
        self.store.write(self.name, json.dumps(state))

    def _beat_on(self) -> None:
        while not self._over.wait(self.beat_s):
            try:
                self._beat()
                if self._taken():
                    self.lost = True
                    self.on_loss()
                    return
            except Exception as error:
                log.warning("%s: the sign of life could not be written: %s", self.store.url, error)

    def _taken(self) -> bool:
        """Whether another run holds the store although this one should: the other took
        this one for dead, and a late beat may since have restored this one's file."""
        states = {name: _parse(content) for name, content in self._others().items()}
        return self.holds and any(
            state.get("holds") and (_term(state), name) > (self.term, self.name)
            for name, state in states.items()
        )


def _parse(content: bytes) -> dict[str, object]:
    try:
        state = json.loads(content)
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}


def _term(state: dict[str, object]) -> int:
    term = state.get("term")
    return term if isinstance(term, int) else 0


@contextmanager
def hold_lease(lease: Lease) -> Iterator[None]:
    """Hold a lease for the duration of the block.

    Raises:
        UserError: another run holds it, or has taken it over because this one stood still.
    """
    lease.take()
    try:
        yield
    except KeyboardInterrupt:
        if not lease.lost:
            raise
        raise UserError(
            f"another run has taken {lease.store.url}, since this one gave no sign of life for "
            f"{lease.patience_s:g} s: wait for it, then run the same command, which goes on"
        ) from None
    finally:
        lease.release()
