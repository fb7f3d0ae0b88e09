"""AV-HuBERT's speech features as the audio condition of the U-Net (arXiv 2201.02184).

A self-supervised encoder of lips and sound, of which only the sound is used: one token per video
frame. The transformer is transformers' (HuBERT's); what is before it is here. Its weights allow
non-commercial research only, also of what is made with them: `LICENCE` is shown before they are
used, and stays with every model that was trained through them.

SyncDiff (arXiv 2503.13371) conditions on these tokens. How many of them each frame attends to is
not public: here its own and those of some neighbours, each with a code of its place.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.audio.avhubert_files import AVHubertSizes, read_avhubert
from models.audio.mel import Audio, as_wave
from models.audio.mfcc import log_filter_banks
from models.audio.windows import encode_in_windows, window_starts
from models.files.errors import ModelFileError
from models.files.state_dict import load_weights

BANKS = 26
STACKED = 4
"""Rows of filter banks, 100 per second, that make one video frame."""
FEATURES = BANKS * STACKED
EPS = 1e-5
WINDOW_FRAMES = 400
"""Longest that the encoder saw when it was trained: 16 s."""
OVERLAP_FRAMES = 100
"""Frames that neighbouring windows share, so that each has 2 s of sound around what is used."""
FADE_FRAMES = 4
"""Frames over which one window fades into the next: a mean of two is a token of neither."""


def avhubert_features(wave: Audio, num_frames: int | None = None) -> torch.Tensor:
    """The encoder's input: four rows of log filter banks per video frame, oldest first.

    Args:
        wave: (samples,) mono at 16 kHz, int16 or floats in [-1, 1].
        num_frames: video frames; zeros follow where the sound is shorter, and what is longer is
            cut. None: as many as the sound has.

    Returns:
        (frames, 104) float32 at 25 fps, not normalised. Frame i is of samples 640 i to 640 i + 880.
    """
    rows = log_filter_banks(wave).float()
    count = -(-len(rows) // STACKED)
    stacked = F.pad(rows, (0, 0, 0, count * STACKED - len(rows))).reshape(count, FEATURES)
    frames = count if num_frames is None else num_frames
    return F.pad(stacked[:frames], (0, 0, 0, max(0, frames - count)))


def place_codes(count: int, width: int) -> torch.Tensor:
    """A code (count, width) for each place among neighbours: cosines of different frequencies,
    orthogonal and of mean square 1, so that attention can tell places whatever is said there.

    Zeros where there is only one place.
    """
    if count == 1:
        return torch.zeros(1, width)
    frequency = torch.arange(1, count + 1, dtype=torch.float64)[:, None]
    position = torch.arange(width, dtype=torch.float64) + 0.5
    return (math.sqrt(2) * torch.cos(math.pi * frequency * position / width)).float()


class AVHubertTokens(nn.Module):
    """Features of each video frame and of its neighbours from AV-HuBERT's encoder of sound.

    Args:
        width: channels of the encoder.
        layers: its blocks.
        heads: attention heads.
        inner: width of its feed-forward layers.
        positions: kernel of the convolution that tells positions.
        position_groups: groups of that convolution.
        pre_norm: norms before attention and feed-forward, as in the published files; otherwise
            after them. The weights' names do not tell: a file's own configuration does.
        normalize: each frame's features are normalised, as in the published files.
        neighbours: tokens on either side of a frame's own: 2 give 5 tokens.
        layer: use the output of this block, counted from 1, without the final norm; 0 uses all
            blocks and, with `pre_norm`, the final norm.
        exact: take a recording whole, however long, instead of in windows of 16 s.

    Raises:
        ValueError: the sizes contradict each other.
    """

    codes: torch.Tensor

    def __init__(
        self,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        inner: int = 3072,
        positions: int = 128,
        position_groups: int = 16,
        pre_norm: bool = True,
        normalize: bool = True,
        neighbours: int = 2,
        layer: int = 0,
        exact: bool = False,
    ) -> None:
        from transformers.models.hubert.modeling_hubert import (
            HubertConfig,
            HubertEncoder,
            HubertEncoderStableLayerNorm,
        )

        super().__init__()
        if width % heads or width % position_groups:
            raise ValueError(
                f"width {width} must be a multiple of heads {heads} and of position_groups "
                f"{position_groups}"
            )
        if not 0 <= layer <= layers:
            raise ValueError(f"layer must be between 0 and {layers}, got {layer}")
        if neighbours < 0:
            raise ValueError(f"neighbours must not be negative, got {neighbours}")
        config = HubertConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=inner,
            num_conv_pos_embeddings=positions,
            num_conv_pos_embedding_groups=position_groups,
            hidden_act="gelu",
            feat_extract_activation="gelu",
            layer_norm_eps=EPS,
        )
        # An encoder on its own warns if nobody has chosen.
        config._attn_implementation = "sdpa"
        self.proj = nn.Linear(FEATURES, width)
        self.norm = nn.LayerNorm(2 * width, eps=EPS)
        self.merge = nn.Linear(2 * width, width)
        self.encoder = (HubertEncoderStableLayerNorm if pre_norm else HubertEncoder)(config)
        self.width, self.neighbours, self.layer = width, neighbours, layer
        self.pre_norm, self.normalize, self.exact = pre_norm, normalize, exact
        self.tokens_per_frame = 2 * neighbours + 1
        codes = place_codes(self.tokens_per_frame, width)
        self.register_buffer("codes", codes, persistent=False)
        self.requires_grad_(False).eval()

    def blocks(self, features: torch.Tensor) -> list[torch.Tensor]:
        """The output of each block that is needed, without the final norm.

        Args:
            features: (frames, 104) of `avhubert_features`.

        Returns:
            Each (frames, width), in order; the last is that of `layer`.
        """
        hidden, outputs = self._before_blocks(features), []
        for block in self.used:
            hidden = block(hidden[None])[0]
            outputs.append(hidden)
        return outputs

    @property
    def used(self) -> list[nn.Module]:
        """The blocks that are needed, in order."""
        return list(self.encoder.layers[: self.layer or None])

    def _before_blocks(self, features: torch.Tensor) -> torch.Tensor:
        """(frames, 104) -> (frames, width)."""
        if self.normalize:
            features = F.layer_norm(features, features.shape[-1:], eps=EPS)
        sound = self.proj(features.to(self.proj.weight.dtype))
        # The lips that this encoder also knows are absent.
        hidden = self.merge(self.norm(torch.cat([sound, torch.zeros_like(sound)], dim=-1)))[None]
        hidden = hidden + self.encoder.pos_conv_embed(hidden)
        if not self.pre_norm:
            hidden = self.encoder.layer_norm(hidden)
        return hidden[0]

    @torch.no_grad()
    def outputs(self, wave: Audio, num_frames: int | None = None) -> torch.Tensor:
        """The encoder's output for each video frame at 25 fps.

        Args:
            wave: (samples,) mono at 16 kHz, int16 or floats in [-1, 1].
            num_frames: as in `avhubert_features`.

        Returns:
            (frames, width) float32 on the encoder's device.
        """
        features = avhubert_features(as_wave(wave).to(self.codes.device), num_frames)

        def encode(start: int, stop: int) -> torch.Tensor:
            return self._finished(self.blocks(features[start:stop])[-1])

        if self.exact:
            return encode(0, len(features))
        return encode_in_windows(encode, len(features), WINDOW_FRAMES, OVERLAP_FRAMES, FADE_FRAMES)

    def _finished(self, hidden: torch.Tensor) -> torch.Tensor:
        """The last block's output (frames, width) behind the norm, if there is one; float32."""
        if self.pre_norm and not self.layer:
            hidden = self.encoder.layer_norm(hidden)
        return hidden.float()

    @torch.no_grad()
    def first_blocks(self, wave: Audio, num_frames: int, learned: int) -> list[torch.Tensor]:
        """The output of the last block that does not learn, where the last `learned` ones do.

        Args:
            wave: (samples,) mono at 16 kHz in [-1, 1].
            num_frames: video frames at 25 fps.
            learned: how many blocks learn; all of them: what goes into the first.

        Returns:
            (frames, width) for each window of the recording, for `last_blocks`.
        """
        features = avhubert_features(as_wave(wave).to(self.codes.device), num_frames)
        found = []
        for start in self._starts(num_frames):
            # Each window on its own, as when nothing learns: the rest sees the very same.
            stop = num_frames if self.exact else start + WINDOW_FRAMES
            hidden = self._before_blocks(features[start:stop])
            for block in self.used[: len(self.used) - learned]:
                hidden = block(hidden[None])[0]
            found.append(hidden)
        return found

    def last_blocks(
        self, windows: list[torch.Tensor], num_frames: int, learned: int
    ) -> torch.Tensor:
        """The encoder's output from that of its first blocks, with gradient if it is kept.

        Args:
            windows: of `first_blocks`, made with the same numbers.
            num_frames: video frames at 25 fps.
            learned: how many blocks are left.

        Returns:
            (num_frames, width) float32.
        """
        starts = self._starts(num_frames)

        def encode(start: int, stop: int) -> torch.Tensor:
            hidden = windows[starts.index(start)]
            for block in self.used[len(self.used) - learned :]:
                hidden = block(hidden[None])[0]
            return self._finished(hidden)

        if self.exact:
            return encode(0, num_frames)
        return encode_in_windows(encode, num_frames, WINDOW_FRAMES, OVERLAP_FRAMES, FADE_FRAMES)

    def _starts(self, frames: int) -> list[int]:
        """Where windows begin."""
        return [0] if self.exact else window_starts(frames, WINDOW_FRAMES, OVERLAP_FRAMES)

    def learning(self, learned: int) -> dict[str, nn.Parameter]:
        """The weights of the last `learned` blocks, and of the norm behind them, by their names."""
        marks = [f"encoder.layers.{len(self.used) - 1 - back}." for back in range(learned)]
        if learned and self.pre_norm and not self.layer:
            marks.append("encoder.layer_norm.")
        return {
            name: weight
            for name, weight in self.named_parameters()
            if name.startswith(tuple(marks))
        }

    def frame_tokens(self, outputs: torch.Tensor) -> torch.Tensor:
        """Each frame's token among its neighbours, with the codes of their places.

        Args:
            outputs: (frames, width).

        Returns:
            (frames, tokens_per_frame, width), oldest first; beyond the ends the first or last
            frame is repeated.
        """
        frames = torch.arange(len(outputs), device=outputs.device)[:, None]
        reach = torch.arange(-self.neighbours, self.neighbours + 1, device=outputs.device)
        return outputs[(frames + reach).clamp(0, len(outputs) - 1)] + self.codes

    @torch.no_grad()
    def encode(self, wave: Audio, num_frames: int) -> torch.Tensor:
        """Tokens of the first `num_frames` video frames at 25 fps.

        Args:
            wave: (samples,) mono at 16 kHz in [-1, 1], of any length.

        Returns:
            (num_frames, tokens_per_frame, width) float32 on the encoder's device.
        """
        return self.frame_tokens(self.outputs(wave, num_frames))

    @classmethod
    def from_file(cls, path: Path, **options: Any) -> "AVHubertTokens":
        """The encoder of a published file, or of a folder that `write_avhubert` wrote.

        Args:
            path: the file, pre-trained or fine-tuned, or the folder.
            options: `neighbours`, `layer`, `exact`.

        Raises:
            ModelFileError: the path is neither.
        """
        path = Path(path)
        sizes, weights = read_avhubert(path)
        network = cls(**sizes, **options)
        load_weights(network, weights, path)
        return network.requires_grad_(False).eval()

    def sizes(self) -> AVHubertSizes:
        """What a file must agree with to be loaded into this encoder."""
        config = self.encoder.config
        return {
            "width": self.width,
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "inner": config.intermediate_size,
            "positions": config.num_conv_pos_embeddings,
            "position_groups": config.num_conv_pos_embedding_groups,
            "pre_norm": self.pre_norm,
            "normalize": self.normalize,
        }

    def load_file(self, path: Path) -> None:
        """Load a published encoder of the very sizes, norm order and heads of this one.

        Raises:
            ModelFileError: the file is none, or says something else.
        """
        sizes, weights = read_avhubert(Path(path))
        own = dict(self.sizes())
        other = [name for name, value in dict(sizes).items() if own[name] != value]
        if other:
            name = other[0]
            raise ModelFileError(
                f"model file {path} is an AV-HuBERT encoder with {name} {dict(sizes)[name]}, but "
                f"the recipe's audio encoder has {name} {own[name]}: set "
                f"model.audio_encoder.{name}, or give another file"
            )
        load_weights(self, weights, Path(path))
