"""The small autoencoder: a usable code before training, better after, unit latents."""

import numpy as np
import pytest
import torch
from skimage import data

from models.autoencoder import PatchAutoencoder
from models.autoencoder.patch import colour_basis, cosine_basis


def portrait() -> torch.Tensor:
    """(12, 3, 64, 64) tiles of a photograph in [-1, 1]."""
    image = torch.from_numpy(np.ascontiguousarray(data.astronaut()[:384:2, :512:2]))
    pixels = image.permute(2, 0, 1).float() / 127.5 - 1
    tiles = pixels.unfold(1, 64, 64).unfold(2, 64, 64)
    return tiles.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def psnr(network: PatchAutoencoder, pixels: torch.Tensor) -> float:
    with torch.no_grad():
        error = ((network(pixels) - pixels) / 2).square().mean()
    return float(-10 * error.log10())


@pytest.mark.parametrize("channels", [8, 32, 192])
def test_bases_are_orthonormal(channels: int) -> None:
    waves = cosine_basis(8).flatten(1)
    torch.testing.assert_close(waves @ waves.T, torch.eye(64), rtol=0, atol=1e-5)
    basis = colour_basis(8, channels)
    assert basis.shape == (channels, 192)
    torch.testing.assert_close(basis @ basis.T, torch.eye(channels), rtol=0, atol=1e-5)


def test_untrained_it_codes_pictures_already() -> None:
    network = PatchAutoencoder(latent_channels=32).eval()
    assert psnr(network, portrait()) > 24
    grey = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(network(grey), grey, rtol=0, atol=1e-5)
    whole = PatchAutoencoder(latent_channels=192).eval()
    assert psnr(whole, portrait()) > 80


def test_training_improves_it_and_normalises_latents() -> None:
    torch.manual_seed(0)
    pixels = portrait()
    seen, unseen = pixels[::2], pixels[1::2]
    network = PatchAutoencoder(latent_channels=16)
    before = psnr(network, seen), psnr(network, unseen)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(80):
        optimizer.zero_grad()
        (network(seen) - seen).square().mean().backward()
        optimizer.step()
    assert psnr(network, seen) > before[0] + 0.8
    assert psnr(network, unseen) > before[1] + 0.1
    latents = network.eval().encode(seen).detach()
    assert latents.shape == (6, 16, 8, 8)
    assert 0.5 < float(latents.std()) < 1.5
    assert abs(float(latents.mean())) < 0.2


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_whitening_says_how_alike_the_channels_become(whitening: float) -> None:
    network = PatchAutoencoder(latent_channels=16, whitening=whitening, momentum=1.0)
    latents = network.encode(portrait()).detach()
    spread = latents.std(dim=(0, 2, 3))
    ratio = float(spread.max() / spread.min())
    raw = float(network.std.max() / network.std.min())
    assert ratio == pytest.approx(raw ** (1 - whitening), rel=0.01)


def test_statistics_stand_still_outside_training() -> None:
    network = PatchAutoencoder(latent_channels=8)
    with torch.no_grad():
        network.encode(portrait())
    network.eval().encode(portrait())
    assert torch.equal(network.mean, torch.zeros(8))
    network.train().encode(portrait())
    assert not torch.equal(network.mean, torch.zeros(8))


@pytest.mark.parametrize("options", [{"latent_channels": 193}, {"whitening": 1.5}])
def test_impossible_options(options: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        PatchAutoencoder(**options)
