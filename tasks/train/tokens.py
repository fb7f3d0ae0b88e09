"""The sound of windows on its way to tokens, which are made on the device that trains.

whisper-tiny takes half a second of a processor core for a clip of 10 s, more than all else of its
windows together, and its tokens are as large as the clip itself. So they are neither made by the
processes that read nor kept on a disk: the network that is trained is many times as large as this
encoder, and runs on the same device.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.media import SAMPLES_PER_FRAME
from models.audio.encoders import AudioEncoder

KEPT_BYTES = 256 << 20
"""Bytes of tokens of whole clips that are kept: a dozen clips of 10 s of Whisper's."""


@dataclass(frozen=True)
class Heard:
    """The sound that a window's tokens are made of."""

    sound: NDArray[np.float32]
    """(frames * 640,) at 16 kHz."""
    start: int
    """The window's first frame in it."""
    num_frames: int
    step: int
    """Every so many frames one is used."""
    clip_id: str = ""
    """The clip if the sound is all of it, unchanged; otherwise empty."""
    dropped: bool = False
    """Whether the tokens are zeros instead."""


@dataclass(frozen=True)
class Hearing:
    """The sound of a batch's windows."""

    windows: tuple[Heard, ...]

    @classmethod
    def of(cls, windows: Sequence[Heard]) -> "Hearing":
        """Of several windows; none is kept twice for the same clip."""
        known: dict[str, NDArray[np.float32]] = {}
        return cls(
            tuple(
                replace(each, sound=known.setdefault(each.clip_id, each.sound))
                if each.clip_id
                else each
                for each in windows
            )
        )

    def pin_memory(self) -> "Hearing":
        """Itself: sound is small."""
        return self


class TokenCache:
    """Audio tokens of windows; those of whole clips are kept where the sound is unchanged."""

    def __init__(self, encoder: AudioEncoder) -> None:
        self.encoder = encoder
        self.kept: OrderedDict[str, Tensor] = OrderedDict()
        self.bytes = 0

    @torch.no_grad()
    def encode(self, heard: Hearing) -> Tensor:
        """Tokens (b, f, n, width) of a batch's windows, on the encoder's device."""
        # The encoder is not trained, and what it gives is the same in every precision of a stage.
        with torch.autocast("cuda", enabled=False):
            return torch.stack([self._one(each) for each in heard.windows])

    def _one(self, heard: Heard) -> Tensor:
        if heard.clip_id:
            tokens = self._whole(heard.clip_id, heard.sound)
        else:
            tokens = self.encoder.encode(heard.sound, heard.start + heard.num_frames)
        return self.of_window(tokens, heard)

    @staticmethod
    def of_window(tokens: Tensor, heard: Heard) -> Tensor:
        """Those of a window (f, n, width) among those of its sound; zeros where it is dropped."""
        tokens = tokens[heard.start : heard.start + heard.num_frames : heard.step]
        return torch.zeros_like(tokens) if heard.dropped else tokens

    def _whole(self, clip_id: str, sound: NDArray[np.float32]) -> Tensor:
        """Tokens (f, n, width) of a clip, from which a window hears all that is around it."""
        if clip_id not in self.kept:
            tokens = self.encoder.encode(sound, len(sound) // SAMPLES_PER_FRAME)
            self.kept[clip_id] = tokens
            self.bytes += tokens.nbytes
            while self.bytes > KEPT_BYTES and len(self.kept) > 1:
                self.bytes -= self.kept.popitem(last=False)[1].nbytes
        self.kept.move_to_end(clip_id)
        return self.kept[clip_id]
