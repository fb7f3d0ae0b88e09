"""A training in Prefect's interface while it runs: a bar, and a page with the latest curves."""

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.support.artifacts import Courier, PrefectArtifacts
from tasks.pages.markdown import table
from tasks.train.progress import StageProgress, training_progress
from tasks.train.stages import TrainingJob

BAR, PAGE = "train-latentsync-progress", "train-latentsync-curves"
"""Keys of the artifacts."""
INTERVAL_S = 15.0
GOODBYE_S = 5.0
"""The longest that a finished training waits for Prefect to take the last page."""
SHADES = "▁▂▃▄▅▆▇█"
POINTS = 40
"""Characters of a drawn curve."""


class BoardArtifacts(Protocol):
    """Where the board is shown."""

    def create(self, key: str, markdown: str) -> UUID:
        """Create a page."""

    def update(self, artifact: UUID, markdown: str) -> None:
        """Replace its content."""

    def create_bar(self, key: str, percent: float) -> UUID:
        """Create a bar."""

    def move_bar(self, artifact: UUID, percent: float) -> None:
        """Move it."""


class PrefectBoard(PrefectArtifacts):
    """Artifacts of the flow run around the call."""

    def create_bar(self, key: str, percent: float) -> UUID:
        made = create_progress_artifact(percent, key=key, description="steps of all stages")
        assert isinstance(made, UUID)
        return made

    def move_bar(self, artifact: UUID, percent: float) -> None:
        update_progress_artifact(artifact, percent)


class TrainingBoard:
    """The bar and the page of one training, brought up to date now and then. For one thread.

    Args:
        look: how far the stages are.
        artifacts: where they are shown; None: in Prefect.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        look: Callable[[], Sequence[StageProgress]],
        artifacts: BoardArtifacts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._artifacts = look, artifacts or PrefectBoard()
        self._courier = Courier(clock)
        self._page: UUID | None = None
        self._bar: UUID | None = None
        self._shown: tuple[str, float] | None = None

    def show(self, *, last: bool = False) -> None:
        """Bring both up to date if something has changed; a server that is away is no error.

        Args:
            last: even if the last call was a moment ago.
        """
        if last or self._courier.ready():
            self._courier.send(self._post)

    def _post(self) -> None:
        stages = self._look()
        page, percent = page_of(stages), percent_of(stages)
        if (page, percent) == self._shown:
            return
        if self._bar is None:
            self._bar = self._artifacts.create_bar(BAR, percent)
        else:
            self._artifacts.move_bar(self._bar, percent)
        if self._page is None:
            self._page = self._artifacts.create(PAGE, page)
        else:
            self._artifacts.update(self._page, page)
        self._shown = (page, percent)


def percent_of(stages: Sequence[StageProgress]) -> float:
    """Share of the steps of all stages that are done, percent."""
    steps = sum(each.steps for each in stages)
    return 100.0 * sum(min(each.step, each.steps) for each in stages) / max(1, steps)


def page_of(stages: Sequence[StageProgress]) -> str:
    """A table of the stages with their latest values, and a curve of each loss."""
    head = ("stage", "step", "loss", "held out", "gradient", "samples/s", "waiting", "memory GB")
    rows = [
        (
            each.name,
            f"{each.step}/{each.steps}",
            *(
                _number(each, name)
                for name in ("loss", "heldout_loss", "grad_norm", "samples_per_s")
            ),
            f"{each.values['waiting']:.0%}" if "waiting" in each.values else "–",
            _number(each, "memory_gb"),
        )
        for each in stages
    ]
    curves = [
        f"`{each.name:11s}` `{drawn(each.losses)}` loss {each.losses[0]:.4g} to "
        f"{each.losses[-1]:.4g}"
        for each in stages
        if each.losses
    ]
    return "\n\n".join([table(head, rows, range(1, 8)), *curves]) + "\n"


def drawn(values: Sequence[float], width: int = POINTS) -> str:
    """A curve in characters, from its lowest value to its highest; means where there are many."""
    count = min(width, len(values))
    parts = [
        values[len(values) * at // count : len(values) * (at + 1) // count] for at in range(count)
    ]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    scale = (len(SHADES) - 1) / (high - low) if high > low else 0.0
    return "".join(SHADES[round((each - low) * scale)] for each in means)


def _number(stage: StageProgress, name: str) -> str:
    return f"{stage.values[name]:.4g}" if name in stage.values else "–"


@contextmanager
def showing(job: TrainingJob, board: TrainingBoard | None = None) -> Iterator[None]:
    """Show a training during the block, in a thread of its own, since Prefect may be slow."""
    shown = board or TrainingBoard(lambda: training_progress(job))
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(INTERVAL_S):
            shown.show()
        shown.show(last=True)

    # Artifacts belong to the run around the block.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="board", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(GOODBYE_S)
