"""VideoMAE-v2's pooled features."""

from pathlib import Path

from models.files.state_dict import load_weights
from models.judges.videomae import VideoMAE, VideoMAEConfig, convert_v2
from tests.parity.draw import draw_input, draw_weights, read_case, relative_error

PREFIX = "videomae"


def run(folder: Path, name: str) -> float:
    case, arrays = read_case(folder, name)
    network = VideoMAE(VideoMAEConfig(**case["config"]))
    weights = draw_weights(case["salt"], case["state_dict"])
    load_weights(network, convert_v2(weights), folder / name)
    features = network.features(draw_input(case["salt"], "video", case["video"]))
    return relative_error(features, arrays["features"])
