"""StableSyncNet's two embeddings, for any configuration."""

from pathlib import Path

import torch

from models.files.state_dict import load_weights
from models.syncnet.stable import StableSyncNet
from tests.parity.draw import draw_input, draw_weights, read_case, relative_error

PREFIX = "stable_syncnet"


def run(folder: Path, name: str) -> float:
    case, arrays = read_case(folder, name)
    with torch.device("meta"):
        network = StableSyncNet(case["config"])
    load_weights(network, draw_weights(case["salt"], case["state_dict"]), folder / name)
    vision, audio = network.eval()(
        draw_input(case["salt"], "frames", case["frames"]),
        draw_input(case["salt"], "mel", case["mel"]),
    )
    return max(relative_error(vision, arrays["vision"]), relative_error(audio, arrays["audio"]))
