"""Where clips are cut: which stretches of them are good, and why the others are not.

Clips of one recording are judged together, since they share the offset of their sound, and since
at each moment at most one of the faces speaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from datasets.errors import Reason
from datasets.media import FPS
from tasks.ingest.frame_facts import FrameFacts, runs, same
from tasks.ingest.speaker_choice import LARGEST
from tasks.sync.belonging import LAGS, most_likely_states

LAG_COST = 0.2
"""Nats for each frame by which sound and pictures are apart: most recordings are in sync."""
OWN_LAG = 8.0
"""Nats by which a clip's own offset must be likelier than that of its file to count."""
NEAR = 1
"""Frames from the file's offset within which each clip has the one that fits best."""
BRIEF = 10
"""A shorter stretch is not told apart from its neighbour."""
CONTEXT = 12
"""Frames of context on both sides of a second."""


@dataclass(eq=False)
class Judged:
    """A clip that is cut."""

    track: int
    start: int
    """Its first frame in the file."""
    face_px: float
    facts: FrameFacts
    shortest: int
    """Frames of the shortest clip."""
    reasons: list[Reason] = field(default_factory=list)
    """(t,) why each frame is bad, or `NONE`."""
    lag: int = 0
    """Index of the lag at which lips and sound were compared."""
    speaks: np.ndarray | None = None
    """bool (t,) whether the most likely speaker is this face; None if not compared."""

    @property
    def frames(self) -> int:
        return len(self.facts.wrong)

    @property
    def strange(self) -> bool:
        """Whether lips and sound hardly ever belong together and nothing else is wrong: there is
        nothing to keep of it, and the scores of the whole clip decide."""
        if {*self.facts.wrong} != {Reason.NONE} or self.together.mean() >= 0.5:
            return False
        return all(stop - first < self.shortest for first, stop in runs(self.together))

    @property
    def together(self) -> np.ndarray:
        """bool (t,): frames in which lips and sound belong together, or are not compared."""
        return np.ones(self.frames, bool) if self.speaks is None else self.speaks

    @property
    def evidence(self) -> np.ndarray:
        """float64 (t,) for lips and sound to belong together, nats."""
        if self.facts.ratios is None:
            return np.zeros(self.frames)
        return np.asarray(self.facts.ratios[self.lag])

    def bad_share(self, first: int, stop: int) -> float:
        """Share of frames in which lips and sound do not belong together; NaN if not compared."""
        if self.facts.by_lag is None:
            return float("nan")
        return float(1 - self.together[first:stop].mean())

    def at_lag(self, first: int, stop: int) -> "AtLag":
        """What the evidence of a stretch says at the clip's lag."""
        if self.facts.ratios is None:
            return AtLag(0.0, float("-inf"))
        offset = float(LAGS[self.lag])
        nats = float(self.evidence[first:stop].sum())
        return AtLag(offset, nats - LAG_COST * abs(offset))

    def by_second(self, first: int, stop: int) -> list[float]:
        """Evidence of each second, nats, with context on both sides; empty if not compared."""
        if self.facts.ratios is None:
            return []
        seconds = range(first, max(stop - int(FPS) // 2, first + 1), int(FPS))
        values = []
        for begin in seconds:
            part = self.evidence[max(begin - CONTEXT, 0) : begin + int(FPS) + CONTEXT]
            values.append(round(float(part.mean() * FPS), 3))
        return values


@dataclass(frozen=True)
class AtLag:
    """Evidence for one offset."""

    offset_frames: float
    nats: float


class SharedLag:
    """The offset at which the lips of a file's clips belong to its sound, as far as it was read."""

    def __init__(self) -> None:
        self._evidence = -LAG_COST * np.abs(LAGS)

    def add(self, facts: FrameFacts) -> None:
        """Take a clip into account."""
        if facts.by_lag is not None:
            self._evidence = self._evidence + facts.by_lag

    def of(self, facts: FrameFacts) -> int:
        """Index of a clip's lag: near that of the file, unless the clip clearly has another."""
        whole = int(np.argmax(self._evidence))
        if facts.by_lag is None:
            return whole
        own = facts.by_lag
        within = range(max(whole - NEAR, 0), min(whole + NEAR + 1, len(own)))
        near = max(within, key=lambda at: (own[at], -abs(at - whole)))
        best = int(np.argmax(own))
        return best if own[best] > own[near] + OWN_LAG else near


def judge(clips: Sequence[Judged], lag: SharedLag, policy: str) -> None:
    """Fill `reasons` of clips, `lag` and `speaks`.

    Args:
        clips: of one file, with all that overlap in time.
        lag: of their file.
        policy: `LARGEST` makes the largest face at a time the speaker whatever is heard.
    """
    for each in clips:
        each.lag = lag.of(each.facts)
    # Who speaks is asked of all faces at once; not where the largest is taken in any case.
    groups = [[each] for each in clips] if policy == LARGEST else [clips]
    for group in groups:
        _who_speaks(group)
    for each in clips:
        each.reasons = [
            wrong or (Reason.NONE if together else Reason.OTHER_VOICE)
            for wrong, together in zip(each.facts.wrong, each.together, strict=True)
        ]
    for number, first in enumerate(clips):
        for second in clips[:number]:
            if first.track != second.track:
                _contest(first, second, policy)
    for each in clips:
        _name_speakers(each, clips)
        each.reasons = _without_brief(each.reasons)


def _who_speaks(clips: Sequence[Judged]) -> None:
    """The most likely sequence of speakers: one of the faces, or nobody who is seen."""
    compared = [each for each in clips if each.facts.ratios is not None]
    if not compared:
        return
    begin = min(each.start for each in compared)
    end = max(each.start + each.frames for each in compared)
    tracks = sorted({each.track for each in compared})
    evidence = np.full((end - begin, len(tracks) + 1), -np.inf)
    evidence[:, 0] = 0
    for each in compared:
        part = slice(each.start - begin, each.start - begin + each.frames)
        evidence[part, 1 + tracks.index(each.track)] = each.evidence
    states = most_likely_states(evidence)
    for each in compared:
        part = slice(each.start - begin, each.start - begin + each.frames)
        each.speaks = states[part] == 1 + tracks.index(each.track)


def _contest(first: Judged, second: Judged, policy: str) -> None:
    """Where two faces are both taken for the speaker, one of them is."""
    begin = max(first.start, second.start)
    end = min(first.start + first.frames, second.start + second.frames)
    if begin >= end or first.facts.by_lag is None or first.strange or second.strange:
        return
    parts = [slice(begin - each.start, end - each.start) for each in (first, second)]
    good = [
        np.array([not reason for reason in each.reasons[part]])
        for each, part in zip((first, second), parts, strict=True)
    ]
    for low, high in runs(good[0] & good[1]):
        weights = [
            each.face_px if policy == LARGEST else float(each.evidence[part][low:high].sum())
            for each, part in zip((first, second), parts, strict=True)
        ]
        loser, part = (first, parts[0]) if weights[0] < weights[1] else (second, parts[1])
        for at in range(part.start + low, part.start + high):
            loser.reasons[at] = Reason.NOT_THE_SPEAKER


def _name_speakers(clip: Judged, clips: Sequence[Judged]) -> None:
    """Where another face follows the sound, it is not a voice that nobody is seen with."""
    for first, stop in same(clip.reasons):
        if clip.reasons[first] is not Reason.OTHER_VOICE:
            continue
        spoken = np.zeros(stop - first, bool)
        for other in clips:
            if other.track == clip.track or other.strange:
                continue
            shift = clip.start - other.start
            for at in range(max(first, -shift), min(stop, other.frames - shift)):
                spoken[at - first] |= not other.reasons[at + shift]
        if spoken.mean() >= 0.5:
            clip.reasons[first:stop] = [Reason.NOT_THE_SPEAKER] * (stop - first)


def _without_brief(reasons: list[Reason]) -> list[Reason]:
    """Bad stretches that are brief have the reason of the bad stretch before them."""
    named = list(reasons)
    for first, stop in same(reasons):
        before = named[first - 1] if first else Reason.NONE
        if reasons[first] and before and stop - first < BRIEF:
            named[first:stop] = [before] * (stop - first)
    return named
