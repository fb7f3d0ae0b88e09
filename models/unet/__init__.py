"""LatentSync's U-Net and its blocks."""

from models.unet.network import LipSyncUNet

__all__ = [
    "LipSyncUNet",
]
