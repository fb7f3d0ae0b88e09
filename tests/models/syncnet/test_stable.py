"""StableSyncNet's configurations, shapes and files."""

from pathlib import Path

import pytest
import torch

from models.files.errors import ModelFileError
from models.syncnet.stable import (
    Config,
    EncoderConfig,
    StableSyncNet,
    config_by_name,
    load_stable_syncnet,
    pixel_config,
)

INPUTS = {
    "16_pixel_attn": ((48, 128, 256), (80, 52), 2048),
    "16_pixel": ((48, 128, 256), (80, 52), 2048),
    "16_latent": ((64, 32, 32), (80, 52), 1024),
    "25_pixel": ((75, 128, 256), (80, 80), 1024),
}


@pytest.fixture
def small() -> Config:
    audio: EncoderConfig = {
        "in_channels": 1,
        "block_out_channels": [32, 64],
        "downsample_factors": [[4, 4], [20, 13]],
        "attn_blocks": [0, 1],
        "dropout": 0.0,
    }
    visual: EncoderConfig = {**audio, "in_channels": 48, "downsample_factors": [4, [4, 8]]}
    return {"audio_encoder": audio, "visual_encoder": visual}


@pytest.mark.parametrize("name", INPUTS)
def test_published_configurations_fit_their_inputs(name: str) -> None:
    frames, mel, width = INPUTS[name]
    with torch.device("meta"):
        network = StableSyncNet(config_by_name(name))
        vision, audio = network(torch.empty(1, *frames), torch.empty(1, 1, *mel))
    assert vision.shape == audio.shape == (1, width)


def test_published_size() -> None:
    with torch.device("meta"):
        network = StableSyncNet(pixel_config())
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(401e6, rel=0.005)


def test_embeddings_are_unit_and_frames_may_have_their_own_axis(small: Config) -> None:
    network = StableSyncNet(small).eval()
    frames, mel = torch.randn(2, 16, 3, 16, 32), torch.randn(2, 1, 80, 52)
    vision, audio = network(frames, mel)
    assert torch.equal(vision, network(frames.flatten(1, 2), mel)[0])
    for embedding in (vision, audio):
        assert (embedding >= 0).all()
        assert torch.allclose(embedding.norm(dim=1), torch.ones(2), atol=1e-5)


def test_inputs_of_other_sizes_are_refused(small: Config) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        StableSyncNet(small)(torch.randn(1, 48, 32, 32), torch.randn(1, 1, 80, 52))


def test_unknown_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="16_latent"):
        config_by_name("17_pixel")


def test_file_and_back(small: Config, tmp_path: Path) -> None:
    network = StableSyncNet(small).eval()
    path = tmp_path / "stable_syncnet.pt"
    torch.save({"global_step": 7, "state_dict": network.state_dict()}, path)
    loaded = load_stable_syncnet(path, small)
    frames, mel = torch.randn(1, 48, 16, 32), torch.randn(1, 1, 80, 52)
    with torch.no_grad():
        assert torch.equal(loaded(frames, mel)[0], network(frames, mel)[0])
    with pytest.raises(ModelFileError, match=r"does not fit StableSyncNet"):
        load_stable_syncnet(path)
