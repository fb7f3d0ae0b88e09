"""How far a training is, from the files in its folder."""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.train.curves import METRICS, RUNTIME
from tasks.train.delivery import read_points
from tasks.train.stages import TrainingJob, read_result


@dataclass(frozen=True)
class StageProgress:
    """How far one stage is."""

    name: str
    step: int
    """Steps of which there is a point."""
    steps: int
    """All of its steps."""
    done: bool
    values: Mapping[str, float]
    """The latest value of everything in its curves."""
    losses: tuple[float, ...]
    """The loss, point by point."""


def training_progress(job: TrainingJob) -> list[StageProgress]:
    """How far the stages of a run are, in order."""
    found = []
    for name in job.wanted:
        config = job.recipe.stage(name)
        assert config is not None
        values: dict[str, float] = {}
        losses, step = [], 0
        for file in (METRICS, RUNTIME):
            for what, value, at in read_points(job.output / name / file):
                values[what], step = value, max(step, at)
                if what == "loss":
                    losses.append(value)
        done = read_result(job, name) is not None
        step = config.steps if done else step
        found.append(StageProgress(name, step, config.steps, done, values, tuple(losses)))
    return found
