"""Who works on the clips of an evaluation: this process, or Ray's workers."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from datasets.errors import Reason, UserError
from tasks.evaluate.clip_stage import ClipStage, record_path
from tasks.evaluate.generated import Line
from tasks.evaluate.measurement import ClipRecord, read_record
from tasks.runtime.executor import run_stage
from tasks.runtime.ray_session import ray_session
from tasks.runtime.stage import Limits, Outcome

CLIPS_TOGETHER = 4
"""Clips whose windows share passes of the model, where it takes several at once."""
MOST_LOCAL = 4
"""Workers that share this machine unless more are asked for: each holds the model."""
CLIP_S = 7 * 24 * 3600.0
"""Seconds that a worker may take for clips: a slow machine needs hours, but not for ever."""


@dataclass(frozen=True)
class Crew:
    """Who works on the clips."""

    workers: int = 1
    """Ray workers that clips are spread over; 1: this process, without Ray."""
    ray_address: str | None = None
    """A running cluster; None: Ray is started here where there are several workers. Its nodes must
    share the folders of dataset and results."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(f"--workers must be 1 or more, got {self.workers}")

    @property
    def uses_ray(self) -> bool:
        """Whether the clips are worked on by Ray."""
        return self.workers > 1 or self.ray_address is not None

    @classmethod
    def of_machine(cls, device: str, clips: int) -> "Crew":
        """Who works on so many clips on this machine: one process for a GPU, and several on a
        processor, since much of a clip's measurements keeps one core busy, however many there
        are."""
        if device.startswith("cpu"):
            return cls(max(1, min(clips, os.cpu_count() or 1, MOST_LOCAL)))
        return cls()


def work_on_clips(stage: ClipStage, crew: Crew, say: Line) -> list[ClipRecord]:
    """Generate and measure all clips without a record; returns the records of all.

    Raises:
        UserError: a clip cannot be evaluated; what is finished is kept.
    """
    tests, count = stage.tests, len(stage.tests.clips)
    kept = {number: read_record(record_path(stage.records, number)) for number in range(count)}
    for number, record in kept.items():
        if record is None:
            record_path(stage.records, number).unlink(missing_ok=True)
    size = CLIPS_TOGETHER if stage.config.windows_at_once > 1 else 1
    items = [tuple(range(count))[first : first + size] for first in range(0, count, size)]
    items = [item for item in items if any(kept[number] is None for number in item)]

    def told(numbers: Sequence[int]) -> None:
        for number in numbers:
            say(f"{tests.title}: measured {number + 1}/{count} clips")

    if items and crew.uses_ray:
        _work_with_ray(stage, crew, items, say)
    elif items:
        waiting = iter(items)
        stage.run_here(items, say, lambda: told(next(waiting)))
    records = [
        record or read_record(record_path(stage.records, number)) for number, record in kept.items()
    ]
    if missing := [tests.clips[n].clip_id for n, each in enumerate(records) if each is None]:
        raise UserError(
            f"the records of {len(missing)} clips, the first being {missing[0]}, are gone from "
            f"{stage.records}: run the same command again, and let nobody remove files meanwhile"
        )
    return [each for each in records if each is not None]


def _work_with_ray(
    stage: ClipStage, crew: Crew, items: Sequence[tuple[int, ...]], say: Line
) -> None:
    tests, count = stage.tests, len(stage.tests.clips)
    done = count - sum(len(item) for item in items)

    def ended(outcome: Outcome) -> None:
        nonlocal done
        if outcome.reason != Reason.NONE:
            raise UserError(
                f"clip {outcome.key} could not be evaluated: {outcome.detail}; the other clips "
                "are kept, and the same command goes on with this one"
            )
        for line in outcome.value:
            say(line)
        done += len(by_key[outcome.key])
        say(f"{tests.title}: measured {done}/{count} clips")

    by_key = {tests.clips[item[0]].clip_id: item for item in items}
    workers = min(crew.workers, len(items))
    say(f"{tests.title}: starting {workers} workers for {sum(map(len, items))} clips")
    with ray_session(crew.ray_address, num_cpus=None if crew.ray_address else workers):
        run_stage(
            stage,
            [*by_key.items()],
            on_outcome=ended,
            workers=workers,
            limits=Limits(deadline_s=CLIP_S),
        )
