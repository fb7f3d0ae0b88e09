"""Sync-C, Sync-D and offset of generated faces, by the sync network that is available.

The published numbers are by syncnet_v2.model. Without it the bundle's own sync network
judges: the same search over +-15 frames, but on distances of other embeddings, so such
numbers can only be compared with each other, and their label names the network.
"""

from pathlib import Path

import torch

from tasks.sync.networks import SyncNetwork, load_own_syncnet, load_third_party_syncnet


def load_sync_judge(weights: str, bundle: Path, device: torch.device) -> SyncNetwork:
    """Load syncnet_v2 if its file is given, otherwise the bundle's own network.

    Raises:
        UserError: the file is missing.
        ModelFileError: it is damaged or belongs to another network.
    """
    if weights:
        return load_third_party_syncnet(weights, device)
    return load_own_syncnet(bundle / "syncnet", device)
