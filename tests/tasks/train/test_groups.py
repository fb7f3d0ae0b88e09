"""Groups of workers: what is said and done when workers are lost, silent, or can be more."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from datasets.errors import UserError
from tasks.recipes.recipe import recipe
from tasks.train import groups
from tasks.train.beats import SILENT_S, Listener, beating
from tasks.train.checkpoints import save_state
from tasks.train.groups import LOOK_S, PAUSE, RESTARTS, WAIT_S, Groups
from tasks.train.stages import TrainingJob
from tests.support.fake_clock import FakeClock


class Lost(Exception):
    """A worker's process has died."""


@dataclass
class Cluster:
    """Has room for so many workers; a training does what the script says, group by group."""

    wanted: int = 2
    now: int = 2
    free: int = 0
    script: list[Callable[[], None]] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    left: int = 1
    """Stages that remain."""

    def workers(self) -> int:
        return self.now

    def more(self) -> int:
        return self.free

    def start(self, count: int) -> None:
        self.started.append(count)
        if self.script:
            self.script.pop(0)()
        else:
            self.left = 0


@dataclass
class Case:
    cluster: Cluster
    groups: Groups
    lines: list[str]
    clock: FakeClock
    folder: Path


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    cluster, lines, clock = Cluster(), list[str](), FakeClock()
    monkeypatch.setattr(groups, "remaining", lambda job: ["stage1"] * cluster.left)
    job = TrainingJob(tmp_path / "d", tmp_path, recipe("debug"))

    def lost(error: BaseException) -> str:
        return "a worker was lost" if isinstance(error, Lost) else ""

    now, sleep = clock.clock.now, clock.clock.sleep
    made = Groups(job, cluster, 1, tmp_path, cluster.start, lost, lines.append, now, sleep)
    return Case(cluster, made, lines, clock, tmp_path)


def lose() -> None:
    raise Lost


def test_a_lost_worker_is_said_and_the_others_go_on(case: Case) -> None:
    def lose_a_node() -> None:
        case.cluster.now = 1
        raise Lost

    case.cluster.script = [lose_a_node]
    case.groups.fit()
    assert case.cluster.started == [2, 1]
    assert case.lines == ["a worker was lost: training goes on from the last checkpoint"]


def test_it_gives_up_after_losses_without_progress(case: Case) -> None:
    case.cluster.script = [lose] * 10
    with pytest.raises(UserError, match=f"lost workers {RESTARTS + 1} times without a new"):
        case.groups.fit()
    assert len(case.cluster.started) == RESTARTS + 1


def test_losses_with_checkpoints_in_between_are_no_reason_to_give_up(case: Case) -> None:
    steps = iter(range(1, 100))

    def advance_and_lose() -> None:
        save_state(case.folder / "stage1" / "checkpoint.pt", {"step": next(steps)})
        raise Lost

    case.cluster.script = [advance_and_lose] * (3 * RESTARTS)
    case.groups.fit()
    assert len(case.cluster.started) == 3 * RESTARTS + 1


def test_other_errors_are_not_tried_again(case: Case) -> None:
    def fail() -> None:
        raise UserError("no clip is long enough")

    case.cluster.script = [fail]
    with pytest.raises(UserError, match="no clip is long enough"):
        case.groups.fit()
    assert case.cluster.started == [2]


def test_it_waits_for_room_and_not_for_ever(case: Case) -> None:
    case.groups.least = case.cluster.wanted
    case.cluster.now = 1
    began = case.clock.time
    with pytest.raises(UserError, match="room for 1 training workers for 300 s, and 2 are needed"):
        case.groups.fit()
    assert case.clock.time - began == WAIT_S
    assert case.lines == ["waiting for room for 2 training workers: there is 1"]
    assert not case.cluster.started


def test_what_the_group_itself_has_not_taken_yet_is_no_room_for_more(case: Case) -> None:
    """Or it would pause again and again while it starts, and never come further."""
    case.cluster.now, case.cluster.free = 1, 1

    def train() -> None:
        case.clock.clock.sleep(LOOK_S)
        case.groups.watch()
        assert not (case.folder / PAUSE).exists()
        case.cluster.left = 0

    case.cluster.script = [train]
    case.groups.fit()
    assert case.cluster.started == [1]


def test_with_room_for_more_it_pauses_and_goes_on_with_them(case: Case) -> None:
    case.cluster.now = 1

    def train_until_paused() -> None:
        case.groups.watch()
        assert not (case.folder / PAUSE).exists()
        case.cluster.now, case.cluster.free = 2, 5
        case.clock.clock.sleep(LOOK_S)
        case.groups.watch()
        assert (case.folder / PAUSE).exists()
        case.clock.clock.sleep(LOOK_S)
        case.groups.watch()

    def train_as_all() -> None:
        assert not (case.folder / PAUSE).exists()
        case.clock.clock.sleep(LOOK_S)
        case.groups.watch()
        assert not (case.folder / PAUSE).exists()
        case.cluster.left = 0

    case.cluster.script = [train_until_paused, train_as_all]
    case.groups.fit()
    assert case.cluster.started == [1, 2]
    assert case.lines == ["there is room for 1 more: training pauses and goes on with them"]


def test_a_group_that_ends_too_early_is_a_fault(case: Case) -> None:
    case.cluster.script = [lambda: None]
    with pytest.raises(RuntimeError, match="ended before the training did"):
        case.groups.fit()


def test_silent_workers_are_named_once_and_when_they_are_back(tmp_path: Path) -> None:
    lines, clock = list[str](), FakeClock()
    listener = Listener(tmp_path, lines.append, clock.clock.now)
    for rank in (0, 1):
        (tmp_path / f"beat-{rank}").write_text("here 1")
    for second in range(2 * int(SILENT_S)):
        (tmp_path / "beat-0").write_text(f"here {second}")
        listener.listen()
        clock.clock.sleep(1.0)
    assert lines == [
        "training worker 1 on here has not been heard of for 7 s and may be lost: training goes "
        "on as soon as Ray knows"
    ]
    (tmp_path / "beat-1").write_text("here 2")
    listener.listen()
    assert lines[1:] == ["training worker 1 on here is heard of again"]
    # One that has ended in order is not missed.
    (tmp_path / "beat-1").unlink()
    clock.clock.sleep(SILENT_S)
    (tmp_path / "beat-0").write_text("here again")
    listener.listen()
    assert len(lines) == 2


def test_a_worker_shows_that_it_lives(tmp_path: Path) -> None:
    with beating(tmp_path, 3, "there"):
        path = tmp_path / "beat-3"
        while not path.exists():
            pass
        assert path.read_text().startswith("there ")
    assert not path.exists()
