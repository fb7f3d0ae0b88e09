"""How far audio and lips are apart, and with which confidence: one protocol for all scorers.

`mouth-audio` needs only landmarks and sound; `syncnet-v2` and `stable-syncnet` look at
the aligned faces and need weights. All use the same unit: frames at 25 fps, positive if the audio
is late.
"""

from tasks.sync.mouth_audio import MouthAudioScorer
from tasks.sync.signals import (
    MOUTH_AUDIO,
    NO_SCORER,
    SYNCNET_V2,
    NoScorer,
    OffsetScorer,
    default_min_confidence,
)
from tasks.weights.by_name import weights_digest


def get_scorer(name: str, weights: str = "", device: str = "cpu") -> OffsetScorer:
    """Load a scorer by name.

    Args:
        name: `mouth-audio`, `syncnet-v2`, `stable-syncnet`, or `none` for clips that are known to
            be in sync.
        weights: a file, a folder, or a name in the weights table (`python -m tasks.weights`).
            `syncnet-v2` takes the table's if this is empty; `stable-syncnet` also takes a
            trained bundle.
        device: device for networks: cpu, cuda, cuda:1 or mps.

    Raises:
        UserError: there is no such scorer, or its weights are missing.
        ModelFileError: the weights are damaged or for another network.
    """
    min_confidence = default_min_confidence(name)
    if name == MOUTH_AUDIO:
        return MouthAudioScorer()
    if name == NO_SCORER:
        return NoScorer()
    import torch

    from tasks.sync.networks import (
        NetworkScorer,
        SyncNetwork,
        load_third_party_syncnet,
        load_window_syncnet,
    )

    where = torch.device(device)
    network: SyncNetwork
    if name == SYNCNET_V2:
        network = load_third_party_syncnet(weights or SYNCNET_V2, where)
    else:
        network = load_window_syncnet(weights, where)
    return NetworkScorer(name, min_confidence, network)


def scorer_weights_digest(name: str, weights: str = "") -> str:
    """Digest of the weights that `get_scorer` would load; empty for a scorer without a network.

    Raises:
        UserError: the weights are missing.
    """
    if name in (MOUTH_AUDIO, NO_SCORER):
        return ""

    return weights_digest(weights or SYNCNET_V2)
