"""The GPU script on a processor: real rows of the small recipe, deadlines, and parts that fail."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu import FULL, LEAST_S, MINUTES, MOST_S, Part, line_of, main, run_parts
from tasks.recipes.adapt import ADAPTATIONS
from tasks.recipes.config import STAGES
from tasks.recipes.recipe import recipe
from tests.support.fake_clock import FakeClock

ROW = {
    "samples_per_s": 2.0, "seconds": 0.5, "memory_gb": 10.0, "estimate_gb": 11.0, "error": 0.1,
    "batch_size": 1, "changes": "",
}  # fmt: skip


def test_small_parts_do_real_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gpu.json"
    options = ["--device", "cpu", "--small", "--only", "lora", "--peak-tflops", "0.05"]
    assert main([*options, "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    (row,) = written["parts"]
    assert (row["part"], row["batch_size"], len(row["losses"])) == ("lora", 1, 3)
    assert row["share"] == pytest.approx(row["flops"] / row["seconds"] / 0.05e12)
    assert row["flops"] > 1e6
    assert row["memory_gb"] > 0.1
    assert row["estimate_gb"] > 0.1
    assert capsys.readouterr().out.splitlines()[2].split()[:2] == ["lora", "1"]


def test_a_part_that_fails_or_takes_too_long_is_a_row_with_the_reason() -> None:
    lines: list[str] = []
    good = f"print('talk'); print({json.dumps(json.dumps(ROW))})"
    parts = [
        Part("broken", ("-c", "raise MemoryError('no room')")),
        Part("silent", ("-c", "pass")),
        Part("endless", ("-c", "import time; time.sleep(600)")),
        Part("good", ("-c", good)),
    ]
    # What is left for the endless one is a second or two.
    rows = run_parts(parts[:2], 1000.0, lines.append)
    rows += run_parts(parts[2:3], 2.0, lines.append)
    rows += run_parts(parts[3:], 1000.0, lines.append)
    assert [row.get("failed") for row in rows] == [
        "MemoryError: no room",
        "it printed no result",
        "not done within its 2 s",
        None,
    ]
    assert lines[0] == f"{'broken':26s} FAILED: MemoryError: no room"
    assert lines[3] == line_of({"part": "good", **ROW})


def test_all_deadlines_together_are_within_the_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, given = FakeClock(), list[float]()

    def use_it_all(part: Part, limit_s: float) -> dict[str, object]:
        given.append(limit_s)
        clock.clock.sleep(limit_s)
        return {"failed": "too slow"}

    monkeypatch.setattr("benchmarks.gpu._run", use_it_all)
    parts = [Part(str(number), ()) for number in range(len(FULL) + 3)]
    rows = run_parts(parts, 60 * MINUTES, lambda line: None, clock.clock.now)
    assert sum(given) <= 60 * MINUTES
    assert max(given) <= MOST_S
    assert min(given) >= LEAST_S
    assert len(rows) == len(parts)


def test_every_stage_that_the_papers_recipes_train_is_there() -> None:
    wanted = {
        (name, stage)
        for name in ("paper-256", "paper-512", "stage2-efficient")
        for stage in STAGES
        if (config := recipe(name).stage(stage)) and config.steps
    }
    same = {("paper-512", "syncnet")}
    assert recipe("paper-512").syncnet == recipe("paper-256").syncnet
    assert {(each.recipe, each.stage) for each in FULL if not each.adapter} == wanted - same
    assert "lora-256" in {each.adapter for each in FULL} & ADAPTATIONS.keys()
