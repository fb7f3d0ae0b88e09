"""Whisper features around video frames, in the mode that reproduces the reference."""

import math
from pathlib import Path

import numpy as np
import torch

from models.audio.whisper_files import convert_openai
from models.audio.whisper_tokens import WhisperTokens
from models.files.state_dict import load_weights
from tests.parity.draw import draw_weights, read_case, relative_error

PREFIX = "whisper"


def run(folder: Path, name: str) -> float:
    case, arrays = read_case(folder, name)
    dims = case["dims"]
    network = WhisperTokens(
        width=dims["n_audio_state"],
        layers=dims["n_audio_layer"],
        heads=dims["n_audio_head"],
        mels=dims["n_mels"],
        context=dims["n_audio_ctx"],
        exact=True,
    )
    weights = convert_openai(draw_weights(case["salt"], case["encoder_state_dict"]))
    positions = network.encoder.embed_positions.weight
    load_weights(network.encoder, {**weights, "embed_positions.weight": positions}, folder / name)
    features = network.features(arrays["wav"].astype(np.float32))
    counts = (network.num_frames(features), len(features))
    if counts != (int(arrays["num_windows"]), int(arrays["feature_length"])):
        return math.inf
    windows = network.frame_tokens(features, torch.from_numpy(arrays["frames"]))
    return relative_error(windows, arrays["windows"])
