"""AV-HuBERT's encoder of sound: features, every block, the output, and other numbers of frames."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from models.audio.avhubert_tokens import AVHubertTokens, avhubert_features
from models.audio.mfcc import log_filter_banks
from tests.parity.draw import draw_weights, read_case
from tests.parity.outcome import Errors
from tests.parity.steps import plain_errors
from tests.support.fairseq_file import write_fairseq

PREFIX = "avhubert_audio"


def build_encoder(case: dict[str, Any], exact: bool = True) -> AVHubertTokens:
    """The encoder of a case, its weights read from a file in fairseq's layout."""
    entries = draw_weights(case["salt"], {**case["state_dict"], **case["unused_state_dict"]})
    with TemporaryDirectory() as folder:
        path = write_fairseq(Path(folder) / "checkpoint.pt", entries, case["config"])
        return AVHubertTokens.from_file(path, neighbours=0, exact=exact)


def run(folder: Path, name: str) -> Errors:
    case, arrays = read_case(folder, name)
    network = build_encoder(case)
    wave = arrays["wav"]
    features = avhubert_features(wave)
    # As the reference gives them, normalised; the encoder does it itself.
    shown = torch.nn.functional.layer_norm(features, features.shape[-1:])
    found = {
        "logfbank": log_filter_banks(wave),
        "features": shown,
        "layers": torch.stack(network.blocks(features)),
        "last": network.outputs(wave),
        "last_longer": network.outputs(wave, case["frames"]["longer"]),
        "last_shorter": network.outputs(wave, case["frames"]["shorter"]),
    }
    return plain_errors(found, arrays)
