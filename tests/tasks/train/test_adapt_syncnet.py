"""The StableSyncNet of a model adapted to one speaker."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from datasets.errors import UserError
from tasks.lipsync.generator import FaceGenerator
from tasks.recipes.adapt import SyncAdaptConfig, adaptation
from tasks.recipes.recipe import recipe
from tasks.sync.network_files import build_syncnet, load_syncnet, save_syncnet
from tasks.train.adapt import ADAPTER
from tasks.train.adapt_syncnet import TARGETS, adapt_syncnet
from tasks.train.merge import merge_bundle
from tasks.weights.adapter import WEIGHTS, read_adapter
from tests.support.real_bundle import make_real_bundle
from tests.support.talking_boxes import make_dataset

CPU = torch.device("cpu")
CONFIG = SyncAdaptConfig(
    steps=6, batch_size=4, lr=1e-2, rank=2, alpha=4, checkpoint_every=3, log_every=3, test_every=6
)
NETWORK = {
    "audio_encoder": {
        "in_channels": 1,
        "block_out_channels": [32, 64],
        "downsample_factors": [[10, 13], [8, 4]],
        "attn_blocks": [1, 0],
        "dropout": 0.0,
    },
    "visual_encoder": {
        "in_channels": 48,
        "block_out_channels": [32, 64],
        "downsample_factors": [[8, 8], [4, 8]],
        "attn_blocks": [0, 1],
        "dropout": 0.0,
    },
}
"""Both end in 64 numbers for faces of 64 pixels."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "d", speakers=2, clips=4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_real_bundle(tmp_path_factory.mktemp("bundle") / "b")
    about = replace(recipe("debug").syncnet, network="stable", options={"config": NETWORK})
    torch.manual_seed(2)
    save_syncnet(made / "syncnet", build_syncnet("stable", about.options), about, 0.5)
    return made


@pytest.fixture(scope="module")
def adapted(dataset: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("adapted")
    adapt_syncnet(bundle, dataset, output, CONFIG, "speaker1")
    return output


def test_the_adapter_alone_is_saved_and_changes_the_loss(adapted: Path, bundle: Path) -> None:
    facts, state = read_adapter(adapted / ADAPTER)
    assert (facts["part"], facts["rank"], facts["alpha"]) == ("syncnet", 2, 4)
    assert facts["heldout_before"] != facts["heldout_after"]
    network = load_syncnet(bundle / "syncnet", CPU).network
    changed = [name for name, _ in network.named_modules() if name.endswith(TARGETS)]
    assert len(state) == 2 * len(changed)
    assert any("conv1" in name for name in changed)
    assert any("to_q" in name for name in changed)
    size = sum(each.numel() for each in network.parameters()) * 4
    assert (adapted / ADAPTER / WEIGHTS).stat().st_size < size / 4


def test_a_merged_sync_network_judges_as_the_adapted_one(
    adapted: Path, bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    facts, _ = read_adapter(adapted / ADAPTER)
    merged = merge_bundle(bundle, adapted / ADAPTER, tmp_path / "merged")
    after = adapt_syncnet(merged, dataset, tmp_path / "o", replace(CONFIG, steps=0), "speaker1")
    assert after["heldout_before"] == pytest.approx(facts["heldout_after"], rel=1e-4)
    # Nothing else of the bundle is another.
    assert (merged / "unet.safetensors").read_bytes() == (bundle / "unet.safetensors").read_bytes()
    was, now = (load_syncnet(each / "syncnet", CPU) for each in (bundle, merged))
    assert (asdict(was.config), was.threshold) == (asdict(now.config), now.threshold)
    with pytest.raises(UserError, match="was trained for another model"):
        merge_bundle(merged, adapted / ADAPTER, tmp_path / "twice")


def test_an_interrupted_adaptation_goes_on(
    adapted: Path, bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    adapt_syncnet(bundle, dataset, tmp_path, replace(CONFIG, steps=3), "speaker1")
    facts = adapt_syncnet(bundle, dataset, tmp_path, CONFIG, "speaker1", say=lines.append)
    assert "training: going on from step 3" in lines
    assert facts["heldout_after"] == read_adapter(adapted / ADAPTER)[0]["heldout_after"]


def test_where_it_cannot_be_used_it_is_refused(
    adapted: Path, bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="changes the syncnet, which draws no faces"):
        FaceGenerator(bundle, steps=1, adapter=adapted / ADAPTER)
    small = make_real_bundle(tmp_path / "small")
    with pytest.raises(UserError, match="is a FrameSyncNet, which is too small for adapters"):
        adapt_syncnet(small, dataset, tmp_path / "o", CONFIG)
    with pytest.raises(UserError, match="parallel must be ddp for adaptations, got 'fsdp'"):
        adapt_syncnet(bundle, dataset, tmp_path / "o", replace(CONFIG, parallel="fsdp"))
    assert isinstance(adaptation("lora-syncnet", rank=3), SyncAdaptConfig)
