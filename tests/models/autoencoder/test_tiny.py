"""The tiny autoencoder: both kinds of published files, and a real picture there and back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.data import astronaut

from models.autoencoder import TinyAutoencoder, build_autoencoder
from models.files.errors import ModelFileError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "weights" / "taesd"


def drawn() -> TinyAutoencoder:
    torch.manual_seed(0)
    return TinyAutoencoder().eval()


def write_halves(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """As the original has them: the decoder's first layer, without weights, counts."""
    for half, shift in (("encoder", 0), ("decoder", 1)):
        start = f"{half}.layers."
        named = {}
        for key, value in weights.items():
            if key.startswith(start):
                index, _, rest = key.removeprefix(start).partition(".")
                named[f"{int(index) + shift}.{rest}"] = value.contiguous()
        save_file(named, folder / f"taesd_{half}.safetensors")


def test_both_kinds_of_files_give_the_same(tmp_path: Path) -> None:
    network = drawn()
    weights = network.vae.state_dict()
    write_halves(tmp_path, weights)
    whole = tmp_path / "diffusion_pytorch_model.safetensors"
    halves, other = TinyAutoencoder().eval(), TinyAutoencoder().eval()
    halves.load_file(tmp_path)
    save_file({key: value.contiguous() for key, value in weights.items()}, whole)
    other.load_file(whole)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = network.encode(pixels)
        assert latents.shape == (1, 4, 8, 8)
        assert network.decode(latents).shape == (1, 3, 64, 64)
        for each in (halves, other):
            assert torch.equal(each.encode(pixels), latents)
            assert torch.equal(each.decode(latents), network.decode(latents))


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not hold TAESD"):
        drawn().load_file(tmp_path)
    weights = drawn().vae.state_dict()
    write_halves(tmp_path, weights)
    save_file({"layers.0.weight": torch.zeros(1)}, tmp_path / "taesd_decoder.safetensors")
    with pytest.raises(ModelFileError, match=r"it has an entry layers\.0\.weight"):
        drawn().load_file(tmp_path)


def test_it_is_built_by_its_name() -> None:
    made = build_autoencoder({"kind": "taesd"}, 4, 1.0)
    assert isinstance(made, TinyAutoencoder)
    assert (made.latent_channels, made.factor) == (4, 8)


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="the published weights are not beside the repository"
)
def test_the_published_weights_keep_a_real_face() -> None:
    network = TinyAutoencoder().eval()
    network.load_file(SHARED)
    face = torch.from_numpy(astronaut()[:256, 96:352].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        again = network.decode(network.encode(face)).clamp(-1, 1)
    error = float((again - face).square().mean())
    assert 10 * np.log10(4 / error) > 24
