"""Videos that are repainted side by side: which windows share a pass, and that nothing hangs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.latentsync.config import PoseConfig
from models.latentsync.model import LatentSync
from tasks.evaluate.clips import ChosenClip, ClipList, open_clip
from tasks.evaluate.generated import GeneratedFrames
from tasks.evaluate.together import Window, run_together
from tasks.lipsync.generator import FaceGenerator
from tests.support.counting_store import CountingStore
from tests.support.real_bundle import make_real_bundle
from tests.support.small_models import shaken, small_config


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

    def paint(asked: Sequence[tuple[Any, ...]]) -> list[np.ndarray]:
        passes.append([int(faces[0, 0, 0, 0]) for faces, _, _ in asked])
        return [-faces for faces, _, _ in asked]

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
        run_together(
            [counting(5, 0), broken], lambda asked: [faces for faces, *_ in asked], at_once=4
        )

    def failing(_: object) -> list[np.ndarray]:
        raise MemoryError("this pass")

    with pytest.raises(MemoryError, match="this pass"):
        run_together([counting(5, 0), counting(5, 9)], failing, at_once=4)


def chained_bundle(folder: Path) -> Path:
    """A model that paints one frame after the other, each shown the second last one."""
    torch.manual_seed(0)
    model = LatentSync(small_config(num_frames=1, pose=PoseConfig(kind="full", lag=2)))
    shaken(model.unet)
    shaken(model.autoencoder)
    model.save(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "most", "painter"),
    [(make_real_bundle, 3, "paint_windows"), (chained_bundle, 3, "windows_after")],
)
def test_windows_of_several_clips_give_the_frames_of_one_after_the_other(
    make: Callable[[Path], Path], most: int, painter: str, tmp_path: Path
) -> None:
    generator = FaceGenerator(make(tmp_path / "bundle"), steps=1)
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
    paint = getattr(generator, painter)

    def counted(*windows: Any) -> Any:
        calls.append(len(windows[-1]))
        return paint(*windows)

    setattr(generator, painter, counted)
    videos: dict[int, list[np.ndarray]] = {}
    for at_once in (1, most):
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
    assert max(calls) == most
    for alone, together in zip(videos[1], videos[most], strict=True):
        difference = np.abs(alone.astype(int) - together.astype(int))
        assert difference.max() <= 1
        assert alone.std() > 1


@pytest.mark.parametrize("lag", [1, 2])
def test_chains_side_by_side_go_on_from_their_own_frames(lag: int, tmp_path: Path) -> None:
    """One has just begun, one is a frame long and one longer: each as if it were alone."""
    torch.manual_seed(0)
    model = LatentSync(small_config(num_frames=1, pose=PoseConfig(kind="full", lag=lag)))
    shaken(model.unet)
    shaken(model.autoencoder)
    model.save(tmp_path)
    generator = FaceGenerator(tmp_path, steps=1)
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (4, 3, 1, 64, 64, 3), dtype=np.uint8)
    tokens = generator.speech(rng.normal(0, 0.2, 640 * 3).astype(np.float32)).at(np.arange(3) / 25)
    pasts: list[tuple[torch.Tensor, ...]] = [(), (), ()]
    for number, frames in ((1, 1), (2, 3)):
        for face in faces[:frames, number]:
            _, pasts[number] = generator.window_after(pasts[number], face, face, tokens[:1])
    assert [len(past) for past in pasts] == [0, 1, lag]
    shown, shapes, heard = faces[3], faces[3][::-1].copy(), tokens[:, None]
    together = generator.windows_after(pasts, shown, shapes, heard)
    for number, (painted, past) in enumerate(together):
        alone, alone_past = generator.window_after(
            pasts[number], shown[number], shapes[number], heard[number]
        )
        assert np.abs(painted - alone).max() < 0.1
        assert len(past) == len(alone_past) == min(len(pasts[number]) + 1, lag)
        for mine, its in zip(past, alone_past, strict=True):
            assert mine.shape == its.shape
            assert torch.allclose(mine, its, atol=1e-3)
