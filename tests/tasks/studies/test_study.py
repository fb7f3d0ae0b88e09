"""Study files: what they say, and the mistakes in them by name."""

from pathlib import Path

import pytest

from datasets.errors import UserError
from models.latentsync.model import LatentSync
from tasks.recipes.recipe import parse_overrides, recipe
from tasks.studies.study import Study, known_studies, read_study
from tasks.train.assemble import model_config

SMALL = """
about = "does it matter?"
recipe = "debug"
stages = ["syncnet"]

[[metric]]
name = "syncnet.accuracy"
better = "higher"

[[arm]]
name = "with"

[[arm]]
name = "with out"
overrides = ["syncnet.shift=0"]
"""


def written(folder: Path, text: str) -> Study:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_study(str(path))


def test_a_study_of_ones_own_takes_few_lines(tmp_path: Path) -> None:
    study = written(tmp_path, SMALL)
    assert study.name == "mine"
    assert [arm.name for arm in study.arm] == ["with", "with out"]
    assert study.find_arm("with out").overrides == ["syncnet.shift=0"]
    assert study.seeds == 3
    assert study.claim == []


@pytest.mark.parametrize("name", known_studies())
def test_our_own_studies_fit_their_recipes(name: str) -> None:
    study = read_study(name)
    for arm in study.arm:
        chosen = recipe(study.recipe, parse_overrides([*study.overrides, *arm.overrides]))
        assert LatentSync(model_config(chosen, "stage1"), empty=True).config == chosen.model
    assert study.claim
    assert all(len(arm.about) < 160 for arm in study.arm)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "with out"', 'nam = "x"', r"unknown field 'nam': did you mean 'name'\?"),
        ('about = "does it matter?"', "", "does not have 'about'"),
        ('name = "with out"', 'name = "with"', "every arm needs a name of its own"),
        ('name = "with out"', 'name = "WITH"', "every arm needs a name of its own"),
        ('better = "higher"', 'better = "more"', "better must be 'higher' or 'lower', got 'more'"),
        ('["syncnet"]', '["sync"]', "there is no stage 'sync': choose from autoencoder"),
        ('["syncnet"]', '"syncnet"', "stages must be a list, got 'syncnet'"),
        ('["syncnet"]', '["syncnet"]\nseeds = 0', "seeds must be at least 1, got 0"),
        ('["syncnet"]', '["syncnet"]\nseeds = true', "seeds must be int, got True"),
        ('about = "does', 'about = "', "cannot be read"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = SMALL.replace(old, new, 1)
    assert text != SMALL
    if "cannot be read" in message:
        text = SMALL + "[[arm"
    with pytest.raises(UserError, match=message):
        written(tmp_path, text)


def test_claims_must_be_about_arms_and_metrics(tmp_path: Path) -> None:
    claim = '[[claim]]\ntext="t"\nmetric="syncnet.accuracy"\nbetter="with"\nthan="without"\n'
    with pytest.raises(UserError, match="names no arm 'without'"):
        written(tmp_path, SMALL + claim)
    claim = claim.replace("without", "with out").replace("accuracy", "loss")
    with pytest.raises(UserError, match=r"names no metric 'syncnet\.loss'"):
        written(tmp_path, SMALL + claim)


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="no study 'sinknet': choose one of audio, shortcut, supervision, syncnet"
    ):
        read_study("sinknet")
    with pytest.raises(UserError, match="there is no study file"):
        read_study(str(tmp_path / "none.toml"))
    with pytest.raises(UserError, match="has 1 arms: a comparison needs two"):
        written(tmp_path, SMALL[: SMALL.rindex("[[arm]]")])
