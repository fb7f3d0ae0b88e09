from dataclasses import replace
from pathlib import Path

import pytest

from flows import train_latentsync as module
from flows.support.train_text import dataset_line, plan_lines, result_lines
from tasks.recipes.recipe import recipe
from tasks.registry.metric import metric
from tasks.train.mlflow_runs import TrainingResult
from tasks.train.stages import TrainingJob
from tests.support.small_dataset import write_small_dataset


def test_the_dataset_is_counted_by_split(tmp_path: Path) -> None:
    folder = write_small_dataset(tmp_path / "a", speakers=4, clips_per_speaker=2, resolution=32)
    line = dataset_line(folder)
    assert line.startswith(f"dataset {folder}: ")
    assert "speakers for training, " in line
    assert line.endswith("for testing")
    alone = write_small_dataset(tmp_path / "b", speakers=1, clips_per_speaker=1, resolution=32)
    assert dataset_line(alone).endswith(": 1 clip of 1 speaker for training, none for testing")


def test_a_run_ends_with_numbers_and_places(tmp_path: Path) -> None:
    result: TrainingResult = {
        "run_id": "r",
        "model_version": 3,
        "bundle": str(tmp_path / "bundle"),
        "metrics": {"evaluation": {"fid": metric(5.0, "seeded", 7), "ssim": metric(1, "x", 1)}},
        "seconds": {},
    }
    lines = result_lines(tmp_path, tmp_path / "evaluation", "latentsync", result)
    assert lines[1:] == [
        "  fid      5.00     –  7 frames  seeded",
        "registered latentsync version 3 as candidate",
        f"bundle        {tmp_path}/bundle",
        f"output        {tmp_path}",
    ]
    result["model_version"] = None
    assert not any("registered" in each for each in result_lines(tmp_path, tmp_path, "m", result))


@pytest.mark.parametrize(
    ("address", "text"),
    [(None, "starting Ray and its workers"), ("10.0.0.1:6379", "the Ray cluster at 10.0.0.1")],
)
def test_the_wait_for_ray_is_announced(
    address: str | None,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "remaining", lambda _: ["syncnet"])
    monkeypatch.setattr(module, "train_with_ray", lambda *_, **__: print("started"))
    module.train_stages.fn(TrainingJob(tmp_path, tmp_path, recipe("debug")), 1, 0, address)
    printed = capsys.readouterr().out
    assert text in printed.partition("started")[0]


def test_the_plan_says_what_is_trained_how_and_where(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "d", speakers=3, clips_per_speaker=1, resolution=64)
    chosen = recipe("debug", {"stage1.micro_batch": "1", "stage1.precision": "bf16"})
    job = TrainingJob(dataset, tmp_path, chosen, "cuda", stages=("syncnet", "stage1"))
    assert plan_lines(job, 2) == [
        "plan: recipe debug, seed 1247, 2 workers on cuda",
        "  syncnet     6 steps of 8 samples, fp32, learning rate 0.002 (constant)",
        "  stage1      6 steps of 4 samples in parts of 1, bf16, learning rate 0.0015 (cosine)",
    ]
    # Processors compute in float32 whatever is asked for.
    assert ", fp32, " in plan_lines(replace(job, device="cpu"), 1)[2]
