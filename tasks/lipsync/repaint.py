"""Repaints the frames of one person in a video, one after another."""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from datasets.faces.alignment import align, align_points
from datasets.media import Picture
from datasets.media.canvas import Canvas
from datasets.media.form import Form
from tasks.lipsync.chain import ChainMemory
from tasks.lipsync.composite import blend_face, paint_face
from tasks.lipsync.face_scan import FaceScan
from tasks.lipsync.fades import fade_shares
from tasks.lipsync.generator import FaceGenerator
from tasks.lipsync.jaw import JawFinder
from tasks.lipsync.occlusion import OFF, Occlusion, make_occlusion
from tasks.lipsync.playback import Shown, frames_between, frames_in_order
from tasks.lipsync.references import References, make_references
from tasks.lipsync.speech_tokens import SpeechTokens

TINY_S = 1e-6
"""Seconds by which times differ that are meant to be one, having been counted from two moments."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames of an output that are treated alike."""

    first: int
    stop: int
    shown: bool
    """The face is repainted."""
    before_s: float | None
    """When the frame before it is shown, if it continues that one's shot,"""
    after_s: float | None
    """and the frame after it."""


@dataclass(frozen=True)
class RepaintJob:
    """A video that is being repainted."""

    video: Path
    fps: float | None
    scan: FaceScan
    generator: FaceGenerator
    form: Form
    order: list[Shown]
    speech_s: float
    """When the speech ends in the output,"""
    match: bool = False
    occlusion: str = OFF
    begin_s: float = 0.0
    """and when it begins there."""
    spoken: tuple[tuple[float, float], ...] | None = None
    """Begin and end of what of the speech is repainted, seconds of the speech; None: all."""

    def says(self, time_s: float) -> bool:
        """Whether the face is to be repainted in the output's frame at this time."""
        if not self.begin_s - TINY_S <= time_s < self.speech_s - TINY_S:
            return False
        since = time_s - self.begin_s + TINY_S
        return self.spoken is None or any(begin <= since < end for begin, end in self.spoken)

    def canvas(self, picture: Picture) -> Canvas:
        """A picture ready to be written."""
        return Canvas(picture, self.form)

    def faces(self, sources: Sequence[int]) -> np.ndarray:
        """Aligned faces (n, R, R, 3) of frames close to each other, decoded again."""
        first, last = min(sources), max(sources)
        frames = frames_between(self.video, self.scan.times_s, first, last, self.fps)
        wanted = set(sources)
        found = {
            source: self.aligned(frame, source)
            for source, frame in enumerate(frames, first)
            if source in wanted
        }
        return np.stack([found[source] for source in sources])

    def aligned(self, frame: Picture, source: int) -> np.ndarray:
        """The aligned face of a frame that has one."""
        matrix = self.scan.matrices[source]
        assert matrix is not None
        return align(frame, matrix, self.generator.resolution)

    @property
    def keeps_surroundings(self) -> bool:
        """Only the face itself is taken from the network's picture, see `blend_face`."""
        return self.generator.reference != "frame" and self.scan.shapes is not None

    def shapes(self, sources: Sequence[int]) -> np.ndarray:
        """`SHAPE` of frames that have the face, (n, points, 2) in pixels of the aligned face."""
        found = []
        assert self.scan.shapes is not None
        for source in sources:
            matrix = self.scan.matrices[source]
            assert matrix is not None
            found.append(align_points(self.scan.shapes[source], matrix, self.generator.resolution))
        return np.stack(found)

    def references_of(self, shot: int) -> Callable[[list[Shown]], References | None]:
        """References for stretches of one shot."""
        kind = self.generator.reference
        if kind == "still":
            return self.stills_of(shot)

        def of_sources(part: list[Shown]) -> References | None:
            # By video frames: another moment must not be the same one played backwards.
            there, places = np.unique([each.source for each in part], return_inverse=True)
            found = self._references(kind, there)
            return found and (lambda positions: found(places[positions]))

        return of_sources

    def stills_of(self, shot: int) -> Callable[[list[Shown]], References]:
        """Calm faces of one shot in the poses of its stretches."""
        there = np.array(self._with_face(shot))
        # One choice for the whole shot, so that the face changes as seldom as possible.
        still = self._references("still", there)
        assert still is not None

        def of_stretch(part: list[Shown]) -> References:
            places = np.searchsorted(there, [each.source for each in part])
            return lambda positions: still(places[positions])

        return of_stretch

    def _references(self, kind: str, there: np.ndarray) -> References | None:
        """References among some frames, by their positions in `there`."""
        scan = self.scan
        return make_references(
            kind,
            scan.poses[there],
            scan.openings[there],
            lambda positions: self.faces([int(there[each]) for each in positions]),
            None if scan.shapes is None else self.shapes(there.tolist()),
        )

    def occlusion_of(self, shot: int) -> Occlusion | None:
        """What tells what is in front of the face in a shot; None where nothing can."""
        if self.occlusion == OFF or self.scan.shapes is None:
            return None
        there = self._with_face(shot)
        return make_occlusion(there, self.faces, self.shapes, self.generator.region)

    def _with_face(self, shot: int) -> list[int]:
        """Frames of a shot that have the face."""
        pairs = zip(self.scan.shots, self.scan.matrices, strict=True)
        return [
            index
            for index, (number, matrix) in enumerate(pairs)
            if number == shot and matrix is not None
        ]

    def stretches(self) -> list["Stretch"]:
        """Stretches of the output: consecutive frames of one shot, all with the face or all
        without."""
        order, jumps = self.order, 0
        kinds = []
        for position, each in enumerate(order):
            if position and abs(each.source - order[position - 1].source) > 1:
                jumps += 1
            shown = self.says(each.time_s) and self.scan.matrices[each.source] is not None
            kinds.append((self.scan.shots[each.source], jumps, shown))
        found: list[Stretch] = []
        first = 0
        for kind, run in groupby(kinds):
            stop = first + len(list(run))

            def at(position: int, there: tuple[int, int] = kind[:2]) -> float | None:
                inside = 0 <= position < len(order) and kinds[position][:2] == there
                return order[position].time_s if inside else None

            found.append(Stretch(first, stop, kind[2], at(first - 1), at(stop)))
            first = stop
        return found


@dataclass(frozen=True)
class _Around:
    """What the faces of one stretch need beside speech."""

    references: References | None
    front: Occlusion | None
    jaws: JawFinder | None
    """None where the network's whole picture is shown."""


Paint = Callable[[Canvas], None]
"""Paints a new face into a frame."""
Painted = tuple[Picture, float, Paint | None]
"""A frame, when it is shown, and its new face; None: it stays as it was."""


@dataclass(frozen=True)
class Said:
    """What one person says in an output."""

    job: RepaintJob
    """Where it is and who says it; `order` and `form` are those of the whole output."""
    wave: np.ndarray
    """float32 (samples,), 16 kHz."""


Layer = Sequence[Said]
"""What is said one after another: none begins before the one before it ends."""


def repaint(
    layers: Sequence[Layer], begin: int, memory: ChainMemory | None = None
) -> Iterator[tuple[Canvas, float, bool]]:
    """Frames of an output in which several people may speak at once.

    Args:
        layers: who speaks beside whom.
        begin: position of the first frame that is wanted.
        memory: what the faces of an only layer hand on there, and kept up to date.

    Yields:
        Each frame, when it is shown, and whether a face was repainted.
    """
    if len(layers) > 1:
        memory = None
    streams = [_one_after_another(layer, begin, memory or ChainMemory()) for layer in layers]
    first = layers[0][0].job
    for frames in zip(*streams, strict=True):
        canvas = first.canvas(frames[0][0])
        faces = [paint for _, _, paint in frames if paint]
        for paint in faces:
            paint(canvas)
        yield canvas, frames[0][1], bool(faces)


def _one_after_another(layer: Layer, begin: int, memory: ChainMemory) -> Iterator[Painted]:
    """Frames of a layer: each one's turn goes on from where the one before it ended."""
    for number, said in enumerate(layer):
        times = [each.time_s for each in said.job.order]
        last = number + 1 == len(layer)
        stop = len(times) if last else bisect_left(times, said.job.speech_s - TINY_S)
        if begin < stop:
            yield from islice(_repaint(said.job, said.wave, begin, memory), stop - begin)
            begin = stop


def _repaint(
    job: RepaintJob, wave: np.ndarray, begin: int, memory: ChainMemory
) -> Iterator[Painted]:
    """Frames of what one person says, from one position on."""
    speech, scan, order = job.generator.speech(wave), job.scan, job.order
    references_of = lru_cache(maxsize=1)(job.references_of)
    occlusion_of = lru_cache(maxsize=1)(job.occlusion_of)
    frames: Iterator[Picture] | None = None
    with ExitStack() as stack:
        jaws = stack.enter_context(JawFinder()) if job.keeps_surroundings else None
        for stretch in job.stretches():
            first, shown = stretch.first, stretch.shown
            if stretch.stop <= begin:
                continue
            part, skip = order[first : stretch.stop], max(0, begin - first)
            lead = ready = skip
            if shown:
                times = np.array([each.time_s for each in part]) - job.begin_s
                memory.enter(first)
                ready = memory.colours.first_needed(skip) if job.match else skip
                lead = job.generator.first_needed(times, ready, memory)
            if frames is None:
                frames = frames_in_order(job.video, order[first + lead :], scan.times_s, job.fps)
            if shown:
                shot = scan.shots[part[0].source]
                around = _Around(
                    references_of(shot)(part),
                    occlusion_of(shot),
                    jaws,
                )
                near = [
                    None if at is None else at - job.begin_s
                    for at in (stretch.before_s, stretch.after_s)
                ]
                shares = fade_shares(times, *near)
                faces = _repaint_faces(
                    job, frames, part, lead, ready, shares, speech, around, memory
                )
                # Those before are only there for what they hand on.
                yield from islice(faces, skip - ready, None)
                continue
            for each in part[skip:]:
                yield next(frames), each.time_s, None


def _repaint_faces(
    job: RepaintJob,
    frames: Iterator[Picture],
    part: list[Shown],
    lead: int,
    skip: int,
    shares: np.ndarray,
    speech: SpeechTokens,
    around: _Around,
    memory: ChainMemory,
) -> Iterator[Painted]:
    """Repaint a stretch of frames of one shot, all with a face, from position `skip` on; `frames`
    yields those from `lead` on. `shares` (n,) of the new face are shown."""
    held: deque[tuple[Picture, np.ndarray, np.ndarray]] = deque()
    repainted = job.generator.region

    def faces() -> Iterator[np.ndarray]:
        for position, each in enumerate(part[lead:], lead):
            frame = next(frames)
            matrix = job.scan.matrices[each.source]
            assert matrix is not None
            aligned = job.aligned(frame, each.source)
            if position >= skip:
                held.append((frame, matrix, aligned))
            yield aligned

    times = np.array([each.time_s for each in part]) - job.begin_s
    painted = job.generator.stream(faces(), times, speech, around.references, skip, memory)
    for position, face in enumerate(painted, skip):
        each = part[position]
        frame, matrix, before = held.popleft()
        shape = None if job.scan.shapes is None else job.shapes([each.source])[0]
        front = None
        if around.front is not None and shape is not None:
            front = around.front(before, shape)
        face, region = blend_face(
            face,
            before,
            repainted,
            match=partial(memory.colours, position) if job.match else None,
            jaws=around.jaws,
            shape=shape,
            front=front,
        )
        paint = partial(
            paint_face,
            matrix=matrix,
            face=face,
            source=before,
            region=region * np.float32(shares[position]),
            repainted=repainted,
            frame=each.source,
        )
        yield frame, each.time_s, paint
