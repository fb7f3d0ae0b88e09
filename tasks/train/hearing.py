"""An audio encoder whose last blocks learn along with the U-Net (SyncDiff, arXiv 2503.13371).

The blocks before them give the same for a clip in every step, so their output is computed once,
kept in the run's folder, and only the last blocks run with gradient: once for each clip of a batch,
however many of its frames were drawn. It lies in the run's folder and not with the shards, since a
published dataset is never written to, and may be an address.
"""

from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from datasets.errors import UserError
from datasets.media import SAMPLES_PER_FRAME
from datasets.store.atomic import write_atomic
from datasets.store.manifest import config_digest
from models.audio.avhubert_tokens import AVHubertTokens
from models.files.errors import ModelFileError
from models.latentsync.model import LatentSync
from tasks.recipes.config import Recipe, UNetConfig
from tasks.train.tokens import Heard, Hearing, TokenCache

KEPT = "hearing"
"""Folder of what the frozen blocks gave, in a run's."""
UNET, AUDIO = "unet.", "audio_encoder."
"""Beginnings of names in the checkpoints of a stage in which both learn."""


def check_hearing(recipe: Recipe, name: str) -> None:
    """Check that the blocks that a stage wants to train are there, before days of training.

    Raises:
        UserError: they are not, or weights are to be shared out.
    """
    config = recipe.stage(name)
    if not isinstance(config, UNetConfig) or not config.audio_blocks:
        return
    given = f"{name}.audio_blocks={config.audio_blocks}"
    if recipe.model.audio != "avhubert":
        raise UserError(
            f"{given} trains blocks of AV-HuBERT's encoder, but the model hears by "
            f"{recipe.model.audio}: set model.audio=avhubert, or {name}.audio_blocks=0"
        )
    options = recipe.model.audio_encoder
    blocks = int(options.get("layer") or options.get("layers", 12))
    if not 0 <= config.audio_blocks <= blocks:
        raise UserError(
            f"{given} is not possible: the encoder has {blocks} blocks, so give 0 to {blocks}"
        )
    if config.parallel != "ddp":
        raise UserError(
            f"{name}.parallel={config.parallel} shares out the U-Net alone: {given} needs "
            f"{name}.parallel=ddp"
        )


class Learners(nn.Module):
    """The U-Net, and the last blocks of the audio encoder: what learns, and no more of the encoder,
    so that checkpoints do not hold what is in its file.

    Args:
        unet: the U-Net.
        encoder: the encoder; its last blocks are made to learn.
        blocks: how many.
    """

    def __init__(self, unet: nn.Module, encoder: AVHubertTokens, blocks: int) -> None:
        super().__init__()
        self.unet = unet
        self.audio_encoder = nn.Module()
        for name, weight in encoder.learning(blocks).items():
            weight.requires_grad_(True)
            _place(self.audio_encoder, name, weight)

    def train(self, mode: bool = True) -> Self:
        """The U-Net alone: the encoder always computes as it does when it is used."""
        self.unet.train(mode)
        self.training = mode
        return self


def _place(owner: nn.Module, name: str, weight: nn.Parameter) -> None:
    """Give a weight its dotted name in an empty module."""
    first, _, rest = name.partition(".")
    if not rest:
        owner.register_parameter(first, weight)
        return
    if not hasattr(owner, first):
        owner.add_module(first, nn.Module())
    _place(getattr(owner, first), rest, weight)


def part_of(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """What a stage hands on of the U-Net (`UNET`) or of the audio encoder (`AUDIO`).

    Args:
        weights: of its checkpoint, whether the encoder learned in it or not.
    """
    if not any(name.startswith(AUDIO) for name in weights):
        return weights if part == UNET else {}
    found = {name: value for name, value in weights.items() if name.startswith(part)}
    return {name.removeprefix(part): value for name, value in found.items()}


def load_hearing(model: LatentSync, weights: dict[str, Tensor], where: str) -> None:
    """Load the blocks of the audio encoder that a stage has trained, if it has.

    Args:
        weights: of its checkpoint.
        where: its folder, for messages.

    Raises:
        ModelFileError: the encoder has other blocks.
    """
    learned = part_of(weights, AUDIO)
    own = model.audio_encoder.state_dict() if learned else {}  # type: ignore[attr-defined]
    wrong = [
        key for key, value in learned.items() if key not in own or own[key].shape != value.shape
    ]
    if wrong:
        raise ModelFileError(
            f"the audio encoder in {where} has another size: {len(wrong)} weights do not fit, such "
            f"as {wrong[0]}"
        )
    if learned:
        model.audio_encoder.load_state_dict(learned, strict=False)  # type: ignore[attr-defined]


class LearnedTokens(TokenCache):
    """Audio tokens with the gradient of the encoder's last blocks.

    Args:
        encoder: of which the last `blocks` blocks learn.
        blocks: how many.
        folder: where the output of the others is kept, in half precision: 230 kB for 6 s of the
            base encoder's.
    """

    encoder: AVHubertTokens

    def __init__(self, encoder: AVHubertTokens, blocks: int, folder: Path) -> None:
        super().__init__(encoder)
        self.blocks = blocks
        self.folder = folder / self._frozen_digest()

    def encode(self, heard: Hearing) -> Tensor:
        """Tokens (b, f, n, width) of a batch's windows, with gradient where it is kept."""
        whole: dict[str, Tensor] = {}
        with torch.autocast("cuda", enabled=False):
            return torch.stack([self._learned(each, whole) for each in heard.windows])

    def _learned(self, heard: Heard, whole: dict[str, Tensor]) -> Tensor:
        if not heard.clip_id:
            frames = heard.start + heard.num_frames
            first = self.encoder.first_blocks(heard.sound, frames, self.blocks)
            tokens = self._tokens(first, frames)
        elif heard.clip_id in whole:
            tokens = whole[heard.clip_id]
        else:
            frames = len(heard.sound) // SAMPLES_PER_FRAME
            tokens = self._tokens(self._first_blocks(heard.sound, frames), frames)
            whole[heard.clip_id] = tokens
        return self.of_window(tokens, heard)

    def _tokens(self, first: list[Tensor], frames: int) -> Tensor:
        return self.encoder.frame_tokens(self.encoder.last_blocks(first, frames, self.blocks))

    @torch.no_grad()
    def _first_blocks(self, sound: NDArray[np.float32], frames: int) -> list[Tensor]:
        """What the frozen blocks give for a clip: read back, or computed and kept."""
        path = (
            self.folder / f"{sha256(np.ascontiguousarray(sound).tobytes()).hexdigest()}.safetensors"
        )
        try:
            content = load(path.read_bytes())
            found = [content[str(number)] for number in range(len(content))]
        except (OSError, KeyError, SafetensorError):
            # Not there, or damaged: it is made again.
            made = self.encoder.first_blocks(sound, frames, self.blocks)
            found = [each.half().cpu().contiguous() for each in made]
            if not all(bool(each.isfinite().all()) for each in found):
                raise UserError(
                    "the audio encoder gives numbers beyond half precision, which are not "
                    "AV-HuBERT's: check the file that audio_weights names"
                ) from None
            write_atomic(path, save({str(number): each for number, each in enumerate(found)}))
        weight = self.encoder.proj.weight
        return [each.to(weight.device, weight.dtype) for each in found]

    def _frozen_digest(self) -> str:
        """Of the sizes and of all weights that do not learn."""
        learned = self.encoder.learning(self.blocks)
        hashed = sha256(config_digest({**self.encoder.sizes(), "blocks": self.blocks}).encode())
        for name, value in self.encoder.state_dict().items():
            if name not in learned:
                hashed.update(name.encode())
                hashed.update(value.detach().cpu().contiguous().numpy().tobytes())
        return hashed.hexdigest()[:16]
