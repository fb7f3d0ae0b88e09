"""Where somebody speaks: silero-vad, whose weights come with its wheel (MIT licence).

The network is built here around the weights of the wheel's TorchScript, which takes one moment
after the other, while here a whole recording passes at once. The package itself is never imported:
to do so sets torch to one thread for the whole process.
"""

import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.audio.mel import SAMPLES_PER_FRAME

SPEECH = 0.5
"""Probability from which a moment counts as speech, as the authors suggest."""
CHUNK = 512
"""Samples per probability at 16 kHz."""
CONTEXT = 64
"""Samples before a chunk, and mirrored ones after it, that its spectrum sees."""
_AT_ONCE = 1024
"""Chunks whose spectra are held at once, half a minute: memory does not grow with the sound."""
_FILE = Path("data", "silero_vad.jit")
"""The wheel's safetensors hold an earlier version of the weights."""
_NAMES = {
    "stft.forward_basis_buffer": "stft.weight",
    "encoder.0.reparam_conv": "conv1",
    "encoder.1.reparam_conv": "conv2",
    "encoder.2.reparam_conv": "conv3",
    "encoder.3.reparam_conv": "conv4",
    "decoder.rnn.weight_ih": "lstm.weight_ih_l0",
    "decoder.rnn.weight_hh": "lstm.weight_hh_l0",
    "decoder.rnn.bias_ih": "lstm.bias_ih_l0",
    "decoder.rnn.bias_hh": "lstm.bias_hh_l0",
    "decoder.decoder.2": "output",
}
"""Beginnings of the names in the TorchScript, and ours."""


class VoiceActivity(nn.Module):
    """The network for 16 kHz: a spectrum, four convolutions, an LSTM over chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.output = nn.Conv1d(128, 1, 1)

    def forward(self, audio: Tensor) -> Tensor:
        """Probability of speech for every chunk.

        Args:
            audio: float32 (chunks * 512,), 16 kHz.

        Returns:
            float32 (chunks,), 0 to 1.
        """
        windows = pad(audio, (CONTEXT, 0)).unfold(0, CHUNK + CONTEXT, CHUNK)
        state: tuple[Tensor, Tensor] | None = None
        probability = []
        for part in windows.split(_AT_ONCE):
            wave = pad(part[:, None], (0, CONTEXT), mode="reflect")
            real, imaginary = self.stft(wave).chunk(2, dim=1)
            x = torch.hypot(real, imaginary)
            for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
                x = conv(x).relu()
            x, state = self.lstm(x.squeeze(2), state)
            probability.append(self.output(x.relu()[:, :, None]).sigmoid().flatten())
        return torch.cat(probability)


def speech_probability(audio: np.ndarray) -> np.ndarray:
    """Probability of speech for every frame of sound.

    Args:
        audio: float32 (samples,), 16 kHz mono, -1 to 1. Sound before it is not known.

    Returns:
        float32 (frames,), 0 to 1, at 25 fps: the greatest of the chunks that touch a frame. A last
        part of a frame counts as a frame.

    Raises:
        ModuleNotFoundError: the package silero-vad is not installed.
        ValueError: `audio` is not one-dimensional.
    """
    if audio.ndim != 1:
        raise ValueError(f"audio of shape {audio.shape}: (samples,) is needed")
    frames = -(-len(audio) // SAMPLES_PER_FRAME)
    chunks = -(-len(audio) // CHUNK)
    if not chunks:
        return np.zeros(0, np.float32)
    padded = np.zeros(chunks * CHUNK, np.float32)
    padded[: len(audio)] = audio
    with torch.inference_mode():
        probability = _network()(torch.from_numpy(padded)).numpy()
    first = np.arange(frames) * SAMPLES_PER_FRAME // CHUNK
    last = np.minimum(((np.arange(frames) + 1) * SAMPLES_PER_FRAME - 1) // CHUNK, chunks - 1)
    # A frame has 640 samples, so that two or three chunks touch it.
    middle = np.minimum(first + 1, last)
    return np.maximum.reduce([probability[first], probability[middle], probability[last]])


@cache
def _network() -> VoiceActivity:
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the package silero-vad is missing, which tells speech from other sound: install it "
            "with pip install silero-vad, or run make setup again"
        )
    with warnings.catch_warnings():
        # Only the weights are taken; nothing of the deprecated format runs.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        script = torch.jit.load(Path(spec.origin).parent / _FILE)
    theirs = script._model.state_dict()
    weights = {
        name.replace(before, after, 1): value
        for before, after in _NAMES.items()
        for name, value in theirs.items()
        if name.startswith(before)
    }
    network = VoiceActivity().eval().requires_grad_(False)
    network.load_state_dict(weights)
    return network
