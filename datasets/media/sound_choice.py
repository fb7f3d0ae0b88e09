"""Which of a file's audio streams is heard, and how its channels become one.

Streams are ranked as players rank them: those that are not commentary, a description for the
blind or the like come first; of these the ones with the container's default flag; of several with
the flag those that are not dubbed and those in the language of the picture; then in their order.
The first one with sound in it is used, since cameras and editors leave empty tracks: one
that is silent throughout is skipped, unless all are.

Channels are averaged. If that cancels the sound, because one channel is the other one with its
sign flipped, a single channel is used instead. That is decided once for a recording, from the first
audible sound, so it does not depend on which part of it is read.
"""

import logging
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from numpy.typing import NDArray

from datasets.errors import Reason, SourceError
from datasets.media.container import SAMPLE_RATE, SAMPLES_PER_FRAME, is_sound, open_container
from datasets.media.pcm import Piece, pcm

log = logging.getLogger(__name__)

SILENCE = 1e-3
"""Sound below this root mean square (-60 dBFS) is silence."""
ENOUGH_FRAMES = 5
"""Frames of 1/25 s that must not be silent for a stream to count as one with sound: more than a
click."""
ASIDE = (
    Disposition.comment
    | Disposition.lyrics
    | Disposition.karaoke
    | Disposition.visual_impaired
    | Disposition.clean_effects
    | Disposition.non_diegetic
    | Disposition.descriptions
    | Disposition.metadata
    | Disposition.dependent
)
"""Flags of streams that do not carry only the voices of the people seen."""
LEAST_LEFT = 0.2
"""If the average has less than this share of the channels' own power, it cancels. Channels
with nothing in common keep a half, as with one silent channel; real stereo keeps 0.9 or more
in every two seconds of the clips on which this was measured."""
LISTENED_S = 10.0
"""Seconds of audible sound, from the first on, that decide."""
LONGEST_WAIT_S = 30.0
"""Seconds of sound, from the first audible one, over which they may be spread."""
LOUDER = 1.5
"""A later channel is used instead of the first if it has this many times its power."""

Mono = tuple[int, NDArray[np.float32]]
"""Position of the first sample after time zero (it may be negative), and (n,)."""


def audio_stream(container: InputContainer) -> Any:
    """The audio stream to use, of those that can be decoded.

    If there are several, silent ones are read to their end; the result is cached.

    Raises:
        SourceError: NO_AUDIO.
    """
    able = _able(container)
    if not able:
        raise SourceError(Reason.NO_AUDIO, "no audio stream that can be decoded")
    return able[_choice(container) if len(able) > 1 else 0]


def describe_choice(container: InputContainer) -> str:
    """A phrase that says which of several audio streams is heard; empty if there is only one."""
    able = _able(container)
    if len(able) < 2:
        return ""
    index = _choice(container)
    facts = [name for name in _facts(able[index]) if name]
    about = f" ({', '.join(facts)})" if facts else ""
    return f"audio stream {index + 1} of {len(able)}{about} is heard"


def _able(container: InputContainer) -> list[Any]:
    return [
        stream
        for stream in container.streams.audio
        if stream.codec_context is not None
        and is_sound(stream.codec_context.sample_rate, stream.codec_context.channels)
    ]


def _facts(stream: Any) -> list[str]:
    default = "default" if stream.disposition & Disposition.default else ""
    aside = "commentary or the like" if stream.disposition & ASIDE else ""
    return [language(stream), default, aside]


def _choice(container: InputContainer) -> int:
    path = Path(container.name)
    state = path.stat()
    return _choose(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _choose(path: Path, size: int, mtime_ns: int) -> int:
    """Index of the stream among those that can be decoded. The file's state is only a cache key."""
    del size, mtime_ns
    with open_container(path) as container:
        spoken = next((language(stream) for stream in container.streams.video), "")
        able = _able(container)
        ranked = sorted(range(len(able)), key=lambda index: _rank(able[index], spoken))
    heard: dict[int, int] = {}
    for index in ranked:
        heard[index] = _loud_frames_of(path, index)
        if heard[index] >= ENOUGH_FRAMES:
            break
    # Of equally silent ones the first in rank wins.
    best = max(ranked[: len(heard)], key=lambda index: heard[index])
    passed = [index + 1 for index in ranked[: ranked.index(best)]]
    log.info(
        "%s: audio stream %d of %d is heard%s",
        path.name,
        best + 1,
        len(ranked),
        f", since {', '.join(map(str, passed))} would come first but are silent" if passed else "",
    )
    return best


def _rank(stream: Any, spoken: str) -> tuple[bool, bool, bool, bool]:
    """Sort key of an audio stream; False comes first.

    Args:
        spoken: language of the picture; empty if the container does not say.
    """
    flags = stream.disposition
    return (
        bool(flags & ASIDE),
        not flags & Disposition.default,
        bool(flags & Disposition.dub),
        bool(spoken) and language(stream) != spoken,
    )


def language(stream: Any) -> str:
    """The language of a stream as its container says it, mostly of three letters (ISO 639-2) and
    in lower case; empty if it says none."""
    found = str(stream.metadata.get("language", "")).strip().lower()
    return "" if found == "und" else found


def _loud_frames_of(path: Path, index: int) -> int:
    """How many frames of a stream's loudest channel are not silent, up to a sufficient number; -1
    if none of it can be decoded."""
    with open_container(path) as container:
        pieces = pcm(container, _able(container)[index], SAMPLE_RATE, None)
        return count_loud((sound for _, sound in pieces), SILENCE, ENOUGH_FRAMES)


def count_loud(sounds: Iterable[NDArray[np.float32]], level: float, enough: int) -> int:
    """How many frames (of 1/25 s) of sound reach a level in one of the channels.

    Args:
        sounds: (channels, n) each, at 16000 samples per second.
        level: of the root mean square, 1 is full scale.
        enough: reading stops there.

    Returns:
        At most `enough`; -1 where there is no sound at all.
    """
    loud, heard = 0, False
    rest: NDArray[np.float32] | None = None
    for sound in sounds:
        heard = True
        if rest is not None and len(rest) == len(sound):
            sound = np.concatenate([rest, sound], axis=1)
        whole = sound.shape[1] // SAMPLES_PER_FRAME
        shape = (len(sound), whole, SAMPLES_PER_FRAME)
        pieces = sound[:, : whole * SAMPLES_PER_FRAME].reshape(shape)
        power = np.einsum("cfs,cfs->cf", pieces, pieces).max(axis=0) / SAMPLES_PER_FRAME
        loud += int((power >= level**2).sum())
        rest = sound[:, whole * SAMPLES_PER_FRAME :]
        if loud >= enough:
            return enough
    return loud if heard else -1


def mono(pieces: Iterable[Piece], rate: int) -> Iterator[Mono]:
    """Pieces of sound with all channels mixed into one.

    Args:
        pieces: pieces from the recording's beginning on, so that every reader decides in the same
            way.
        rate: their samples per second.
    """
    mix = _Mix(rate)
    waiting: list[Piece] = []
    for position, sound in pieces:
        if not mix.decided:
            mix.listen(sound)
            if mix.waits and not mix.decided:
                waiting.append((position, sound))
                continue
        for before, held in waiting:
            yield before, mix.one(held)
        waiting = []
        yield position, mix.one(sound)
    mix.decide()
    for before, held in waiting:
        yield before, mix.one(held)


class _Mix:
    """Decides how two channels become one."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._channel: int | None = None
        self._powers = np.zeros(2)
        self._average = 0.0
        self._loud = self._since = 0
        self.decided = False

    @property
    def waits(self) -> bool:
        """Whether any sound that affects the decision was heard."""
        return self._loud > 0

    def listen(self, sound: NDArray[np.float32]) -> None:
        """Take a piece into account."""
        if len(sound) == 2:
            exact = sound.astype(np.float64)
            powers = np.einsum("cn,cn->c", exact, exact)
            if powers.max() >= SILENCE**2 * sound.shape[1]:
                middle = exact.mean(axis=0)
                self._powers += powers
                self._average += float(middle @ middle)
                self._loud += sound.shape[1]
        if self.waits:
            self._since += sound.shape[1]
        if self._loud >= LISTENED_S * self._rate or self._since >= LONGEST_WAIT_S * self._rate:
            self.decide()

    def decide(self) -> None:
        """Decide by what was heard so far, for everything that follows."""
        if not self.decided and self._average < LEAST_LEFT * self._powers.mean():
            first, second = self._powers
            self._channel = int(second > LOUDER * first)
            log.info("two channels cancel each other: channel %d is heard", self._channel + 1)
        self.decided = True

    def one(self, sound: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) of (channels, n)."""
        if len(sound) > 1 and self._channel is not None:
            return sound[self._channel]
        average: NDArray[np.float32] = sound.mean(axis=0)
        return average
