"""A finished model adapted to one speaker: only the adapter learns, and lip-sync can use it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from models.latentsync.model import LatentSync
from tasks.lipsync.generator import FaceGenerator
from tasks.recipes.adapt import AdaptConfig, adaptation
from tasks.recipes.config import LossWeights
from tasks.train.adapt import ADAPTER, adapt
from tasks.train.merge import merge_bundle
from tasks.weights.adapter import WEIGHTS, apply_adapter, read_adapter
from tasks.weights.bundle import bundle_digest, read_bundle
from tests.support.real_bundle import make_real_bundle
from tests.support.talking_boxes import make_dataset

CONFIG = AdaptConfig(
    steps=12,
    batch_size=2,
    lr=5e-3,
    rank=2,
    alpha=2,
    checkpoint_every=4,
    log_every=4,
    test_every=12,
    test_windows=4,
    losses=LossWeights(sync=0.05),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "d", speakers=3, clips=4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_real_bundle(tmp_path_factory.mktemp("bundle") / "b")
    # A fresh network ends in zeros, which nothing before them can change.
    model = LatentSync.load(made)
    torch.manual_seed(3)
    with torch.no_grad():
        model.unet.conv_out.weight.normal_(std=0.1)
    model.save(made)
    return made


@pytest.fixture(scope="module")
def adapted(dataset: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("adapted")
    before = bundle_digest(bundle)
    adapt(bundle, dataset, output, CONFIG, "speaker1")
    assert bundle_digest(bundle) == before
    return output


def test_the_adapter_says_what_it_was_trained_for_and_how_well(adapted: Path, bundle: Path) -> None:
    facts, state = read_adapter(adapted / ADAPTER)
    assert (facts["rank"], facts["alpha"], facts["speaker"]) == (2, 2, "speaker1")
    assert facts["heldout_before"] is not None
    assert facts["heldout_after"] is not None
    assert facts["heldout_after"] != facts["heldout_before"]
    attention = [
        name for name in LatentSync.load(bundle).unet.state_dict() if "to_q.weight" in name
    ]
    assert len(state) == 2 * 4 * len(attention)
    assert all(value.shape[0 if "lora_A" in name else 1] == 2 for name, value in state.items())
    assert any(value.abs().max() > 0 for name, value in state.items() if "lora_B" in name)
    assert (adapted / ADAPTER / WEIGHTS).stat().st_size < 200_000
    # A checkpoint holds the adapter and nothing of the model.
    network = torch.load(adapted / "training" / "checkpoint.pt", weights_only=True)["network"]
    assert sum(each.numel() for each in network.values()) == sum(v.numel() for v in state.values())


def test_a_merged_adapter_draws_what_was_trained(
    adapted: Path, bundle: Path, dataset: Path
) -> None:
    """The held-out loss of the bundle changed by the file is that of the training's end."""
    facts, _ = read_adapter(adapted / ADAPTER)
    merged = merge_bundle(bundle, adapted / ADAPTER, bundle.parent / "merged")
    assert merge_bundle(bundle, adapted / ADAPTER, merged) == merged
    assert read_bundle(merged)["adapter"]["speaker"] == "speaker1"
    changed = LatentSync.load(bundle)
    apply_adapter(changed, bundle, adapted / ADAPTER)
    own, whole = changed.unet.state_dict(), LatentSync.load(merged).unet.state_dict()
    assert all(torch.equal(own[name], whole[name]) for name in own)
    again = adapt(merged, dataset, adapted.parent / "again", replace(CONFIG, steps=0), "speaker1")
    assert again["heldout_before"] == pytest.approx(facts["heldout_after"], rel=1e-4)


def test_lip_sync_uses_it_and_refuses_those_of_other_models(
    adapted: Path, bundle: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 255, (16, 64, 64, 3), dtype=np.uint8)

    def drawn(adapter: Path | None, of: Path = bundle) -> np.ndarray:
        generator = FaceGenerator(of, steps=1, adapter=adapter)
        tokens = generator.speech(rng.standard_normal(16000).astype(np.float32)).at(np.zeros(16))
        return generator.window(faces, faces, torch.zeros_like(tokens))

    plain, changed = drawn(None), drawn(adapted / ADAPTER)
    assert np.abs(plain - changed).max() > 0.01
    other = make_real_bundle(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match="was trained for another model"):
        drawn(adapted / ADAPTER, other)
    with pytest.raises(UserError, match=r"is not an adapter: it has no adapter_model"):
        drawn(tmp_path)


def test_an_interrupted_adaptation_goes_on_and_more_steps_train_further(
    dataset: Path, bundle: Path, tmp_path: Path, adapted: Path
) -> None:
    lines: list[str] = []
    adapt(bundle, dataset, tmp_path, replace(CONFIG, steps=8), "speaker1", say=lines.append)
    facts = adapt(bundle, dataset, tmp_path, CONFIG, "speaker1", say=lines.append)
    assert "training: going on from step 8" in lines
    whole = json.loads((adapted / ADAPTER / "adapter.json").read_text())
    assert facts["heldout_after"] == whole["heldout_after"]
    with pytest.raises(UserError, match="another training"):
        adapt(bundle, dataset, tmp_path, CONFIG, "speaker2")


def test_a_speaker_needs_two_clips(dataset: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 0 clips of nobody, 2 are needed.*speaker0, speaker1"):
        adapt(bundle, dataset, tmp_path, CONFIG, "nobody")


def test_only_a_bundle_is_replaced_by_a_merged_one(
    adapted: Path, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="something other than a bundle"):
        merge_bundle(bundle, adapted / ADAPTER, tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    other = make_real_bundle(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match="was trained for another model"):
        merge_bundle(other, adapted / ADAPTER, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_recipes_of_adaptations() -> None:
    large = adaptation("lora-256", rank=None, steps=5)
    assert isinstance(large, AdaptConfig)
    assert (large.rank, large.steps, large.gradient_checkpointing) == (32, 5, True)
    assert large.losses.sync == 0.05
    with pytest.raises(UserError, match="choose one of lora-syncnet, lora, lora-256"):
        adaptation("lora-512")
