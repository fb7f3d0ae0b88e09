"""VideoMAE features: scale, gradient and the names of foreign checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.files import ModelFileError
from models.videomae import (
    VideoMAE,
    VideoMAEConfig,
    convert_v2,
    load_videomae_folder,
    load_videomae_v2,
)

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
    network(frames)[0, 0].backward()
    assert frames.grad is not None
    assert float(frames.grad.abs().max()) > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_v2_file_drops_the_head_and_refuses_others(network: VideoMAE, tmp_path: Path) -> None:
    path = tmp_path / "v2.pth"
    torch.save({"module": v2_weights(network)}, path)
    loaded = load_videomae_v2(path, SMALL)
    frames = torch.rand(1, 16, 3, 28, 28)
    assert torch.equal(loaded(frames), network(frames))
    with pytest.raises(ModelFileError, match="does not fit VideoMAE"):
        load_videomae_v2(path, VideoMAEConfig(28, embed_dim=32, depth=3, num_heads=4))


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


def test_transformers_folder(tmp_path: Path) -> None:
    config = VideoMAEConfig(28, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2.0, fc_norm=False)
    network = VideoMAE(config)
    weights = {
        key.replace("backbone.", "videomae."): value for key, value in network.state_dict().items()
    }
    save_file(weights | {"decoder.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    sizes = {
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
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    frames = torch.rand(1, 16, 3, 28, 28)
    assert torch.equal(load_videomae_folder(tmp_path)(frames), network(frames))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelFileError, match=r"config\.json is missing"):
        load_videomae_folder(tmp_path)
