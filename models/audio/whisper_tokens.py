"""Whisper features as the audio condition of the U-Net (LatentSync, section 3.1).

The encoder is transformers'. Features are its embedding output and the output of every
block, before the final layer norm, 50 steps per second; each video frame attends to the
10 steps around it, of all layers: 50 tokens of 384 with whisper-tiny.

`exact=True` reproduces the reference: 30 s windows side by side, which jump where two
meet. The default overlaps windows and fades shortly from one to the next.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.audio.mel import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, Audio, as_wave, slaney_filters
from models.audio.whisper_files import read_folder, read_openai
from models.audio.windows import encode_in_windows
from models.files.state_dict import load_weights

STEPS_PER_SECOND = 50
STEPS_PER_FRAME = STEPS_PER_SECOND // FPS
OVERLAP_STEPS = 5 * STEPS_PER_SECOND
"""Steps that neighbouring windows share in the default mode, so that each has sound around the
steps used from it."""
FADE_STEPS = 4 * STEPS_PER_FRAME
"""Steps in the middle of the overlap over which one window fades into the next. A mean of two
windows is a mean of two position tables, a token that no network has seen: just enough of them to
hide the jump."""

_N_FFT, _HOP = 400, 160


def log_mel(wave: torch.Tensor, num_mels: int) -> torch.Tensor:
    """Whisper's spectrogram: (samples,) -> (num_mels, samples // 160), about [-1, 1]."""
    window = torch.hann_window(_N_FFT, device=wave.device)
    wave = wave.float()
    padding = (_N_FFT // 2, _N_FFT // 2)
    # Reflection, as in the published program, needs more than the half window it copies.
    mode = "reflect" if len(wave) > padding[0] else "constant"
    padded = torch.nn.functional.pad(wave[None], padding, mode=mode)[0]
    spectrum = torch.stft(padded, _N_FFT, _HOP, window=window, center=False, return_complex=True)
    filters = slaney_filters(SAMPLE_RATE, _N_FFT, num_mels).float().to(wave.device)
    level = (filters @ spectrum[:, :-1].abs().square()).clamp_min(1e-10).log10()
    return (torch.maximum(level, level.max() - 8.0) + 4.0) / 4.0


class WhisperTokens(nn.Module):
    """Features of each video frame's surroundings from a Whisper encoder.

    Args:
        width: channels of the encoder.
        layers: its blocks.
        heads: attention heads.
        mels: mel bands.
        context: steps per window; 1500 are 30 s.
        before: video frames looked back, 2 steps each.
        after: video frames looked ahead.
        exact: reproduce the reference's windows, seams included.
    """

    def __init__(
        self,
        width: int = 384,
        layers: int = 4,
        heads: int = 6,
        mels: int = 80,
        context: int = 1500,
        before: int = 2,
        after: int = 2,
        exact: bool = False,
    ) -> None:
        from transformers.models.whisper.modeling_whisper import WhisperConfig, WhisperEncoder

        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.encoder = WhisperEncoder(
            WhisperConfig(
                d_model=width,
                encoder_layers=layers,
                encoder_attention_heads=heads,
                encoder_ffn_dim=4 * width,
                num_mel_bins=mels,
                max_source_positions=context,
            )
        )
        self.width = width
        self.before = before
        self.after = after
        self.exact = exact
        self.tokens_per_frame = STEPS_PER_FRAME * (before + after + 1) * (layers + 1)
        self.requires_grad_(False).eval()

    def _encode_window(self, mel: torch.Tensor) -> torch.Tensor:
        """(mels, <= 2 * context) -> (steps, layers + 1, width) of the steps that have sound."""
        encoder = self.encoder
        context = encoder.config.max_source_positions
        steps = mel.shape[1] // 2
        mel = torch.nn.functional.pad(mel, (0, 2 * context - mel.shape[1]))[None]
        hidden = torch.nn.functional.gelu(encoder.conv1(mel.to(encoder.conv1.weight.dtype)))
        hidden = torch.nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight
        outputs = [hidden]
        for layer in encoder.layers:
            hidden = layer(hidden, None)
            outputs.append(hidden)
        return torch.stack(outputs, dim=2)[0, :steps].float()

    @torch.no_grad()
    def features(self, wave: Audio) -> torch.Tensor:
        """All layers' outputs over a whole recording.

        Args:
            wave: (samples,) mono at 16 kHz in [-1, 1], at least 20 ms.

        Returns:
            (steps, layers + 1, width) float32 on the encoder's device, 50 steps per second.

        Raises:
            ValueError: there is less than one step of sound.
        """
        if len(wave) < 2 * _HOP:
            raise ValueError(f"Whisper needs at least {2 * _HOP} samples, got {len(wave)}")
        device = self.encoder.conv1.weight.device
        mel = log_mel(as_wave(wave).to(device), self.encoder.config.num_mel_bins)
        context, total = self.encoder.config.max_source_positions, mel.shape[1] // 2
        if self.exact:
            parts = [self._encode_window(part) for part in mel.split(2 * context, dim=1)]
            return torch.cat(parts)
        overlap = min(OVERLAP_STEPS, context // 2)
        return encode_in_windows(
            lambda start, _: self._encode_window(mel[:, 2 * start : 2 * (start + context)]),
            total,
            context,
            overlap,
            FADE_STEPS,
        )

    def frame_tokens(self, features: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """The tokens of some video frames.

        Args:
            features: (steps, layers + 1, width).
            frames: (n,) integer indices at 25 fps.

        Returns:
            (n, tokens_per_frame, width), steps outer, layers inner; steps outside the
            recording repeat its first or last one.
        """
        reach = torch.arange(-STEPS_PER_FRAME * self.before, STEPS_PER_FRAME * (self.after + 1))
        steps = frames.to("cpu")[:, None] * STEPS_PER_FRAME + reach
        steps = steps.clamp(0, len(features) - 1).to(features.device)
        return features[steps].flatten(1, 2)

    def num_frames(self, features: torch.Tensor) -> int:
        """Video frames that the reference counts for these features."""
        return len(features) // STEPS_PER_FRAME + 2

    @torch.no_grad()
    def encode(self, wave: Audio, num_frames: int) -> torch.Tensor:
        """Tokens of the first `num_frames` video frames at 25 fps.

        By default the sound is cut or filled with silence to the length of the video, so
        that every frame has its own features; `exact` leaves it as it is.

        Returns:
            (num_frames, tokens_per_frame, width) float32 on the encoder's device.
        """
        wave = as_wave(wave)
        if not self.exact:
            samples = max(num_frames, 1) * SAMPLES_PER_FRAME
            wave = torch.nn.functional.pad(wave[:samples], (0, max(0, samples - len(wave))))
        return self.frame_tokens(self.features(wave), torch.arange(num_frames))

    @classmethod
    def from_file(cls, path: Path, **options: Any) -> "WhisperTokens":
        """The encoder of OpenAI's `tiny.pt` or of a Hugging Face folder.

        Args:
            path: a file `{"dims", "model_state_dict"}` or a folder with `config.json` and
                `model.safetensors`.
            options: `before`, `after`, `exact`.

        Raises:
            ModelFileError: the path is neither.
        """
        path = Path(path)
        sizes, weights = read_folder(path) if path.is_dir() else read_openai(path)
        network = cls(**sizes, **options)
        weights.setdefault(
            "embed_positions.weight", network.encoder.state_dict()["embed_positions.weight"]
        )
        load_weights(network.encoder, weights, path)
        return network.requires_grad_(False).eval()
