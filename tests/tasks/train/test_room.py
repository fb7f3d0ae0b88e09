"""A training that cannot fit is refused before it begins, with what would make it fit."""

from pathlib import Path

import pytest
import torch

from datasets.errors import UserError
from tasks.recipes.recipe import recipe
from tasks.train.memory import MemoryEstimate
from tasks.train.room import available_gb, check_room, stage_memory
from tests.support.small_dataset import write_small_dataset

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def estimate(total: float, clips: float = 0.0) -> MemoryEstimate:
    return MemoryEstimate(1.0, 1.0, 2.0, total - clips - 4.5, 0.5, clips)


def test_what_fits_is_not_spoken_of() -> None:
    assert check_room(recipe("tiny"), {"stage1": estimate(10)}, CPU, 1, 10.1) == []
    assert check_room(recipe("tiny"), {"stage1": estimate(10)}, CUDA, 8, 10.1) == []


def test_what_may_not_fit_is_said() -> None:
    (note,) = check_room(recipe("tiny"), {"stage1": estimate(10)}, CPU, 1, 9)
    assert "stage1 needs about 10.0 GB: weights 1.0, gradients 1.0, optimizer 2.0" in note
    assert "9.0 GB of this machine's memory are free" in note
    assert note.endswith("it may not fit")


def test_workers_share_a_machines_memory_and_have_a_gpu_each() -> None:
    given = {"stage1": estimate(10)}
    with pytest.raises(UserError, match=r"5.0 GB of this machine's memory"):
        check_room(recipe("tiny"), given, CPU, 4, 20)
    assert check_room(recipe("tiny"), given, CUDA, 4, 20) == []


def test_what_cannot_fit_is_refused_with_what_would() -> None:
    chosen = recipe("debug", {"stage1.batch_size": "64"})
    found = {"stage1": estimate(40)}
    with pytest.raises(UserError, match=r"with --overrides stage1.micro_batch=\d"):
        check_room(chosen, found, CPU, 1, 4)
    with pytest.raises(UserError, match="a smaller recipe or a larger machine is needed"):
        check_room(chosen, found, CPU, 1, 0.2)
    with pytest.raises(UserError, match=r"with --overrides stage1\.reader=stream"):
        check_room(chosen, {"stage1": estimate(6, clips=2)}, CPU, 1, 4.5)


def test_clips_that_are_kept_count_on_a_processor(tmp_path: Path) -> None:
    write_small_dataset(tmp_path)
    kept, streamed = (recipe("debug", {"stage1.reader": reader}) for reader in ("memory", "stream"))
    with_clips = stage_memory(kept, ["stage1"], CPU, tmp_path)["stage1"]
    without = stage_memory(streamed, ["stage1"], CPU, tmp_path)["stage1"]
    assert with_clips.clips > 0
    assert without.clips == 0
    assert with_clips.total == pytest.approx(without.total + with_clips.clips)
    assert stage_memory(kept, ["stage1"], CUDA, tmp_path)["stage1"].clips == 0


def test_free_memory_is_known() -> None:
    assert 0.1 < available_gb(CPU) < 100_000
