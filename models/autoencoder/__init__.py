"""Between pixels and latents."""

from models.autoencoder.kl import KLAutoencoder, build_autoencoder
from models.autoencoder.patch import PatchAutoencoder
from models.autoencoder.tiny import TinyAutoencoder

__all__ = [
    "KLAutoencoder",
    "PatchAutoencoder",
    "TinyAutoencoder",
    "build_autoencoder",
]
