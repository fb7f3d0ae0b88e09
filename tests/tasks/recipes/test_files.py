"""Recipes of one's own: a base and changes, typed; and what a run writes can be read again."""

from dataclasses import replace
from pathlib import Path

import pytest

from datasets.errors import UserError
from tasks.recipes.files import write_recipe
from tasks.recipes.recipe import recipe
from tasks.recipes.values import RECIPES


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_is_its_base_with_changes(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        base = "tiny"
        seed = 3
        [syncnet]
        steps = 400
        lr = 1
        calibrate = false
        [stage2.losses]
        sync = 0.25
        [model.unet]
        block_out_channels = [32, 32]
        """,
    )
    mine, base = recipe(path), recipe("tiny")
    assert (mine.name, mine.base, mine.seed) == ("mine", "tiny", 3)
    expected = replace(base.syncnet, steps=400, lr=1.0, calibrate=False)
    assert mine.syncnet == expected
    assert isinstance(mine.syncnet.lr, float)
    assert mine.unet("stage2").losses == replace(base.unet("stage2").losses, sync=0.25)
    assert mine.model.unet == {**base.model.unet, "block_out_channels": [32, 32]}
    assert mine.stage1 == base.stage1
    assert recipe(path, {"syncnet.steps": "7"}).syncnet.steps == 7


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_written_gives_the_same_recipe(tmp_path: Path, name: str) -> None:
    made = recipe(name, {"stage1.lr": "0.125", "stage1.weights": 'a "quoted" ünïcode\\path'})
    again = recipe(written(tmp_path, write_recipe(made, name)))
    assert replace(again, name=made.name, base="") == made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = 3", r'mine\.toml does not say what it is based on: begin it with base = "tiny"'),
        ("base = 3", "does not say what it is based on"),
        ('base = "huge"', "there is no recipe 'huge': choose one of tiny"),
        ('base = "tiny"\n[syncnet]\nstps = 3', r"mine\.toml: .* did you mean 'syncnet\.steps'"),
        ('base = "tiny"\n[synchnet]\nsteps = 3', r"did you mean 'syncnet\.steps'"),
        ('base = "tiny"\n[syncnet]\nsteps = "3"', r"syncnet\.steps must be of type int, got '3'"),
        ('base = "tiny"\n[syncnet]\nsteps = 2.5', r"must be of type int, got 2\.5"),
        ('base = "tiny"\n[syncnet]\ncalibrate = 1', "must be of type bool, got 1"),
        ('base = "tiny"\n[stage1]\nschedule = "linear"', "one of constant, cosine, got 'linear'"),
        ('base = "tiny"\nsyncnet = 5', "syncnet is a group of fields"),
        ('base = "tiny"\n[syncnet]\nbatch_size = 0', "batch_size must be at least 1"),
        ("base = ", "cannot be read: Invalid value"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        recipe(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no recipe file .*none\.toml"):
        recipe(str(tmp_path / "none.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UserError, match=r"folder\.toml cannot be read"):
        recipe(str(tmp_path / "folder.toml"))
