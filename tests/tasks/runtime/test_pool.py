"""A pool that is given work from time to time, and loses some of it."""

import time
from pathlib import Path

import pytest

from tasks.runtime.pool import Pool, keep_driving
from tasks.runtime.ray_session import ray_session
from tasks.runtime.stage import GroupOutcome, ItemGroup, Limits, Resources, Stage


class Waits(Stage):
    """Works on an item until a file is there, and says that it has begun."""

    resources = Resources(cpus=1.0)

    def process(self, item: tuple[Path, Path]) -> str:
        begun, go = item
        begun.touch()
        while not go.exists():
            time.sleep(0.02)
        return begun.name


@pytest.mark.timeout(600)
def test_what_is_cancelled_makes_room_for_what_follows(tmp_path: Path) -> None:
    ended: list[GroupOutcome] = []
    never, now = tmp_path / "never", tmp_path / "now"
    now.touch()

    def group(name: str, go: Path) -> ItemGroup:
        return ItemGroup(name, ((name, (tmp_path / name, go)),))

    with ray_session(num_cpus=1):
        pool = Pool(Waits(), 1, Limits(), ended.append)
        pool.submit(group("running", never))
        pool.submit(group("waiting", never))
        pool.submit(group("last", now))

        def feed() -> bool:
            if (tmp_path / "running").exists() and pool.total == 3:
                assert pool.cancel("waiting")
                assert pool.cancel("running")
                assert not pool.cancel("running")
            return not ended

        keep_driving(pool, feed)
    assert [each.key for each in ended] == ["last"]
    assert ended[0].outcomes[0].value == "last"
    assert (pool.done, pool.total, pool.idle) == (1, 1, True)
    assert not (tmp_path / "waiting").exists()
