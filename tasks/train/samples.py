"""Videos of what a U-Net makes while it is trained, always of the same held-out clips.

Each shows the clip, the clip repainted with its own speech, and with another clip's, side by side
with the latter's sound. So a person sees whether lips move with the sound long before a bundle can
be evaluated.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from datasets.media import SAMPLE_RATE, SAMPLES_PER_FRAME, VideoWriter, write_flac
from datasets.shards.clip_content import ClipContent
from datasets.shards.clips import ClipStore
from models.audio.mel import FPS, mel_spectrogram, mel_window
from models.latentsync.chain import PoseChain
from models.latentsync.model import LatentSync
from tasks.sync.network_files import LoadedSyncNet
from tasks.train.pixel_losses import sync_loss

FOLDER = "samples"
"""In a stage's folder."""
CLIPS = 2
WINDOWS = 3
"""Most windows of each clip, one after the other."""
CHAIN_FRAMES = 24
"""Frames of each clip of a model that paints a chain of short windows,"""
AWAY = 16
"""and the least frames from one of them to the one that shows who it is, as in training."""
STEPS = 8
"""Of the sampler."""
GUIDANCE = 1.5
CRF = 20


@dataclass(frozen=True)
class _Speech:
    sound: np.ndarray
    """(frames * 640,)."""
    tokens: Tensor
    """(frames, n, width)."""
    mel: Tensor
    """(80, columns)."""


class Samples:
    """Makes the videos of one stage.

    Args:
        model: whose U-Net learns.
        clips: held-out clips; the first that have two windows at least are shown.
        folder: where `step-000100-CLIP.mp4` are written.
        syncnet: judges the mouths where it has the model's window; None: nothing is judged.
    """

    def __init__(
        self, model: LatentSync, clips: ClipStore, folder: Path, syncnet: LoadedSyncNet | None
    ) -> None:
        self.model, self.folder = model, folder
        size = model.config.num_frames
        self.chained = model.config.pose is not None
        self.away = max(size, AWAY) if self.chained else size
        long = [clip for clip in clips.clips if clip.num_frames >= size + self.away]
        # Of different speakers first, so that the speech is another person's.
        by_speaker = {clip.speaker: clip for clip in reversed(long)}
        rest = [clip for clip in long if clip not in by_speaker.values()]
        chosen = [*reversed(by_speaker.values()), *rest][:CLIPS]
        self.contents = [clips.content(clip.clip_id) for clip in chosen]
        shortest = min((clip.num_frames for clip in chosen), default=0)
        most = max(1, CHAIN_FRAMES // size) if self.chained else WINDOWS
        self.frames = size * min(most, (shortest - self.away) // size)
        fits = syncnet is not None and syncnet.config.num_frames == size
        self.syncnet = syncnet if fits else None

    def write(self, step: int) -> dict[str, float]:
        """Write the videos of a step; the network computes as it does when it is used.

        Returns:
            sample_sync_own and sample_sync_foreign: the sync network's loss on what was made; fewer
            where it cannot be told.
        """
        self.model.unet.eval()
        scores: dict[str, list[float]] = {}
        heard = [self._speech(content) for content in self.contents]
        for number, content in enumerate(self.contents):
            pictures = content.frames(np.arange(self.frames + self.away))
            columns = [pictures[: self.frames]]
            other = heard[(number + 1) % len(heard)]
            kinds = {"own": heard[number], "foreign": other}
            if len(heard) == 1:
                kinds.pop("foreign")
            for kind, speech in kinds.items():
                made, losses = self._repainted(pictures, speech)
                columns.append(made)
                scores.setdefault(kind, []).extend(losses)
            path = self.folder / f"step-{step:06d}-{number}.mp4"
            _write(path, np.concatenate(columns, axis=2), [*kinds.values()][-1].sound)
        return {
            f"sample_sync_{kind}": float(np.mean(losses))
            for kind, losses in scores.items()
            if losses
        }

    @torch.no_grad()
    def _speech(self, content: ClipContent) -> _Speech:
        sound = content.audio()[: self.frames * SAMPLES_PER_FRAME]
        audio = torch.from_numpy(np.ascontiguousarray(sound)).to(self.model.device)
        return _Speech(sound, self.model.tokens(audio, self.frames), mel_spectrogram(sound))

    @torch.no_grad()
    def _repainted(self, pictures: np.ndarray, speech: _Speech) -> tuple[np.ndarray, list[float]]:
        """uint8 (frames, R, R, 3), and the sync loss of each window."""
        size, made, losses = self.model.config.num_frames, [], []
        paint = PoseChain(self.model).paint if self.chained else self.model.generate
        for first in range(0, self.frames, size):
            window = slice(first, first + size)
            # A later window shows who it is, as another moment does in training.
            source = self._pixels(pictures[window])
            reference = self._pixels(pictures[first + self.away : first + self.away + size])
            generator = torch.Generator("cpu").manual_seed(0)
            painted = paint(
                source,
                reference,
                speech.tokens[window][None],
                steps=STEPS,
                guidance=GUIDANCE,
                generator=generator,
            ).float()
            if self.syncnet is not None:
                mel = mel_window(speech.mel, first)[None, None].to(painted.device)
                losses.append(float(sync_loss(self.syncnet, painted, mel)))
            values = ((painted[0].clamp(-1, 1) + 1) * 127.5).round()
            made.append(values.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy())
        return np.concatenate(made), losses

    def _pixels(self, pictures: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(pictures).to(self.model.device)
        return tensor.permute(0, 3, 1, 2).float()[None] / 127.5 - 1


def _write(path: Path, pictures: np.ndarray, sound: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        write_flac(Path(folder) / "speech.flac", sound, SAMPLE_RATE)
        height, width = pictures.shape[1:3]
        with VideoWriter(
            path, width, height, float(FPS), crf=CRF, audio=Path(folder) / "speech.flac"
        ) as writer:
            for picture in pictures:
                writer.write(picture)
