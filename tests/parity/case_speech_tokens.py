"""Audio tokens of video frames as inference makes them, from Whisper features of a recording."""

import math
from pathlib import Path

import numpy as np
import torch

from datasets.media import FPS
from models.audio.whisper_files import convert_openai
from models.audio.whisper_tokens import WhisperTokens
from models.files.state_dict import load_weights
from tasks.lipsync.speech_tokens import SpeechTokens
from tests.parity.draw import draw_weights, read_case, relative_error
from tests.parity.outcome import Errors

PREFIX = "speech_tokens"
BAR = 1e-3
TAIL = 2
"""Frames at the end of the list where the two differ by design: the published program repeats
its last feature step, ours has features of the silence that follows."""
TAIL_BAR = 0.5
"""Up to 0.4 is measured there; tokens of frames that are far away differ by 0.5 to 0.7."""


def run(folder: Path, name: str) -> Errors:
    case, arrays = read_case(folder, name)
    dims = case["dims"]
    network = WhisperTokens(
        width=dims["n_audio_state"],
        layers=dims["n_audio_layer"],
        heads=dims["n_audio_head"],
        mels=dims["n_mels"],
        context=dims["n_audio_ctx"],
    )
    weights = convert_openai(draw_weights(case["salt"], case["encoder_state_dict"]))
    positions = network.encoder.embed_positions.weight
    load_weights(network.encoder, {**weights, "embed_positions.weight": positions}, folder / name)
    wave = arrays["pcm"].astype(np.float32) / 32768
    speech = SpeechTokens(lambda part, count: network.encode(torch.from_numpy(part), count), wave)
    frames, expected = arrays["frames"], arrays["tokens"]
    tokens = speech.at(frames / FPS)
    if tokens.shape != expected.shape:
        return {"tokens": (math.inf, BAR)}
    errors = {}
    for number, frame in enumerate(frames):
        bar = TAIL_BAR if number >= len(frames) - TAIL else BAR
        error = relative_error(tokens[number], expected[number])
        errors[f"tokens of frame {frame}"] = (error, bar)
    counted = network.num_frames(network.features(wave))
    errors["num_chunks"] = (float(abs(counted - int(arrays["num_chunks"]))), 0.0)
    return errors
