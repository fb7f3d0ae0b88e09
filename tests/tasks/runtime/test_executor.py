"""The executor over a real Ray: whatever items do, each ends in one outcome."""

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import Reason, SourceError, UserError
from tasks.runtime import pool as runtime_pool
from tasks.runtime.executor import run_groups, run_stage
from tasks.runtime.ray_session import ray_session
from tasks.runtime.room import fitting_workers, gpu_share_of_core
from tasks.runtime.stage import (
    GroupOutcome,
    ItemGroup,
    Limits,
    Outcome,
    Resources,
    Stage,
    StageError,
    StageProgress,
    StageSetupError,
)


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    with ray_session(num_cpus=2):
        yield


@dataclass
class Script(Stage):
    """Does what the item asks for."""

    folder: str = ""
    resources = Resources(cpus=1.0)

    def setup(self) -> None:
        self.items = 0

    def may_be_long(self, item: Any) -> bool:
        return str(item).startswith("long")

    def extra_seconds(self, item: Any) -> float:
        if item == "long and odd":
            return float("nan")
        if item == "long and broken":
            raise ValueError("no length")
        return 60.0

    def process(self, item: Any) -> Any:
        self.items += 1
        if item == "long":
            time.sleep(2.0)
        if item == "pid":
            return os.getpid()
        if item == "count":
            return self.items
        if item == "refuse":
            raise SourceError(Reason.NO_AUDIO, "nothing to hear")
        if item == "crash":
            return 1 / 0
        if item == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "die once":
            marker = Path(self.folder) / "died"
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return "alive"
        if item == "hang":
            threading.Event().wait()
        if item == "disk":
            raise OSError(errno.ENOSPC, "No space left on device", "/x/y")
        if item == "numpy disk":
            raise OSError("9 requested and 5 written")
        if item == "user":
            raise UserError("give another file")
        if item == "lock":
            return threading.Lock()
        return 2 * item


def outcomes(stage: Stage, items: list[Any], **options: Any) -> dict[str, Outcome]:
    found: list[Outcome] = []
    keyed = [(f"{place}:{item}", item) for place, item in enumerate(items)]
    run_stage(stage, keyed, on_outcome=found.append, **options)
    assert sorted(each.key for each in found) == sorted(key for key, _ in keyed)
    return {each.key: each for each in found}


def test_every_item_ends_in_one_outcome(tmp_path: Path) -> None:
    items = [1, "refuse", "crash", "die", "hang", "die once", "lock", *range(20)]
    seen: list[StageProgress] = []
    stage = Script(str(tmp_path))
    ends = outcomes(
        stage, items, limits=Limits(deadline_s=4.0, max_attempts=2), on_progress=seen.append
    )
    assert ends["0:1"].value == 2
    assert all(ends[f"{place + 7}:{place}"].value == 2 * place for place in range(20))
    reasons = {key: (end.reason, end.attempts) for key, end in ends.items() if end.reason}
    assert reasons == {
        "1:refuse": (Reason.NO_AUDIO, 1),
        "2:crash": (Reason.INTERNAL, 1),
        "3:die": (Reason.WORKER_DIED, 2),
        "4:hang": (Reason.TIMED_OUT, 1),
        "6:lock": (Reason.INTERNAL, 1),
    }
    assert (ends["5:die once"].value, ends["5:die once"].attempts) == ("alive", 2)
    assert "division by zero (test_executor.py:" in ends["2:crash"].detail
    assert ends["1:refuse"].detail == "nothing to hear"
    assert "4 s" in ends["4:hang"].detail
    assert (seen[-1].done, seen[-1].total) == (len(items), len(items))


def test_long_items_have_more_time() -> None:
    items = ["long", "long and odd", "long and broken"]
    ends = outcomes(Script(), items, limits=Limits(deadline_s=1.0))
    assert [end.value for _, end in sorted(ends.items())] == [2 * item for item in items]


def test_an_item_that_cannot_be_sent_is_an_outcome() -> None:
    class Sly(str):
        def __reduce__(self) -> Any:
            raise TypeError("not this one")

    with pytest.raises(TypeError, match="not this one"):
        outcomes(Script(), [Sly("long")])


def test_a_cluster_without_nodes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_pool, "NO_ROOM_S", 0.5)
    stage = Script()
    stage.resources = Resources(cpus=64.0)
    pool = runtime_pool.Pool(stage, 1, Limits(), print)
    pool.submit(ItemGroup("a", (("a", 1),)))
    with pytest.raises(UserError, match="no node for a worker"):
        runtime_pool.drive([pool])


@pytest.mark.parametrize(
    ("cluster", "share"),
    [
        ({"CPU": 16.0, "GPU": 1.0}, 1 / 16),
        ({"CPU": 64.0, "GPU": 1.0}, 1 / 16),
        ({"CPU": 16.0, "GPU": 4.0}, 1 / 4),
        ({"CPU": 4.0, "GPU": 8.0}, 1.0),
        ({"CPU": 4.0}, 1 / 16),
    ],
)
def test_all_cores_share_the_gpus(
    cluster: dict[str, float], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: cluster)
    assert gpu_share_of_core() == share


def test_workers_are_replaced_after_their_share() -> None:
    ends = outcomes(Script(), ["count"] * 6, workers=1, limits=Limits(recycle_after=2))
    assert sorted(end.value for end in ends.values()) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("item", "kind", "text"),
    [
        ("disk", OSError, "/x/y"),
        ("numpy disk", OSError, "No space left"),
        ("user", UserError, "another file"),
    ],
)
def test_what_would_fail_every_item_ends_the_run(
    item: str, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        run_stage(Script(), [("a", item)], on_outcome=print)


@dataclass
class BadSetup(Script):
    dies: bool = False

    def setup(self) -> None:
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyError("no such model")


@pytest.mark.parametrize(("dies", "text"), [(False, "no such model"), (True, "3 workers in a row")])
def test_a_worker_that_cannot_be_made_ready_ends_the_run(dies: bool, text: str) -> None:
    with pytest.raises(StageSetupError, match=text):
        run_stage(BadSetup(dies=dies), [("a", 1)], on_outcome=print, workers=1)


def test_an_error_of_the_caller_leaves_no_worker() -> None:
    pids: list[int] = []

    def collect(outcome: Outcome) -> None:
        pids.append(outcome.value)
        raise RuntimeError("the sink is broken")

    with pytest.raises(RuntimeError, match="sink is broken"):
        run_stage(Script(), [("a", "pid"), ("b", "hang")], on_outcome=collect, workers=1)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pids[0]}").exists():
        assert time.monotonic() < deadline, "the worker is still there"


def test_what_does_not_fit_is_refused() -> None:
    assert fitting_workers(Resources(cpus=0.5), None) == 4
    assert fitting_workers(Resources(cpus=0.5), 3) == 3
    with pytest.raises(UserError, match=r"3 worker.*2 CPU.*enough for 2"):
        fitting_workers(Resources(cpus=1), 3)
    with pytest.raises(UserError, match="1 GPU each do not fit"):
        fitting_workers(Resources(gpus=1), None)
    with pytest.raises(UserError, match="GiB memory"):
        fitting_workers(Resources(memory_bytes=1 << 50), None)
    with pytest.raises(UserError, match="must be 1 or more"):
        fitting_workers(Resources(), 0)


def test_keys_must_differ_and_nothing_is_nothing() -> None:
    with pytest.raises(ValueError, match="must differ"):
        run_stage(Script(), [("a", 1), ("a", 2)], on_outcome=print)
    run_stage(Script(), [], on_outcome=lambda outcome: pytest.fail(outcome.key))


@dataclass
class Collect(Script):
    """Adds up what a group's items gave; `finish` hands it over."""

    def begin(self, group: str) -> None:
        self.made: list[Any] = []

    def process(self, item: Any) -> Any:
        self.made.append(super().process(item))
        return self.made[-1]

    def finish(self, group: str) -> Any:
        if group == "bad":
            raise RuntimeError("no room")
        if group == "unfit":
            os.kill(os.getpid(), signal.SIGKILL)
        return group, self.made


class Light(Script):
    resources = Resources(cpus=0.0)


def group(key: str, *items: Any) -> ItemGroup:
    return ItemGroup(key, tuple((f"{key}/{place}", item) for place, item in enumerate(items)))


def test_a_group_is_finished_as_a_whole_and_without_what_kills(tmp_path: Path) -> None:
    ends: dict[str, GroupOutcome] = {}
    seen: list[StageProgress] = []
    run_groups(
        Collect(str(tmp_path)),
        [
            group("plain", 1, 2, 3),
            group("mixed", 4, "die", 5, "refuse", "hang", 6, "die once"),
            group("lost", "die"),
        ],
        on_group=lambda end: ends.update({end.key: end}),
        limits=Limits(deadline_s=4.0, max_attempts=2),
        on_progress=seen.append,
    )
    assert ends["plain"].value == ("plain", [2, 4, 6])
    assert ends["mixed"].value == ("mixed", [8, 10, 12, "alive"])
    reasons = [(end.reason, end.attempts) for end in ends["mixed"].outcomes]
    assert reasons == [
        (Reason.NONE, 1),
        (Reason.WORKER_DIED, 2),
        (Reason.NONE, 1),
        (Reason.NO_AUDIO, 1),
        (Reason.TIMED_OUT, 1),
        (Reason.NONE, 1),
        (Reason.NONE, 2),
    ]
    assert ends["lost"].value is None
    assert ends["lost"].outcomes[0].reason == Reason.WORKER_DIED
    assert (seen[-1].done, seen[-1].total) == (11, 11)


@pytest.mark.parametrize(("key", "text"), [("bad", "no room"), ("unfit", "could not be finished")])
def test_a_group_that_cannot_be_finished_ends_the_run(key: str, text: str) -> None:
    with pytest.raises(StageError, match=text):
        run_groups(Collect(), [group(key, 1)], on_group=print)


def test_a_stage_feeds_the_next_one_and_waits_when_that_is_full() -> None:
    from tasks.runtime.pool import Pool, drive

    ends: list[Any] = []
    waiting: list[int] = []

    def hand_on(end: GroupOutcome) -> None:
        second.submit(ItemGroup(end.key, ((end.key, end.outcomes[0].value),)))
        waiting.append(len(second.waiting))

    second = Pool(Script(), 1, Limits(), lambda end: ends.append(end.outcomes[0].value))
    first = Pool(
        Light(),
        2,
        Limits(),
        hand_on,
        may_start=lambda: len(second.waiting) < 2,
    )
    for number in range(12):
        first.submit(ItemGroup(str(number), ((str(number), number),)))
    drive([first, second])
    assert sorted(ends) == [4 * number for number in range(12)]
    # Two were waiting when the last ones were let in, two workers with two calls each.
    assert max(waiting) <= 6
