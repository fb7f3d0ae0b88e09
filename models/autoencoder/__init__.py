"""Between pixels and latents."""

from models.autoencoder.kl import KLAutoencoder, build_autoencoder
from models.autoencoder.patch import PatchAutoencoder

__all__ = [
    "KLAutoencoder",
    "PatchAutoencoder",
    "build_autoencoder",
]
