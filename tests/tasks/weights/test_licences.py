"""Licences that bind what is made with weights are shown, accepted by name and kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.errors import UserError
from tasks.recipes.recipe import recipe
from tasks.train.export import describe_bundle
from tasks.train.stages import TrainingJob, check
from tasks.weights.licences import LICENCES, bundle_licence, check_accepted, needed_licences
from tasks.weights.table import WEIGHTS
from tests.support.small_dataset import write_small_dataset


def test_only_published_weights_bring_a_licence() -> None:
    assert needed_licences("avhubert", "av-hubert-base") == [LICENCES["av-hubert"]]
    assert needed_licences("avhubert", "") == []
    assert needed_licences("whisper", "whisper-tiny") == []


def test_a_licence_must_be_accepted_by_its_name() -> None:
    needed = needed_licences("avhubert", "/some/file.pt")
    with pytest.raises(UserError, match=r"non-commercial.*--accept-licence av-hubert"):
        check_accepted(needed, [], "the recipe")
    (line,) = check_accepted(needed, ["av-hubert"], "the recipe")
    assert line.startswith("the recipe is under the AV-HuBERT licence")
    with pytest.raises(UserError, match="there is no licence 'mit'"):
        check_accepted([], ["mit"], "the recipe")


def test_every_row_that_binds_names_a_licence_and_says_so() -> None:
    binding = [weight for weight in WEIGHTS if weight.binds]
    assert [weight.name for weight in binding] == ["av-hubert-base"]
    assert all(weight.binds in LICENCES for weight in binding)


def test_training_refuses_until_it_is_accepted_and_the_bundle_keeps_it(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "data")
    base = recipe("debug")
    model = replace(base.model, audio="avhubert", audio_encoder={})
    chosen = replace(base, model=model, audio_weights=str(tmp_path))
    job = TrainingJob(dataset, tmp_path / "run", chosen)
    with pytest.raises(UserError, match="--accept-licence av-hubert"):
        check(job)
    (line,) = check(replace(job, accepted=("av-hubert",)))
    assert "non-commercial research only" in line
    about = describe_bundle(job)
    assert about["licence"] == "av-hubert"
    assert "licence" not in describe_bundle(replace(job, recipe=base))
    (tmp_path / "bundle.json").write_text(json.dumps(about))
    assert bundle_licence(tmp_path).startswith("this model is under the AV-HuBERT licence")
    assert bundle_licence(tmp_path / "nowhere") == ""
