"""Videos that are repainted side by side: which windows share a pass, and that nothing hangs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.evaluate.clips import ChosenClip, ClipList, open_clip
from tasks.evaluate.generated import GeneratedFrames
from tasks.evaluate.together import Window, run_together
from tasks.lipsync.generator import FaceGenerator
from tests.support.counting_store import CountingStore
from tests.support.real_bundle import make_real_bundle


def counting(length: int, level: int) -> Callable[[Window], np.ndarray]:
    """A stream of windows whose single value says whose they are, and the how manieth."""

    def run(window: Window) -> np.ndarray:
        painted = [
            window(np.full((1, 1, 1, 3), level + index), np.zeros((1, 1, 1, 3)), torch.zeros(1, 1))
            for index in range(length)
        ]
        return np.concatenate(painted)[:, 0, 0, 0]

    return run


def test_the_next_windows_of_all_streams_share_a_pass_in_their_order() -> None:
    passes: list[list[int]] = []

    def paint(faces: np.ndarray, references: np.ndarray, tokens: torch.Tensor) -> np.ndarray:
        assert len(faces) == len(references) == len(tokens)
        passes.append(faces[:, 0, 0, 0, 0].astype(int).tolist())
        return -faces

    streams = [counting(3, 10), counting(1, 20), counting(2, 30)]
    for _ in range(3):
        passes.clear()
        found = run_together(streams, paint, at_once=2)
        assert [each.tolist() for each in found] == [[-10, -11, -12], [-20], [-30, -31]]
        assert passes == [[10, 20], [30], [11, 31], [12]]


def test_an_error_ends_all_streams_and_is_told() -> None:
    def broken(window: Window) -> np.ndarray:
        raise ValueError("this stream")

    with pytest.raises(ValueError, match="this stream"):
        run_together([counting(5, 0), broken], lambda faces, *_: faces, at_once=4)

    def failing(*_: object) -> np.ndarray:
        raise MemoryError("this pass")

    with pytest.raises(MemoryError, match="this pass"):
        run_together([counting(5, 0), counting(5, 9)], failing, at_once=4)


def test_windows_of_several_clips_give_the_frames_of_one_after_the_other(tmp_path: Path) -> None:
    generator = FaceGenerator(make_real_bundle(tmp_path / "bundle"), steps=1)
    side = generator.resolution
    store = CountingStore(40, 30)
    store.resolution = side
    chosen = [ChosenClip("clip0", "s", 40, "clip1", 20), ChosenClip("clip1", "t", 30, "clip0", 30)]
    tests = ClipList(tuple(chosen), "test", "")
    noise = np.random.default_rng(0)
    clips = []
    for number, each in enumerate(chosen):
        clip = open_clip(store, each)
        shown = noise.integers(0, 255, (each.frames, side, side, 3)).astype(np.uint8)
        object.__setattr__(clip, "frames", shown)
        clips.append((number, clip))
    calls: list[int] = []
    paint = generator.paint_windows

    def counted(faces: np.ndarray, *others: np.ndarray) -> np.ndarray:
        calls.append(len(faces))
        return paint(faces, *others)  # type: ignore[arg-type]

    generator.paint_windows = counted  # type: ignore[method-assign, assignment]
    videos: dict[int, list[np.ndarray]] = {}
    for at_once in (1, 3):
        folder = tmp_path / f"{at_once}"
        generated = GeneratedFrames(folder, tests, lambda: generator, lambda _: None, at_once)
        generated.prepare(clips)
        videos[at_once] = [
            generated.video(number, clip, kind)
            for number, clip in clips
            for kind in clip.chosen.kinds
        ]
        if at_once == 1:
            assert set(calls) == {1}
            calls.clear()
    assert max(calls) == 3
    for alone, together in zip(videos[1], videos[3], strict=True):
        difference = np.abs(alone.astype(int) - together.astype(int))
        assert difference.max() <= 1
        assert alone.std() > 1
