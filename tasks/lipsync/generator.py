"""New lips for a stream of aligned faces: windows that overlap, so that no seam shows.

Frames come and go one by one; only one window is ever held. Each window starts from the
same noise (LatentSync, section 3.1), and frames that two windows share are cross-faded.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.errors import UserError
from datasets.media import FPS, SAMPLES_PER_FRAME
from models.audio.windows import window_starts
from models.latentsync.diffusion import MAX_STEPS
from models.latentsync.model import LatentSync
from tasks.lipsync.references import References, check_reference
from tasks.runtime.device import resolve_device
from tasks.weights.adapter import apply_adapter

OVERLAP = 4
"""Frames that neighbouring windows share."""
PHASES = 4
"""Audio tokens are computed at quarters of a 25 fps frame, so that video of any frame rate
hears its own time within 5 ms."""
BLOCK = 30 * FPS
"""Audio is encoded in blocks of one Whisper window, so that an hour of tokens is never held."""
STRIDE = 24 * FPS
"""Samples from block to block: neighbours share 6 s, so each has 3 s of sound around what is
used."""
REACH = 8
"""Frames over which the rate of a video is measured."""
FADE = 4
"""Frames over which one block fades into the next, in the middle of their overlap. An encoder
that knows the position in its block encodes the same frame differently in each, and a mean of
two is a token that no network has seen: just enough of them to hide the jump."""


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


class SpeechTokens:
    """Audio tokens at any time of a recording.

    Args:
        encode: (samples,) and a number of frames -> (frames, n, width); the model's.
        audio: float32 (samples,) mono at 16 kHz.
    """

    def __init__(self, encode: Callable[[np.ndarray, int], Tensor], audio: np.ndarray) -> None:
        self._encode = encode
        self._audio = audio
        frames = -(-len(audio) // SAMPLES_PER_FRAME)
        self._last = max(0, -(-(frames - BLOCK) // STRIDE))
        self._block = lru_cache(maxsize=2 * PHASES)(self._encoded)

    def _encoded(self, block: int, phase: int) -> Tensor:
        begin = block * STRIDE * SAMPLES_PER_FRAME + phase * SAMPLES_PER_FRAME // PHASES
        wave = self._audio[begin : begin + BLOCK * SAMPLES_PER_FRAME]
        # Short recordings are not padded to a whole block.
        count = min(BLOCK, len(wave) // SAMPLES_PER_FRAME + 1)
        padded = np.zeros(count * SAMPLES_PER_FRAME, np.float32)
        padded[: len(wave)] = wave[: len(padded)]
        return self._encode(padded, count)

    def _token(self, frame: int, phase: int) -> Tensor:
        """(n, width): one block fades into the other in the middle of their overlap."""
        block = min(frame // STRIDE, self._last)
        index = frame - block * STRIDE
        first = (BLOCK - STRIDE - FADE) // 2
        later = min(1.0, max(0.0, (index - first + 1) / (FADE + 1))) if block else 1.0
        if later == 1:
            return self._block(block, phase)[index]
        earlier = self._block(block - 1, phase)[index + STRIDE]
        return torch.lerp(earlier, self._block(block, phase)[index], later) if later else earlier

    def at(self, times_s: np.ndarray) -> Tensor:
        """(f,) seconds -> (f, n, width); past the end the last token is held."""
        end = len(self._audio) * PHASES // SAMPLES_PER_FRAME
        quarters = np.clip(np.rint(times_s * (FPS * PHASES)).astype(int), 0, max(0, end - 1))
        return torch.stack([self._token(*divmod(each, PHASES)) for each in quarters.tolist()])


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

    Raises:
        UserError: the device does not exist, an option is out of range, or the adapter is for
            another bundle.
        ModelFileError: the bundle is damaged.
    """

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
    ) -> None:
        if reference:
            check_reference(reference)

        if not 1 <= steps <= MAX_STEPS:
            raise UserError(f"--steps must be between 1 and {MAX_STEPS}, got {steps}")
        if not 1.0 <= guidance <= 20.0:
            raise UserError(f"--guidance must be between 1 and 20, got {guidance}")
        self.device = resolve_device(device)
        self.model: Any = LatentSync.load(bundle, self.device).eval()
        if adapter is not None:
            apply_adapter(self.model, bundle, adapter)
        self.resolution: int = self.model.config.resolution
        self.num_frames: int = self.model.config.num_frames
        self.region: np.ndarray = self.model.alpha[0, 0].cpu().numpy()
        self.steps, self.guidance, self.seed, self.bf16 = steps, guidance, seed, bf16
        self.reference: str = reference or self.model.config.reference

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
        # The same noise for every window, so that neighbours agree where they overlap.
        generator = torch.Generator("cpu").manual_seed(self.seed)
        shape = (1, self.model.config.latent_channels, 1, *self.model.latent_mask.shape[-2:])
        painted = self.model.generate(
            self._pixels(faces),
            self._pixels(references),
            tokens.to(self.device),
            steps=self.steps,
            guidance=self.guidance,
            noise=torch.randn(shape, generator=generator),
            bf16=self.bf16,
        )
        values = (painted.float().clamp(-1, 1) + 1) * 127.5
        return np.asarray(values.permute(0, 1, 3, 4, 2).cpu().numpy())

    def _pixels(self, faces: np.ndarray) -> Tensor:
        """uint8 (b, f, R, R, 3) -> (b, f, 3, R, R) in [-1, 1]."""
        tensor = torch.from_numpy(np.ascontiguousarray(faces)).to(self.device)
        return tensor.permute(0, 1, 4, 2, 3).float() / 127.5 - 1

    def first_needed(self, times_s: np.ndarray, begin: int) -> int:
        """Position of the first face that `stream` takes to begin its output at `begin`."""
        count = len(times_s)
        ways = _ways(times_s)
        needed = [
            way + ways * self._starts_at(count, ways, way, begin)[1]
            for way in range(ways)
            if _done(ways, way, begin) < _dealt(count, ways, way)
        ]
        return min(needed, default=begin)

    def _starts_at(self, count: int, ways: int, way: int, begin: int) -> tuple[int, int]:
        """Number of the first window of a sequence that must be painted to go on at `begin`, and
        the position within the sequence where that window begins.

        A window depends on the previous one where they overlap, and a last window, which may share
        more frames, also on the one before that.
        """
        starts = window_starts(_dealt(count, ways, way), self.num_frames, OVERLAP)
        here = int(np.searchsorted(starts, _done(ways, way, begin), side="right")) - 1
        first = max(0, here - 2)
        return first, starts[first]

    def stream(
        self,
        faces: Iterable[np.ndarray],
        times_s: np.ndarray,
        speech: SpeechTokens,
        references: References | None = None,
        begin: int = 0,
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

        Yields:
            uint8 (R, R, 3), from `begin` on, at most one window of each sequence behind the input.
        """
        count = len(times_s)
        ways = _ways(times_s)
        source, taken = iter(faces), self.first_needed(times_s, begin)
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
            number, start = self._starts_at(count, ways, way, begin)
            # Faces that other sequences need come along.
            unneeded = max(0, start - _done(ways, way, first))
            mine = islice(dealt(way), unneeded, None)
            positions = np.arange(way, count, ways)
            skip = _done(ways, way, begin)
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


def _ways(times_s: np.ndarray) -> int:
    """Number of sequences of a stretch: no more than it has frames."""
    return min(interleaved(times_s), max(1, len(times_s)))


def _dealt(count: int, ways: int, way: int) -> int:
    """How many of `count` frames belong to a sequence."""
    return len(range(way, count, ways))


def _done(ways: int, way: int, begin: int) -> int:
    """How many frames of a sequence lie before position `begin`."""
    return len(range(way, begin, ways))
