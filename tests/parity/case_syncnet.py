"""SyncNet of Chung & Zisserman: MFCC, both encoders, and the search over shifts."""

import math
from pathlib import Path
from typing import Any

import torch

from models.audio.mfcc import mfcc
from models.files.state_dict import load_weights
from models.syncnet.distance import sync_distance
from models.syncnet.syncnet_v2 import SyncNet
from tests.parity.draw import draw_input, draw_weights, read_case, relative_error

PREFIX = "syncnet"


def search_error(case: dict[str, Any]) -> float:
    """Relative error of distance and confidence; infinite when an offset differs."""
    shape, salt = case["features"], case["salt"]
    first = draw_input(salt, "f1", shape)
    second = torch.roll(first, -4, 0) + 0.8 * draw_input(salt, "f2", shape)
    errors = [0.0]
    for shift, expected in case["pdist"].items():
        found = sync_distance(first, second, int(shift))
        if found.offset != expected["offset"]:
            return math.inf
        errors.append(abs(found.distance - expected["dist"]) / expected["dist"])
        errors.append(abs(found.confidence - expected["conf"]) / expected["conf"])
    return max(errors)


def run(folder: Path, name: str) -> float:
    case, arrays = read_case(folder, name)
    with torch.device("meta"):
        network = SyncNet()
    load_weights(network, draw_weights(case["salt"], case["state_dict"]), folder / name)
    network.eval()
    lip = network.forward_lip(draw_input(case["salt"], "lip", case["lip"]))
    sound = network.forward_audio(draw_input(case["salt"], "mfcc", case["mfcc"]))
    return max(
        relative_error(lip, arrays["lip"]),
        relative_error(sound, arrays["aud"]),
        relative_error(mfcc(arrays["pcm16"]), arrays["mfcc"]),
        search_error(case),
    )
