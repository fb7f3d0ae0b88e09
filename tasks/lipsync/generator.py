"""New lips for a stream of aligned faces: windows that overlap, so that no seam shows, or a chain.

Frames come and go one by one; only one window is ever held. Each window starts from the
same noise (LatentSync, section 3.1), and frames that two windows share are cross-faded. A model
that is shown an earlier frame paints windows that do not overlap, as a chain (SyncDiff's variant).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.errors import UserError
from datasets.media import FPS
from models.audio.windows import window_starts
from models.latentsync.chain import PoseChain
from models.latentsync.diffusion import DDIM, MAX_STEPS, SAMPLERS
from models.latentsync.model import LatentSync
from tasks.lipsync.chain import ChainMemory, Link
from tasks.lipsync.references import References, check_reference
from tasks.lipsync.speech_tokens import SpeechTokens
from tasks.runtime.device import resolve_device
from tasks.weights.adapter import apply_adapter

OVERLAP = 4
"""Frames that neighbouring windows share."""
MAX_GUIDANCE, MAX_REUSE = 20.0, 10
REACH = 8
"""Frames over which the rate of a video is measured."""


def interleaved(times_s: np.ndarray) -> int:
    """How many sequences frames are dealt into so that those of one lie about 40 ms apart, the
    rate that motion modules were trained at: 1 up to 37 fps, 2 for 50 and 60.

    Args:
        times_s: (n,) when the frames are shown.
    """
    # Over several frames at once, since some cameras deliver theirs in bursts.
    reach = min(len(times_s) - 1, REACH)
    if reach < 1:
        return 1
    gap = float(np.median(times_s[reach:] - times_s[:-reach])) / reach
    return max(1, round(1 / (FPS * gap)))


def check_sampling(steps: int, guidance: float, sampler: str = DDIM, reuse: int = 1) -> None:
    """Raise a `UserError` where no sampler works with these."""
    if sampler not in SAMPLERS:
        raise UserError(f"--sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    if not 1 <= steps <= MAX_STEPS:
        raise UserError(f"--steps must be between 1 and {MAX_STEPS}, got {steps}")
    if not 1.0 <= guidance <= MAX_GUIDANCE:
        raise UserError(f"--guidance must be between 1 and {MAX_GUIDANCE:g}, got {guidance}")
    if not 1 <= reuse <= MAX_REUSE:
        raise UserError(f"--reuse must be between 1 and {MAX_REUSE}, got {reuse}")


class FaceGenerator:
    """A trained bundle that repaints aligned faces.

    Args:
        bundle: folder that training wrote.
        device: cpu, cuda, cuda:N or mps.
        steps: sampler steps, at most 500.
        guidance: weight of the audio against no audio; 1 turns guidance off.
        seed: seed of the noise.
        bf16: run the networks in bf16; None means if the device is made for it.
        reference: see `tasks.lipsync.references`; empty means the bundle's own.
        adapter: an adapter for this bundle, see `tasks.weights.adapter`.
        sampler: one of `models.latentsync.diffusion.SAMPLERS`.
        reuse: every how manieth step runs all of the U-Net, see `models.unet.deep`.

    Raises:
        UserError: the device does not exist, an option is out of range, or the adapter is for
            another bundle.
        ModelFileError: the bundle is damaged.
    """

    chained = False
    """Windows do not overlap: each is shown a frame that was painted before it."""

    def __init__(
        self,
        bundle: Path,
        device: str = "cpu",
        steps: int = 20,
        guidance: float = 1.5,
        seed: int = 1247,
        bf16: bool | None = None,
        reference: str = "",
        adapter: Path | None = None,
        sampler: str = DDIM,
        reuse: int = 1,
    ) -> None:
        if reference:
            check_reference(reference)
        check_sampling(steps, guidance, sampler, reuse)
        self.device = resolve_device(device)
        self.model: Any = LatentSync.load(bundle, self.device).eval()
        if adapter is not None:
            apply_adapter(self.model, bundle, adapter)
        self.resolution: int = self.model.config.resolution
        self.num_frames: int = self.model.config.num_frames
        self.chained = self.model.config.pose is not None
        self.region: np.ndarray = self.model.alpha[0, 0].cpu().numpy()
        self.steps, self.guidance, self.seed, self.bf16 = steps, guidance, seed, bf16
        self.sampler, self.reuse = sampler, reuse
        self.reference: str = reference or self.model.config.reference

    def tuned(
        self,
        steps: int,
        guidance: float,
        seed: int,
        reference: str = "",
        sampler: str = DDIM,
        reuse: int = 1,
    ) -> "FaceGenerator":
        """One with the same networks and other settings; empty: the model's own reference.

        Raises:
            UserError: an option is out of range.
        """
        check_sampling(steps, guidance, sampler, reuse)
        if reference:
            check_reference(reference)
        other = copy(self)
        other.steps, other.guidance, other.seed = steps, guidance, seed
        other.sampler, other.reuse = sampler, reuse
        other.reference = reference or self.model.config.reference
        return other

    def speech(self, audio: np.ndarray) -> SpeechTokens:
        """Encode a recording, float32 (samples,) mono at 16 kHz."""
        return SpeechTokens(self._tokens, audio)

    @torch.inference_mode()
    def _tokens(self, wave: np.ndarray, count: int) -> Tensor:
        tokens: Tensor = self.model.tokens(torch.from_numpy(wave).to(self.device), count)
        return tokens

    def window(self, faces: np.ndarray, references: np.ndarray, tokens: Tensor) -> np.ndarray:
        """Repaint one window.

        Args:
            faces: uint8 (f, R, R, 3), f frames of the model's window.
            references: the same shape; shows who the person is.
            tokens: (f, n, width).

        Returns:
            float32 (f, R, R, 3), 0 to 255.
        """
        return self.paint_windows(faces[None], references[None], tokens[None])[0]

    @torch.inference_mode()
    def paint_windows(
        self, faces: np.ndarray, references: np.ndarray, tokens: Tensor
    ) -> np.ndarray:
        """Repaint several windows at once; up to rounding, each as `window` does.

        Args:
            faces: uint8 (b, f, R, R, 3).
            references: the same shape.
            tokens: (b, f, n, width).

        Returns:
            float32 (b, f, R, R, 3), 0 to 255.
        """
        return self._painted(self.model.generate, faces, references, tokens)

    @torch.inference_mode()
    def window_after(
        self, past: Sequence[Tensor], faces: np.ndarray, references: np.ndarray, tokens: Tensor
    ) -> tuple[np.ndarray, tuple[Tensor, ...]]:
        """Repaint one window of a chain.

        Args:
            past: latents (1, c, r, r) of the frames painted before it, oldest first; empty at the
                beginning of a shot.
            faces, references, tokens: as for `window`.

        Returns:
            What `window` returns, and `past` for the next window.
        """
        (found,) = self.windows_after([past], faces[None], references[None], tokens[None])
        return found

    @torch.inference_mode()
    def windows_after(
        self,
        pasts: Sequence[Sequence[Tensor]],
        faces: np.ndarray,
        references: np.ndarray,
        tokens: Tensor,
    ) -> list[tuple[np.ndarray, tuple[Tensor, ...]]]:
        """Repaint the next windows of several chains at once; up to rounding, each as
        `window_after` does.

        Args:
            pasts: of each chain.
            faces, references, tokens: as for `paint_windows`.
        """
        found: dict[int, tuple[np.ndarray, tuple[Tensor, ...]]] = {}
        # Chains that have just begun are shown no frame.
        for known in {len(past) for past in pasts}:
            chosen = [number for number, past in enumerate(pasts) if len(past) == known]
            shown = zip(*(pasts[number] for number in chosen), strict=True)
            chain = PoseChain(self.model, [torch.cat(each) for each in shown])
            painted = self._painted(chain.paint, faces[chosen], references[chosen], tokens[chosen])
            handed_on = zip(*(each.split(1) for each in chain.past), strict=True)
            found |= zip(chosen, zip(painted, handed_on, strict=True), strict=True)
        return [found[number] for number in range(len(pasts))]

    def _painted(
        self,
        paint: Callable[..., Tensor],
        faces: np.ndarray,
        references: np.ndarray,
        tokens: Tensor,
    ) -> np.ndarray:
        # The same noise for every window, so that neighbours agree where they overlap.
        generator = torch.Generator("cpu").manual_seed(self.seed)
        shape = (1, self.model.config.latent_channels, 1, *self.model.latent_mask.shape[-2:])
        painted = paint(
            self._pixels(faces),
            self._pixels(references),
            tokens.to(self.device),
            steps=self.steps,
            guidance=self.guidance,
            sampler=self.sampler,
            reuse=self.reuse,
            noise=torch.randn(shape, generator=generator),
            bf16=self.bf16,
        )
        values = (painted.float().clamp(-1, 1) + 1) * 127.5
        return np.asarray(values.permute(0, 1, 3, 4, 2).cpu().numpy())

    def _pixels(self, faces: np.ndarray) -> Tensor:
        """uint8 (b, f, R, R, 3) -> (b, f, 3, R, R) in [-1, 1]."""
        tensor = torch.from_numpy(np.ascontiguousarray(faces)).to(self.device)
        return tensor.permute(0, 1, 4, 2, 3).float() / 127.5 - 1

    def first_needed(
        self, times_s: np.ndarray, begin: int, memory: ChainMemory | None = None
    ) -> int:
        """Position of the first face that `stream` takes to begin its output at `begin`.

        A chain that is not remembered there is painted again from its beginning.
        """
        count = len(times_s)
        ways = _ways(times_s)
        needed = [
            way + ways * self._begins(count, ways, way, begin, memory)
            for way in range(ways)
            if _done(ways, way, begin) < _dealt(count, ways, way)
        ]
        return min(needed, default=begin)

    def _begins(
        self, count: int, ways: int, way: int, begin: int, memory: ChainMemory | None
    ) -> int:
        """Position within a sequence from which on it must be painted to go on at `begin`."""
        if self.chained:
            return (memory or ChainMemory()).link(way, _done(ways, way, begin)).done
        return self._starts_at(count, ways, way, begin)[1]

    def _starts_at(self, count: int, ways: int, way: int, begin: int) -> tuple[int, int]:
        """Number of the first window of a sequence that must be painted to go on at `begin`, and
        the position within the sequence where that window begins.

        These are all windows that hold a wanted frame, since each fades into the next.
        """
        starts = window_starts(_dealt(count, ways, way), self.num_frames, OVERLAP)
        wanted = _done(ways, way, begin) - self.num_frames
        first = min(int(np.searchsorted(starts, wanted, side="right")), len(starts) - 1)
        return first, starts[first]

    def stream(
        self,
        faces: Iterable[np.ndarray],
        times_s: np.ndarray,
        speech: SpeechTokens,
        references: References | None = None,
        begin: int = 0,
        memory: ChainMemory | None = None,
    ) -> Iterator[np.ndarray]:
        """Repaint consecutive faces of one shot.

        Faces of fast video are dealt into sequences of about 25 per second (`interleaved`), which
        share their noise, while each hears its own moments.

        Args:
            faces: aligned faces, uint8 (R, R, 3), taken as they are needed: from position
                `first_needed` on, so all of them if `begin` is 0.
            times_s: when each is shown, in seconds of the speech, including faces not given.
            speech: the audio tokens of the speech.
            references: gives the reference window, uint8 (f, R, R, 3), for the window of faces
                at these positions; None takes the faces themselves.
            begin: position of the first face wanted. It does not change the faces that are yielded.
            memory: where the shot's chains stand, kept up to date with every face that is yielded;
                of use only to a model that is shown earlier frames.

        Yields:
            uint8 (R, R, 3), from `begin` on, at most one window of each sequence behind the input.
        """
        count = len(times_s)
        ways = _ways(times_s)
        memory = memory or ChainMemory()
        source, taken = iter(faces), self.first_needed(times_s, begin, memory)
        first = taken
        waiting: list[deque[np.ndarray]] = [deque() for _ in range(ways)]

        def dealt(way: int) -> Iterator[np.ndarray]:
            nonlocal taken
            while True:
                while not waiting[way]:
                    try:
                        face = next(source)
                    except StopIteration:
                        return
                    waiting[taken % ways].append(face)
                    taken += 1
                yield waiting[way].popleft()

        streams = []
        for way in range(ways):
            start = self._begins(count, ways, way, begin, memory)
            # Faces that other sequences need come along.
            unneeded = max(0, start - _done(ways, way, first))
            mine = islice(dealt(way), unneeded, None)
            positions = np.arange(way, count, ways)
            skip = _done(ways, way, begin)
            if self.chained:
                links = memory.links
                links[way] = memory.link(way, skip)
                streams.append(
                    self._chain(mine, positions, times_s, speech, references, links, way, skip)
                )
                continue
            number, _ = self._starts_at(count, ways, way, begin)
            streams.append(
                self._windows(mine, positions, times_s, speech, references, number, skip)
            )
        for position in range(begin, count):
            yield next(streams[position % ways])

    def _windows(
        self,
        faces: Iterator[np.ndarray],
        positions: np.ndarray,
        times_s: np.ndarray,
        speech: SpeechTokens,
        references: References | None,
        first: int,
        skip: int,
    ) -> Iterator[np.ndarray]:
        """Repaint the faces at `positions` of a shot from window `first` on; faces
        before `skip` are not yielded. The other arguments are those of `stream`."""
        count, length = len(positions), self.num_frames
        starts = window_starts(count, length, OVERLAP)
        held: deque[np.ndarray] = deque()
        first_held = starts[first]
        before = np.empty(0)
        for number, start in enumerate(starts[first:], first):
            for _ in range(start - first_held):
                held.popleft()
            first_held = start
            held.extend(islice(faces, min(start + length, count) - first_held - len(held)))
            # A shot shorter than a window stands still at its end.
            index = np.minimum(np.arange(length), len(held) - 1)
            window = np.stack(held)[index]
            here = positions[start + index]
            shown = window if references is None else references(here)
            painted = self.window(window, shown, speech.at(times_s[here]))
            shared = starts[number - 1] + length - start if number > first else 0
            if shared:
                weight = (np.arange(shared) + 1.0)[:, None, None, None] / (shared + 1)
                old = before[length - shared :]
                painted[:shared] = (1 - weight) * old + weight * painted[:shared]
            before = painted
            end = starts[number + 1] if number + 1 < len(starts) else count
            yield from np.rint(painted[max(0, skip - start) : end - start]).astype(np.uint8)

    def _chain(
        self,
        faces: Iterator[np.ndarray],
        positions: np.ndarray,
        times_s: np.ndarray,
        speech: SpeechTokens,
        references: References | None,
        links: dict[int, Link],
        way: int,
        skip: int,
    ) -> Iterator[np.ndarray]:
        """Repaint the faces at `positions` of a shot as a chain, from where its link stands on;
        faces before `skip` are not yielded. The other arguments are those of `stream`."""
        count, length = len(positions), self.num_frames
        past = links[way].past
        for start in range(links[way].done, count, length):
            held = list(islice(faces, min(length, count - start)))
            # A shot that ends within a window stands still there.
            index = np.minimum(np.arange(length), len(held) - 1)
            window = np.stack(held)[index]
            here = positions[start + index]
            shown = window if references is None else references(here)
            painted, past = self.window_after(past, window, shown, speech.at(times_s[here]))
            pictures = np.rint(painted[: len(held)]).astype(np.uint8)
            for number, picture in enumerate(pictures, start):
                if number == start + len(held) - 1:
                    links[way] = Link(start + length, past)
                if number >= skip:
                    yield picture


def _ways(times_s: np.ndarray) -> int:
    """Number of sequences of a stretch: no more than it has frames."""
    return min(interleaved(times_s), max(1, len(times_s)))


def _dealt(count: int, ways: int, way: int) -> int:
    """How many of `count` frames belong to a sequence."""
    return len(range(way, count, ways))


def _done(ways: int, way: int, begin: int) -> int:
    """How many frames of a sequence lie before position `begin`."""
    return len(range(way, begin, ways))
