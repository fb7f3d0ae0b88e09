"""The image quality of clips, with a seeded network in the format of the published file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from models.files.errors import ModelFileError
from models.judges.hyperiqa import HyperIQA
from tasks.ingest.image_quality import (
    FRAMES_PER_CLIP,
    HyperIQAScorer,
    choose_frames,
    get_quality_scorer,
)


def faces(frames: int, side: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> HyperIQA:
    torch.manual_seed(0)
    return HyperIQA()


def test_one_score_per_clip_whatever_their_sizes(network: HyperIQA) -> None:
    clips = [faces(9, 64, 0), faces(3, 64, 1), faces(0, 64, 2), faces(6, 48, 3)]
    scores = HyperIQAScorer(network).score(clips)
    assert np.isnan(scores[2])
    for index in (0, 1, 3):
        chosen = clips[index][choose_frames(len(clips[index]))]
        assert scores[index] == pytest.approx(float(network.score(chosen).mean()), abs=1e-4)
    assert len({round(score, 6) for score in scores if np.isfinite(score)}) == 3


def test_frames_are_spread_evenly() -> None:
    assert choose_frames(250) == [25, 75, 125, 175, 225]
    assert choose_frames(2) == [0, 1]
    assert choose_frames(0) == []
    assert len(choose_frames(1000)) == FRAMES_PER_CLIP


def test_weights_that_are_not_there_give_no_scorer_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: HyperIQA
) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path))
    assert get_quality_scorer() is None
    with pytest.raises(UserError, match="weights hyperiqa are not at"):
        get_quality_scorer("hyperiqa")
    with pytest.raises(UserError, match=r"there is no file other\.pkl"):
        get_quality_scorer("other.pkl")
    path = tmp_path / "hyperiqa" / "koniq_pretrained.pkl"
    path.parent.mkdir()
    torch.save(network.state_dict(), path)
    with pytest.raises(ModelFileError, match=r"hyperiqa at .* have changed"):
        get_quality_scorer()
    # Fresh weights of the same form do for the rest.
    monkeypatch.setattr("tasks.weights.store._verify", lambda *_: None)
    clip = faces(1, 64, 4)
    for name in ("", "hyperiqa", str(path)):
        scorer = get_quality_scorer(name)
        assert scorer is not None
        assert scorer.score([clip])[0] == pytest.approx(float(network.score(clip)[0]), abs=1e-4)
    path.write_bytes(b"no weights")
    with pytest.raises(ModelFileError):
        get_quality_scorer()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(network: HyperIQA, tmp_path: Path) -> None:
    path = tmp_path / "koniq_pretrained.pkl"
    torch.save(network.state_dict(), path)
    scorer = get_quality_scorer(str(path), "cuda")
    assert scorer is not None
    clip = faces(5, 96, 5)
    assert scorer.score([clip])[0] == pytest.approx(float(network.score(clip).mean()), abs=0.1)
