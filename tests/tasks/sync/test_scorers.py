"""Scorers by name, and the messages if their weights are missing."""

import json
from pathlib import Path

import pytest
import torch

from datasets.errors import UserError
from models.files.errors import ModelFileError
from models.syncnet.syncnet_v2 import SyncNet
from tasks.sync.mouth_audio import MouthAudioScorer
from tasks.sync.scorers import get_scorer
from tasks.sync.signals import MIN_CONFIDENCE, default_min_confidence
from tests.support.real_bundle import make_real_bundle


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_mouth_audio_needs_nothing() -> None:
    scorer = get_scorer("mouth-audio")
    assert isinstance(scorer, MouthAudioScorer)
    assert (scorer.name, scorer.needs_frames) == ("mouth-audio", False)
    assert scorer.min_confidence == default_min_confidence("mouth-audio")


def test_syncnet_v2_takes_the_tables_weights(
    no_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"weights syncnet-v2 are not at .*syncnet_v2\.model"):
        get_scorer("syncnet-v2")
    with pytest.raises(UserError, match=r"there is no file mine\.model"):
        get_scorer("syncnet-v2", "mine.model")
    path = no_weights / "syncnet" / "syncnet_v2.model"
    path.parent.mkdir(parents=True)
    torch.save(SyncNet().state_dict(), path)
    with pytest.raises(ModelFileError, match=r"syncnet-v2 at .* have changed"):
        get_scorer("syncnet-v2")
    # Fresh weights of the same form do for the rest.
    monkeypatch.setattr("tasks.weights.store._verify", lambda *_: None)
    for weights in ("", "syncnet-v2", str(path)):
        scorer = get_scorer("syncnet-v2", weights)
        assert (scorer.name, scorer.needs_frames) == ("syncnet-v2", True)
        assert scorer.min_confidence == MIN_CONFIDENCE["syncnet-v2"]


def test_stable_syncnet_takes_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a network: give a trained bundle"):
        get_scorer("stable-syncnet")
    with pytest.raises(UserError, match=r"weights latentsync-1\.5-syncnet are not at"):
        get_scorer("stable-syncnet", "latentsync-1.5-syncnet")
    with pytest.raises(UserError, match="there is no file nowhere"):
        get_scorer("stable-syncnet", "nowhere")
    scorer = get_scorer("stable-syncnet", str(make_real_bundle(tmp_path / "bundle")))
    assert (scorer.name, scorer.needs_frames) == ("stable-syncnet", True)
    assert scorer.min_confidence == MIN_CONFIDENCE["stable-syncnet"]


@pytest.mark.parametrize("part", ["", "syncnet"])
def test_a_bundle_of_another_crop_scores_no_faces(tmp_path: Path, part: str) -> None:
    bundle = make_real_bundle(tmp_path / "bundle")
    about = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**about, "mask": "latentsync-1.5"}))
    with pytest.raises(ModelFileError, match=r"former, larger crop: train or import again"):
        get_scorer("stable-syncnet", str(bundle / part))


def test_other_names() -> None:
    with pytest.raises(UserError, match="no offset scorer 'nobody': choose one of mouth"):
        get_scorer("nobody")
    with pytest.raises(UserError, match="no offset scorer ''"):
        default_min_confidence("")
