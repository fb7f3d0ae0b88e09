"""Sync-C, Sync-D and offset of generated faces, by whichever sync network is at hand.

The published numbers are by syncnet_v2.model. Without it the bundle's own sync network
judges: the same search over +-15 frames, but distances of other embeddings, so such
numbers only compare with each other, and their label says whose they are.
"""

from pathlib import Path

import torch

from tasks.sync.networks import SyncNetwork, load_own_syncnet, load_third_party_syncnet


def load_sync_judge(weights: str, bundle: Path, device: torch.device) -> SyncNetwork:
    """syncnet_v2 where its file is given, else the bundle's own network.

    Raises:
        UserError: the file is not there.
        ModelFileError: it is damaged or of another network.
    """
    if weights:
        return load_third_party_syncnet(weights, device)
    return load_own_syncnet(bundle / "syncnet", device)
