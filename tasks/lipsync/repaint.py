"""Repaints the frames of one person in a video, one after another."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
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
    match: bool = False
    occlusion: str = OFF

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
            spoken = each.time_s < self.speech_s
            shown = spoken and self.scan.matrices[each.source] is not None
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


def repaint(
    job: RepaintJob, wave: np.ndarray, begin: int, memory: ChainMemory | None = None
) -> Iterator[tuple[Canvas, float, bool]]:
    """Frames of the output from one position on, when they are shown, and whether a face was
    repainted; `memory` says where a chain of windows stands there, and is kept up to date."""
    speech, scan, order = job.generator.speech(wave), job.scan, job.order
    memory = memory or ChainMemory()
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
            lead = skip
            if shown:
                times = np.array([each.time_s for each in part])
                memory.enter(first)
                lead = job.generator.first_needed(times, skip, memory)
            if frames is None:
                frames = frames_in_order(job.video, order[first + lead :], scan.times_s, job.fps)
            if shown:
                shot = scan.shots[part[0].source]
                around = _Around(
                    references_of(shot)(part),
                    occlusion_of(shot),
                    jaws,
                )
                shares = fade_shares(times, stretch.before_s, stretch.after_s)
                yield from _repaint_faces(
                    job, frames, part, lead, skip, shares, speech, around, memory
                )
                continue
            for each in part[skip:]:
                yield job.canvas(next(frames)), each.time_s, False


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
) -> Iterator[tuple[Canvas, float, bool]]:
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

    times = np.array([each.time_s for each in part])
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
            match=job.match,
            jaws=around.jaws,
            shape=shape,
            front=front,
        )
        canvas = job.canvas(frame)
        region = region * np.float32(shares[position])
        paint_face(canvas, matrix, face, before, region, repainted, each.source)
        yield canvas, each.time_s, True
