"""A stage's data and the numbers of the stages before it."""

from pathlib import Path

import pytest
import torch

from models.files.errors import ModelFileError
from tasks.recipes.recipe import recipe
from tasks.train.context import DONE, StageContext, Stores, stage_metrics
from tasks.train.objective import Rank
from tasks.train.stages import PrintReporter
from tests.support.talking_boxes import make_dataset


def test_splits_are_opened_once_and_apart(tmp_path: Path) -> None:
    stores = Stores(make_dataset(tmp_path / "d", speakers=3))
    train = stores.train(32)
    assert stores.train(32) is train
    assert train.frames(train.clips[0].clip_id).shape[1:3] == (32, 32)
    held_out, speakers = stores.held_out(32)
    assert speakers == 1
    assert {clip.speaker for clip in held_out.clips} == {"speaker0"}
    assert "speaker0" not in {clip.speaker for clip in train.clips}


def test_a_dataset_without_test_clips_says_none_are_held_out(tmp_path: Path) -> None:
    stores = Stores(make_dataset(tmp_path / "d", speakers=2, test=()))
    held_out, speakers = stores.held_out(64)
    assert speakers == 0
    assert held_out is stores.train(64)


def test_stages_have_seeds_of_their_own(tmp_path: Path) -> None:
    def seed(name: str) -> int:
        worker = Rank(torch.device("cpu"))
        stores = Stores(tmp_path)
        return StageContext(
            name, tmp_path, "", recipe("debug"), stores, worker, PrintReporter()
        ).seed

    assert seed("stage1") != seed("stage2")
    assert seed("stage1") == seed("stage1")


def test_numbers_of_an_unfinished_stage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"the stage syncnet in .* is not finished"):
        stage_metrics(tmp_path, "syncnet")
    (tmp_path / "syncnet").mkdir()
    (tmp_path / "syncnet" / DONE).write_text('{"digest": "d", "metrics": {"threshold": 0.5}}')
    assert stage_metrics(tmp_path, "syncnet") == {"threshold": 0.5}
