"""Stable Diffusion's autoencoder behind the common interface, and the choice of one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.autoencoder import KLAutoencoder, PatchAutoencoder, build_autoencoder
from models.autoencoder.kl import Autoencoder, sizes_from_shapes
from models.files.errors import ModelFileError

SMALL: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def small() -> KLAutoencoder:
    torch.manual_seed(0)
    return KLAutoencoder(**SMALL).eval()


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries as sd-vae-ft-mse's file has them, with 1x1 convolutions in the attention."""
    renamed = {}
    for key, value in state.items():
        for new, old in OLD.items():
            if f".{new}." in key:
                key = key.replace(f".{new}.", f".{old}.")
                value = value[:, :, None, None] if value.ndim == 2 else value
        renamed[key] = value.contiguous()
    return renamed


def test_interface_and_scale() -> None:
    network = small()
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = network.encode(pixels)
    assert isinstance(network, Autoencoder)
    assert network.factor == 2
    assert latents.shape == (2, 4, 8, 8)
    mean = network.vae.encode(pixels).latent_dist.mean
    torch.testing.assert_close(latents, mean * 0.18215)
    torch.testing.assert_close(network.decode(latents), network.vae.decode(mean).sample)


def test_full_size_is_the_published_one() -> None:
    with torch.device("meta"):
        network = KLAutoencoder()
    assert network.factor == 8
    assert sum(weight.numel() for weight in network.parameters()) == 83_653_863


def test_reads_files_with_old_and_new_names(tmp_path: Path) -> None:
    network = small()
    state = network.vae.state_dict()
    pixels = torch.rand(1, 3, 16, 16)
    expected = network.encode(pixels)
    for name, entries in {"new": state, "old": old_names(state)}.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(entries, path)
        torch.manual_seed(1)
        other = KLAutoencoder(**SMALL).eval()
        other.load_file(path)
        torch.testing.assert_close(other.encode(pixels), expected, rtol=0, atol=0)
    assert set(old_names(state)) != set(state)


def test_a_file_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ModelFileError, match="does not fit AutoencoderKL"):
        small().load_file(path)
    with pytest.raises(ModelFileError, match="is not there"):
        small().load_file(tmp_path / "missing.safetensors")


def test_choice_by_kind() -> None:
    patch = build_autoencoder({"kind": "patch", "patch": 4}, 8, 1.0)
    assert isinstance(patch, PatchAutoencoder)
    assert isinstance(patch, Autoencoder)
    assert (patch.latent_channels, patch.factor) == (8, 4)
    kl = build_autoencoder(SMALL, 6, 0.5)
    assert isinstance(kl, KLAutoencoder)
    assert (kl.latent_channels, kl.scaling_factor) == (6, 0.5)
    with pytest.raises(ValueError, match="'vq'"):
        build_autoencoder({"kind": "vq"}, 4, 1.0)


def test_sizes_are_told_from_shapes() -> None:
    def told(network: KLAutoencoder) -> tuple[int, dict[str, Any]]:
        return sizes_from_shapes(
            {key: tuple(each.shape) for key, each in network.vae.state_dict().items()}
        )

    with torch.device("meta"):
        assert told(KLAutoencoder()) == (4, {})
    channels, options = told(build_autoencoder(SMALL, 6, 1.0))  # type: ignore[arg-type]
    expected = {key: list(v) if isinstance(v, tuple) else v for key, v in SMALL.items()}
    assert (channels, options | {"norm_num_groups": 4}) == (6, expected)
    with pytest.raises(KeyError):
        sizes_from_shapes({"conv_in.weight": (1, 2, 3, 3)})
