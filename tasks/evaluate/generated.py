"""The model's videos of the clips, kept as arrays until all numbers are there."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.faces.landmarks import head_pose, mouth_opening
from datasets.faces.points import SHAPE
from datasets.media import FPS
from datasets.store.atomic import replacing
from tasks.evaluate.clips import ClipList, Kind, OpenClip
from tasks.evaluate.together import Window, run_together
from tasks.lipsync.generator import FaceGenerator
from tasks.lipsync.references import make_references

Line = Callable[[str], None]


class GeneratedFrames:
    """The videos of all clips as arrays, kept in a folder until they are judged.

    The model is loaded when frames are first missing and released after the last ones.

    Args:
        folder: that of this model and these settings; frames in it are used again.
        tests: the frozen list.
        load: loads the model.
        say: called with lines about what was generated.
        at_once: windows that go through the model at once.
    """

    def __init__(
        self,
        folder: Path,
        tests: ClipList,
        load: Callable[[], FaceGenerator],
        say: Line,
        at_once: int = 1,
    ) -> None:
        self.folder, self.tests, self.at_once = folder, tests, at_once
        self._load, self._say = load, say
        self._generator: FaceGenerator | None = None
        paths = {
            self._path(number, kind)
            for number, clip in enumerate(tests.clips)
            for kind in clip.kinds
        }
        self._missing = {path for path in paths if not path.is_file()}

    def _path(self, number: int, kind: Kind) -> Path:
        return self.folder / f"{number:03d}-{kind}.npy"

    def _loaded(self) -> FaceGenerator:
        if self._generator is None:
            self._generator = self._load()
        return self._generator

    def prepare(self, clips: Sequence[tuple[int, OpenClip]]) -> None:
        """Generate the videos of clips together, where any is missing.

        All of them, even those that exist: which windows share a pass of the network must not
        depend on where an earlier evaluation was interrupted.

        Args:
            clips: positions in the list, and the clips.
        """
        jobs = [(number, clip, kind) for number, clip in clips for kind in clip.chosen.kinds]
        if self.at_once == 1 or not {self._path(n, kind) for n, _, kind in jobs} & self._missing:
            return
        generator = self._loaded()
        painter = "window_after" if generator.chained else "window"

        def stream(clip: OpenClip, kind: Kind) -> Callable[[Window], np.ndarray]:
            def run(window: Window) -> np.ndarray:
                own = copy.copy(generator)
                setattr(own, painter, window)
                return _of_clip(own, clip, kind)

            return run

        def paint(asked: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
            *pasts, faces, references, tokens = zip(*asked, strict=True)
            windows = np.stack(faces), np.stack(references), torch.stack(tokens)
            if generator.chained:
                return generator.windows_after(pasts[0], *windows)
            return list(generator.paint_windows(*windows))

        streams = [stream(clip, kind) for _, clip, kind in jobs]
        painted = run_together(streams, paint, self.at_once)
        for (number, _, kind), frames in zip(jobs, painted, strict=True):
            self._keep(number, kind, frames)

    def video(self, number: int, clip: OpenClip, kind: Kind) -> np.ndarray:
        """uint8 (t, R, R, 3): read if it exists, otherwise generated.

        Args:
            number: index of the clip in the list.
            clip: the clip.
            kind: which of its videos to make.
        """
        path = self._path(number, kind)
        if path not in self._missing:
            return np.asarray(np.load(path))
        painted = _of_clip(self._loaded(), clip, kind)
        self._keep(number, kind, painted)
        return painted

    def _keep(self, number: int, kind: Kind, painted: np.ndarray) -> None:
        path = self._path(number, kind)
        with replacing(path) as file:
            np.save(file, painted)
        self._missing.discard(path)
        if not self._missing:
            self._generator = None
        done = f"{number + 1}/{len(self.tests.clips)}"
        self._say(f"{self.tests.title}: {kind} {done}, {len(painted)} frames")


def _of_clip(generator: Any, clip: OpenClip, kind: Kind) -> np.ndarray:
    count = clip.length(kind)
    return generate(generator, clip.frames[:count], clip.heard(kind), clip.landmarks[:count])


def generate(
    generator: Any, frames: np.ndarray, audio: np.ndarray, landmarks: np.ndarray
) -> np.ndarray:
    """Repaint the lips of a whole clip of aligned faces, uint8 (t, R, R, 3), as in lip-sync.

    Args:
        generator: a `FaceGenerator`.
        frames: uint8 (t, R, R, 3).
        audio: float32 (samples,) at 16 kHz.
        landmarks: (t, 478, 2) of the frames.
    """

    references = make_references(
        generator.reference,
        head_pose(landmarks),
        mouth_opening(landmarks),
        lambda positions: frames[list(positions)],
        landmarks[:, SHAPE],
    )
    times = np.arange(len(frames)) / FPS
    stream = generator.stream(iter(frames), times, generator.speech(audio), references)
    return np.stack(list(stream))
