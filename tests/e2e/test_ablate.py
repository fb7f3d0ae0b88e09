"""A user's study from its file to its page: by command line, interrupted once, taken up again."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from datasets.errors import UserError
from flows import ablate as flow_file
from flows.ablate import ablate
from tasks.registry.tracking import client, default_uri
from tests.support.small_dataset import write_small_dataset

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

STUDY = """
about = "does the learning rate matter?"
recipe = "debug"
stages = ["autoencoder"]
seeds = 1

[[metric]]
name = "autoencoder.psnr_db"
better = "higher"

[[arm]]
name = "as it is"

[[arm]]
name = "slow"
overrides = ["autoencoder.lr=0.0001"]

[[arm]]
name = "elsewhere"
dataset = "other"

[[claim]]
text = "fast is better"
metric = "autoencoder.psnr_db"
better = "as it is"
than = "slow"
"""


def test_a_study_is_trained_killed_and_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = write_small_dataset(tmp_path / "dataset")
    study = tmp_path / "rates.toml"
    study.write_text(STUDY)
    output, uri = tmp_path / "out", default_uri(tmp_path)
    train = flow_file.train_latentsync
    trained: list[str] = []

    def once(**given: Any) -> object:
        if trained:
            raise KeyboardInterrupt
        trained.append(given["output"])
        return train(**given)

    arguments = [str(dataset), "--study", str(study), "--output", str(output)]
    arguments += ["--tracking-uri", uri, "--device", "cpu"]
    monkeypatch.setattr(flow_file, "train_latentsync", once)
    assert flow_file.main(arguments) == 130
    monkeypatch.setattr(flow_file, "train_latentsync", train)
    capfd.readouterr()
    assert flow_file.main(arguments) == 0
    said = capfd.readouterr().out
    assert "1/3 as it is, seed 1: done already" in said
    assert "the dataset 'other' was not given: --datasets other=FOLDER" in said

    folder = output / "rates"
    page = (folder / "study.html").read_text()
    assert "3 of 3 trainings have ended" in page
    assert page.count("data:image/png") == 1
    outcomes = json.loads((folder / "study.json").read_text())
    assert [each["arm"] for each in outcomes] == ["as it is", "slow", "elsewhere"]
    numbers = [each["numbers"].get("autoencoder.psnr_db", {}).get("value") for each in outcomes]
    assert numbers[0] > numbers[1] > 0
    assert numbers[2] is None
    assert outcomes[1]["seconds"] > 0
    # One run for the study, in which those of the trainings are.
    runs = client(uri).search_runs(
        [each.experiment_id for each in client(uri).search_experiments()],
        order_by=["attributes.start_time ASC"],
    )
    (parent,) = [each for each in runs if each.data.tags.get("study") == "rates"]
    children = [
        each.data.tags["arm"]
        for each in runs
        if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    ]
    assert children == ["as it is", "slow"]
    assert parent.info.status == "FINISHED"
    assert mlflow.active_run() is None


def test_a_mistake_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "dataset")
    study = tmp_path / "wrong.toml"
    study.write_text(STUDY.replace("autoencoder.lr=0.0001", "autoencoder.learning=1"))
    with pytest.raises(UserError, match=r"arm 'slow': .*learning"):
        ablate.fn(str(dataset), str(study), str(tmp_path / "out"))
    with pytest.raises(UserError, match="'other' is not of the form unaligned="):
        ablate.fn(str(dataset), "syncnet", str(tmp_path / "out"), datasets=["other"])
