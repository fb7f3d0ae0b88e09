"""Runs on object storage lock each other out by signs of life."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.store.lease import Lease, hold_lease
from datasets.store.lock import RUNS, only_writer
from datasets.store.open import open_store
from datasets.store.protocol import Store

NEVER = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"memory://{tmp_path.name}")


class Other:
    """A run elsewhere, which beats whenever somebody waits for it."""

    def __init__(self, store: Store, name: str, holds: bool, alive: bool, term: int = 0) -> None:
        self.store, self.name, self.holds, self.alive = store, f"{RUNS}/{name}.json", holds, alive
        self.beats, self.term = 0, term
        self.beat(0.0)

    def beat(self, seconds: float) -> None:
        self.beats += self.alive
        assert self.beats < 100, "waited for ever for a run that is alive"
        state = {"host": "far, process 7", "holds": self.holds, "beats": self.beats}
        state |= {"term": self.term}
        self.store.write(self.name, json.dumps(state))


def lease(store: Store, sleep: Callable[[float], None]) -> Lease:
    return Lease(store, RUNS, beat_s=NEVER, patience_s=3 * NEVER, sleep=sleep)


def test_an_empty_place_is_taken_and_left_empty(store: Store) -> None:
    with hold_lease(lease(store, never)):
        [name] = store.names(RUNS)
        assert json.loads(store.read(name))["holds"]
    assert store.names(RUNS) == []


def test_a_run_that_holds_it_is_let_alone(store: Store) -> None:
    other = Other(store, "zz", holds=True, alive=True)
    with (
        pytest.raises(UserError, match=r"another run \(far, process 7\) is working on memory://"),
        hold_lease(lease(store, other.beat)),
    ):
        pytest.fail("two at once")
    assert store.names(RUNS) == [other.name]


@pytest.mark.parametrize("name", ["", "zz"])
def test_of_two_that_begin_at_once_one_goes_on(store: Store, name: str) -> None:
    other = Other(store, name or "0", holds=False, alive=True)
    rounds: list[float] = []

    def sleep(seconds: float) -> None:
        rounds.append(seconds)
        # The other one has found this one alive, too, and has given way.
        store.delete(other.name) if name and len(rounds) == 3 else other.beat(seconds)

    mine = lease(store, sleep)
    if name:
        with hold_lease(mine):
            assert store.names(RUNS) == [mine.name]
    else:
        with pytest.raises(UserError, match="another run"), hold_lease(mine):
            pytest.fail("two at once")


def test_a_dead_run_is_forgotten_after_a_while(store: Store) -> None:
    other = Other(store, "0", holds=True, alive=False)
    waits: list[float] = []
    mine = lease(store, waits.append)
    with hold_lease(mine):
        assert sum(waits) == mine.patience_s
        assert store.names(RUNS) == [mine.name]
        assert json.loads(store.read(mine.name))["term"] == 1
    assert other.name not in store.names(RUNS)


def test_patience_begins_anew_with_every_sign_of_life(store: Store) -> None:
    other = Other(store, "zz", holds=False, alive=True)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) <= 2:
            other.beat(seconds)

    mine = lease(store, sleep)
    with hold_lease(mine):
        # Two rounds with a beat each, and then the whole patience from the last one seen.
        assert sum(waits) == 2 * NEVER + mine.patience_s


def test_it_beats_and_notices_when_another_takes_over(store: Store) -> None:
    lost = threading.Event()
    mine = Lease(store, RUNS, beat_s=0.01, on_loss=lost.set)
    text = r"another run has taken memory://.* no sign of life for 60"
    with pytest.raises(UserError, match=text), hold_lease(mine):
        _lose(mine, lost)


def _lose(mine: Lease, lost: threading.Event) -> None:
    while json.loads(mine.store.read(mine.name))["beats"] < 4:
        pass
    # A waiting run is not a loss, nor is one that comes back from the dead, nor a missing file.
    Other(mine.store, "zz", holds=False, alive=True, term=7)
    Other(mine.store, "0", holds=True, alive=True, term=0)
    mine.store.delete(mine.name)
    while mine.name not in mine.store.names(RUNS):
        pass
    assert not lost.is_set()
    Other(mine.store, "00", holds=True, alive=True, term=1)
    assert lost.wait(10)
    raise KeyboardInterrupt


def never(seconds: float) -> None:
    pytest.fail(f"nothing to wait {seconds} s for")


def test_an_interrupt_stays_one(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), hold_lease(lease(store, never)):
        raise KeyboardInterrupt
    assert store.names(RUNS) == []


def test_object_storage_has_one_writer(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with only_writer(store):
        assert len(store.names(RUNS)) == 1
        with pytest.raises(UserError, match="another run is working"), only_writer(store):
            pytest.fail("two at once")
    local = open_store(tmp_path / "data")
    with only_writer(local):
        assert local.names() == ["staging/.lock"]
