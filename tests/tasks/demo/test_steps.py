from pathlib import Path

import pytest

from datasets.errors import UserError
from tasks.demo.steps import Steps, folder_digest, source_digest


def test_a_step_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    calls: list[int] = []
    made = tmp_path / "made"

    def work() -> dict[str, int]:
        calls.append(1)
        made.touch()
        return {"count": len(calls)}

    def run(inputs: dict[str, int]) -> object:
        # A new object every time: what counts is on the disk.
        return Steps(tmp_path, lambda line: None).run("step", "works", inputs, work, [made])

    assert run({"a": 1}) == {"count": 1}
    assert run({"a": 1}) == {"count": 1}
    assert run({"a": 2}) == {"count": 2}
    made.unlink()
    assert run({"a": 2}) == {"count": 3}
    assert len(calls) == 3


def test_a_changed_program_asks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Steps(tmp_path, lambda line: None).run("step", "works", {}, lambda: 1)
    monkeypatch.setattr("tasks.demo.steps.source_digest", lambda: "other")
    assert Steps(tmp_path, lambda line: None).run("step", "works", {}, lambda: 2) == 2


def test_a_step_that_fails_is_not_done(tmp_path: Path) -> None:
    steps = Steps(tmp_path, lambda line: None)
    with pytest.raises(ZeroDivisionError):
        steps.run("step", "fails", {}, lambda: 1 // 0)
    assert steps.run("step", "works", {}, lambda: 3) == 3
    assert steps.seconds.keys() == {"step"}


def test_a_folder_keeps_to_the_videos_that_it_began_with(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    Steps(folder, lambda line: None).keep_to("")
    Steps(folder, lambda line: None).keep_to("")
    with pytest.raises(UserError, match="holds a demo of generated videos, and /mine would be"):
        Steps(folder, lambda line: None).keep_to("/mine")
    other = tmp_path / "other"
    Steps(other, lambda line: None).keep_to("/mine")
    with pytest.raises(UserError, match="holds a demo of /mine, and generated videos would be"):
        Steps(other, lambda line: None).keep_to("")


def test_a_damaged_state_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    assert Steps(tmp_path, lambda line: None).run("step", "works", {}, lambda: 1) == 1


def test_digests_see_changes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = folder_digest(tmp_path)
    assert folder_digest(tmp_path) == before
    (tmp_path / "b").write_text("1")
    assert folder_digest(tmp_path) != before
    assert source_digest() == source_digest()
