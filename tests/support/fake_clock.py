"""A clock that moves only when somebody sleeps or a test pushes it."""

from datasets.fetch.policy import Clock


class FakeClock:
    """`clock` goes into what is tested; `sleeps` has every pause that was taken."""

    def __init__(self, chance: float = 1.0) -> None:
        self.time = 1000.0
        self.sleeps: list[float] = []
        self.clock = Clock(now=lambda: self.time, sleep=self._sleep, chance=lambda: chance)

    def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds
