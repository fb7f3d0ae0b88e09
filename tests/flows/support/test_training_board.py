"""A training in Prefect while it runs, and when Prefect is away."""

import json
from pathlib import Path
from uuid import UUID

import pytest

from flows.support import training_board
from flows.support.training_board import BAR, PAGE, TrainingBoard, drawn, page_of, showing
from tasks.recipes.recipe import recipe
from tasks.train.progress import StageProgress, training_progress
from tasks.train.stages import TrainingJob
from tests.support.small_dataset import write_small_dataset


class Shown:
    """Keeps what Prefect would be sent, and may be out of reach."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.page = ""
        self.percent = 0.0
        self.broken = False

    def create(self, key: str, markdown: str) -> UUID:
        self._call(f"page {key}")
        self.page = markdown
        return UUID(int=1)

    def update(self, artifact: UUID, markdown: str) -> None:
        assert artifact == UUID(int=1)
        self._call("update")
        self.page = markdown

    def create_bar(self, key: str, percent: float) -> UUID:
        self._call(f"bar {key}")
        self.percent = percent
        return UUID(int=2)

    def move_bar(self, artifact: UUID, percent: float) -> None:
        assert artifact == UUID(int=2)
        self._call("move")
        self.percent = percent

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self.broken:
            raise ConnectionError("nobody answers")


def stage(step: int, *losses: float, name: str = "stage1", steps: int = 10) -> StageProgress:
    values = {"loss": losses[-1], "waiting": 0.25} if losses else {}
    return StageProgress(name, step, steps, False, values, losses)


def test_bar_and_page_are_made_once_and_follow() -> None:
    shown, clock = Shown(), [0.0]
    now = [stage(0), stage(0, name="stage2", steps=30)]
    board = TrainingBoard(lambda: now, shown, lambda: clock[0])
    board.show()
    assert shown.calls == [f"bar {BAR}", f"page {PAGE}"]
    now[0] = stage(10, 3.0, 1.0)
    board.show()
    # Too soon.
    assert len(shown.calls) == 2
    clock[0] = 60.0
    board.show()
    assert shown.calls[2:] == ["move", "update"]
    assert shown.percent == 25.0
    assert "| stage1 | 10/10 | 1 | – | – | – | 25% | – |" in shown.page
    assert "`█▁` loss 3 to 1" in shown.page
    clock[0] = 120.0
    board.show()
    assert len(shown.calls) == 4
    now[1] = stage(3, 2.0, name="stage2", steps=30)
    board.show(last=True)
    assert shown.percent == 32.5


def test_without_prefect_the_training_goes_on_and_is_shown_later() -> None:
    shown, clock = Shown(), [0.0]
    board = TrainingBoard(lambda: [stage(1, 1.0)], shown, lambda: clock[0])
    shown.broken = True
    board.show()
    shown.broken = False
    clock[0] = 60.0
    board.show()
    assert shown.calls == [f"bar {BAR}", f"bar {BAR}", f"page {PAGE}"]


def test_the_last_state_is_shown_when_the_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_board, "INTERVAL_S", 3600.0)
    job = TrainingJob(tmp_path, tmp_path, recipe("debug"))
    shown = Shown()
    with showing(job, TrainingBoard(lambda: [stage(10, 1.0)], shown)):
        assert not shown.calls
    assert shown.percent == 100.0
    shown.broken = True
    with showing(job, TrainingBoard(lambda: [stage(9, 1.0)], shown)):
        pass
    with pytest.raises(KeyError), showing(job, TrainingBoard(lambda: [stage(9, 1.0)], shown)):
        raise KeyError


def test_a_curve_goes_from_its_lowest_to_its_highest() -> None:
    assert drawn([0.0, 7.0, 3.5]) == "▁█▅"
    assert drawn([2.0, 2.0]) == "▁▁"
    assert drawn([0.0, 2.0, 6.0, 8.0], width=2) == "▁█"
    assert "–" in page_of([stage(0)])


def test_progress_is_read_from_the_curves(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "d", speakers=2, clips_per_speaker=1, resolution=64)
    job = TrainingJob(dataset, tmp_path / "o", recipe("debug"), stages=("syncnet", "stage1"))
    folder = job.output / "stage1"
    folder.mkdir(parents=True)
    lines = [json.dumps({"step": step, "loss": 1 / step, "lr": 0.1}) for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 3, "lo')
    (folder / "runtime.jsonl").write_text(json.dumps({"step": 2, "samples_per_s": 4.0}) + "\n")
    first, second = training_progress(job)
    assert (first.name, first.step, first.losses) == ("syncnet", 0, ())
    assert (second.step, second.steps, second.done) == (2, 6, False)
    assert second.losses == (1.0, 0.5)
    assert second.values == {"loss": 0.5, "lr": 0.1, "samples_per_s": 4.0}
