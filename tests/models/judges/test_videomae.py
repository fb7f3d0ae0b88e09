"""VideoMAE features: scale, gradient and the names of foreign checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.files.errors import ModelFileError
from models.judges.videomae import (
    VideoMAE,
    VideoMAEConfig,
    check_videomae,
    convert_v2,
    load_videomae,
)
from tests.support.small_models import count_runs

SMALL = VideoMAEConfig(img_size=28, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2.0)


@pytest.fixture
def network() -> VideoMAE:
    torch.manual_seed(0)
    return VideoMAE(SMALL)


def test_features_are_unit_and_ignore_the_frame_size(network: VideoMAE) -> None:
    frames = torch.rand(2, 16, 3, 56, 56) * 2 - 1
    features = network(frames)
    assert features.shape == (2, 32)
    assert torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-5)
    flat = torch.full((1, 16, 3, 100, 60), 0.5)
    assert torch.allclose(network(flat), network(flat[..., :28, :28]), atol=1e-5)


def test_the_order_of_frames_matters(network: VideoMAE) -> None:
    frames = torch.rand(1, 16, 3, 28, 28) * 2 - 1
    assert not torch.allclose(network(frames), network(frames.flip(1)), atol=1e-4)


@pytest.mark.parametrize("saving", [False, True])
def test_gradient_reaches_frames_but_no_weights(network: VideoMAE, saving: bool) -> None:
    if saving:
        network.enable_gradient_checkpointing()
    frames = (torch.rand(1, 16, 3, 28, 28) - 0.5).requires_grad_()
    # Inside of the blocks: what calls them is not called again.
    runs = count_runs(block.layernorm_before for block in network.backbone.encoder.layer)
    features = network(frames)
    assert runs == [1] * SMALL.depth
    features[0, 0].backward()
    assert runs == [1 + saving] * SMALL.depth
    assert frames.grad is not None
    assert float(frames.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_v2_file_drops_the_head_and_refuses_others(network: VideoMAE, tmp_path: Path) -> None:
    path = tmp_path / "v2.pth"
    torch.save({"module": v2_weights(network)}, path)
    loaded = load_videomae(path, SMALL)
    frames = torch.rand(1, 16, 3, 28, 28)
    assert torch.equal(loaded(frames), network(frames))
    with pytest.raises(ModelFileError, match="does not fit VideoMAE"):
        load_videomae(path, VideoMAEConfig(28, embed_dim=32, depth=3, num_heads=4))


def v2_weights(network: VideoMAE) -> dict[str, torch.Tensor]:
    """The weights under VideoMAE-v2's names, with a classifier."""
    own = network.state_dict()
    patches = "backbone.embeddings.patch_embeddings.projection"
    weights = {"head.weight": torch.zeros(5, 32), "head.bias": torch.zeros(5)}
    for kind in ("weight", "bias"):
        weights[f"patch_embed.proj.{kind}"] = own[f"{patches}.{kind}"]
        weights[f"fc_norm.{kind}"] = own[f"fc_norm.{kind}"]
    for index in range(SMALL.depth):
        layer, block = f"backbone.encoder.layer.{index}", f"blocks.{index}"
        attention = f"{layer}.attention.attention"
        weights[f"{block}.attn.qkv.weight"] = torch.cat(
            [own[f"{attention}.{name}.weight"] for name in ("query", "key", "value")]
        )
        weights[f"{block}.attn.q_bias"] = own[f"{attention}.query.bias"]
        weights[f"{block}.attn.v_bias"] = own[f"{attention}.value.bias"]
        for old, new in (
            ("attn.proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
        ):
            for kind in ("weight", "bias"):
                weights[f"{block}.{old}.{kind}"] = own[f"{layer}.{new}.{kind}"]
    assert set(convert_v2(weights)) == set(own)
    return weights


PLAIN = VideoMAEConfig(28, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2.0, fc_norm=False)
SIZES = {
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_frames": 16,
    "tubelet_size": 2,
    "layer_norm_eps": 1e-6,
}


def published(network: VideoMAE) -> dict[str, torch.Tensor]:
    """The weights as MCG-NJU/videomae-base's file has them, pre-training's parts included."""
    weights = {}
    for key, value in network.state_dict().items():
        key = key.replace("backbone.", "videomae.")
        key = key.replace("attention.query.bias", "attention.q_bias")
        weights[key.replace("attention.value.bias", "attention.v_bias")] = value
    assert any(key.endswith("attention.attention.q_bias") for key in weights)
    more = ["decoder.norm.weight", "encoder_to_decoder.weight", "mask_token"]
    more += ["videomae.layernorm.weight", "classifier.bias"]
    return weights | {key: torch.zeros(1) for key in more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SIZES))
    return tmp_path


def test_published_files_of_transformers(folder: Path) -> None:
    torch.manual_seed(0)
    network = VideoMAE(PLAIN)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    save_file(published(network), folder / "model.safetensors")
    frames = torch.rand(1, 16, 3, 28, 28)
    for path in (folder, folder / "model.safetensors"):
        check_videomae(path)
        assert torch.equal(load_videomae(path)(frames), network(frames))


def test_the_names_of_todays_transformers_and_a_last_norm(folder: Path, network: VideoMAE) -> None:
    weights = {
        key.replace("backbone.", "videomae."): value for key, value in network.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors")
    frames = torch.rand(1, 16, 3, 28, 28)
    assert torch.equal(load_videomae(folder)(frames), network(frames))


@pytest.mark.parametrize("key", ["videomae.encoder.extra", "encoder.layer.0.q_bias", "head.weight"])
def test_unknown_entries_are_refused(folder: Path, key: str) -> None:
    weights = published(VideoMAE(PLAIN)) | {key: torch.zeros(1)}
    save_file(weights, folder / "model.safetensors")
    for read in (load_videomae, check_videomae):
        with pytest.raises(ModelFileError, match=f"1 are unknown, first .*{key.split('.')[-1]}"):
            read(folder)


def test_configurations_that_do_not_help(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file(published(VideoMAE(PLAIN)), file)
    for text, match in (
        ("[]", "not a JSON object"),
        ("{", "cannot be read as JSON"),
        ("{}", "has no 'image_size'"),
        (json.dumps(SIZES | {"hidden_size": 0}), "has no|is not a VideoMAE"),
        (json.dumps(SIZES | {"num_attention_heads": 5}), "is not a VideoMAE"),
        (json.dumps(SIZES | {"num_hidden_layers": 3}), "weights are missing"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelFileError, match=match):
            check_videomae(file)
    (folder / "config.json").unlink()
    for path in (folder, file):
        with pytest.raises(ModelFileError, match=r"is missing: .*videomae-base-config"):
            load_videomae(path)


def test_a_file_of_another_kind_is_no_videomae_v2(tmp_path: Path) -> None:
    torch.save({"model": {"blocks.0": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match="does not fit VideoMAE"):
        check_videomae(tmp_path / "other.pth")
