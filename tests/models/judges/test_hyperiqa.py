"""HyperIQA's shapes and its file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.files.errors import ModelFileError
from models.judges.hyperiqa import HyperIQA, load_hyperiqa


def test_scores_and_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = HyperIQA()
    path = tmp_path / "koniq_pretrained.pkl"
    torch.save(network.state_dict(), path)
    frames = np.random.default_rng(0).integers(0, 256, (2, 100, 80, 3), dtype=np.uint8)
    scores = load_hyperiqa(path).score(frames)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    assert np.allclose(scores[1:], network.score(frames[1:]), atol=1e-4)
    assert scores[0] != scores[1]
    torch.save({"conv1.0.weight": torch.zeros(1)}, path)
    with pytest.raises(ModelFileError, match="does not fit HyperIQA"):
        load_hyperiqa(path)


def test_names_are_those_of_the_published_weights() -> None:
    keys = HyperIQA().state_dict().keys()
    for key in (
        "res.layer1.0.downsample.0.weight",
        "res.lda1_pool.0.weight",
        "res.lda4_fc.bias",
        "conv1.4.weight",
        "fc1w_conv.weight",
        "fc4b_fc.bias",
        "fc5w_fc.weight",
        "fc5b_fc.bias",
    ):
        assert key in keys
