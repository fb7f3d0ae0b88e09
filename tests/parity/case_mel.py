"""Wav2Lip's mel spectrogram."""

from pathlib import Path

from models.audio.mel import mel_spectrogram
from tests.parity.draw import read_case, relative_error

PREFIX = "mel"


def run(folder: Path, name: str) -> float:
    _, arrays = read_case(folder, name)
    return relative_error(mel_spectrogram(arrays["wav"]), arrays["mel"])
