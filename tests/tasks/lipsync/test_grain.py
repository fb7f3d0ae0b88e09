"""A new face in a grainy video is as grainy as what is around it, and clean in a clean one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from datasets.media import VideoWriter, read_frames, write_flac
from datasets.media.canvas import Canvas, Patch
from models.latentsync.mask import face_mask
from tasks.lipsync import video as lipsync_video
from tasks.lipsync.face_scan import FaceScan
from tasks.lipsync.grain import LUMA, kept_around, noise_level, with_grain
from tasks.lipsync.video import lip_sync_video
from tests.support.fake_generator import Brightener
from tests.support.fake_scan import give_scan
from tests.support.portrait import portrait

COUNT, SIDE = 4, 320
RESOLUTION = 192
INSIDE, AROUND = np.s_[200:230, 130:190], np.s_[130:165, 130:190]
"""Cheeks and chin, and the skin above: rows and columns of the portrait."""


def white(shape: tuple[int, int], blur: float = 0.0, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if not blur:
        return noise
    noise = cv2.GaussianBlur(noise, (0, 0), blur)
    return noise / noise.std()


def high_pass_std(picture: np.ndarray) -> float:
    luma = picture.astype(np.float32) @ LUMA
    return float((luma - cv2.GaussianBlur(luma, (0, 0), 1.0)).std())


@pytest.mark.parametrize("strength", [0.5, 2.0, 7.0])
def test_noise_is_measured_in_levels_and_shading_and_detail_are_not_noise(strength: float) -> None:
    picture = strength * white((240, 240))
    where = np.ones((240, 240), bool)
    assert noise_level(picture, where) == pytest.approx(strength, rel=0.05)
    shaded = picture + np.linspace(0, 200, 240, dtype=np.float32)[:, None]
    assert noise_level(shaded, where) == pytest.approx(strength, rel=0.05)
    # Half of the blocks show hair.
    shaded[:120:2] += 60
    assert noise_level(shaded, where) == pytest.approx(strength, rel=0.15)


def test_too_little_to_see_says_nothing() -> None:
    where = np.zeros((240, 240), bool)
    where[:16, :80] = True
    assert np.isnan(noise_level(white((240, 240)), where))


def patched(under: np.ndarray, weight: float = 1.0, frame: int = 3) -> tuple[Patch, np.ndarray]:
    """A flat patch in the lower half, and what the picture becomes with grain."""
    shape = under.shape[:2]
    weights = np.zeros(shape, np.float32)
    weights[shape[0] // 2 :] = weight
    patch = Patch(0, 0, np.full((*shape, 3), 120, np.float32), weights)
    kept = weights == 0
    kept[shape[0] // 2 - 20 : shape[0] // 2] = False
    grainy = with_grain(patch, under, kept, frame)
    return grainy, grainy.mixed(under)


@pytest.mark.parametrize(("strength", "blur"), [(3, 0.0), (8, 0.0), (4, 0.5), (8, 0.5), (8, 0.8)])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_grain_is_as_strong_and_as_coarse_as_around(
    strength: float, blur: float, weight: float
) -> None:
    noise = strength * white((400, 400), blur)
    under = np.clip(120 + np.rint(noise), 0, 255)[..., None].repeat(3, -1).astype(np.uint8)
    _, mixed = patched(under, weight)
    inside, around = mixed[220:] @ LUMA, mixed[:180] @ LUMA
    assert high_pass_std(mixed[220:]) == pytest.approx(high_pass_std(mixed[:180]), rel=0.15)
    assert inside.std() == pytest.approx(around.std(), rel=0.25)


def test_a_clean_picture_is_left_alone() -> None:
    under = np.clip(120 + np.rint(0.7 * white((400, 400))), 0, 255)[..., None]
    under = under.repeat(3, -1).astype(np.uint8)
    grainy, mixed = patched(under)
    assert (grainy.rgb == 120).all()
    assert (mixed[220:] == 120).all()


def test_a_frame_has_its_own_grain_and_always_the_same() -> None:
    noise = 5 * white((400, 400))
    under = np.clip(120 + noise, 0, 255)[..., None].repeat(3, -1).astype(np.uint8)
    first, again, other = (patched(under, frame=frame)[1] for frame in (1, 1, 2))
    assert (first == again).all()
    assert np.corrcoef(first[220:, :, 0].ravel(), other[220:, :, 0].ravel())[0, 1] < 0.05
    # Of a patch that nobody sees nothing is measured.
    unseen, _ = patched(under, weight=0)
    assert (unseen.rgb == 120).all()


class Smooth(Brightener):
    """Paints the face without its detail, as a network would."""

    def window(self, faces: np.ndarray, *_: Any) -> np.ndarray:
        return np.stack([cv2.GaussianBlur(face, (0, 0), 3).astype(np.float32) for face in faces])


@pytest.mark.parametrize("strength", [0.0, 4.0, 9.0])
def test_the_mouth_of_a_grainy_video_is_grainy(
    strength: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, speech, output = tmp_path / "v.mkv", tmp_path / "s.flac", tmp_path / "o.mp4"
    written: list[np.ndarray] = []

    class Recorder(VideoWriter):
        def write(self, picture: np.ndarray | Canvas, time_s: Any = None) -> None:
            assert isinstance(picture, Canvas)
            written.append(picture.rgb.copy())
            super().write(picture, time_s)

    calm = cv2.GaussianBlur(portrait(SIDE), (0, 0), 2).astype(np.float32)
    with VideoWriter(video, SIDE, SIDE, 25, crf=2) as writer:
        for number in range(COUNT):
            noise = strength * white((SIDE, SIDE), 0.5, seed=number)[..., None]
            writer.write(np.clip(np.rint(calm + noise), 0, 255).astype(np.uint8))
    write_flac(speech, np.full(640 * COUNT, 0.1, np.float32), 16000)
    # The middle of the crop lies on the portrait's face.
    matrix = np.array([[0.75, 0.0, -41.0], [0.0, 0.75, -42.0]])
    give_scan(
        monkeypatch,
        FaceScan(
            np.arange(COUNT) / 25,
            COUNT / 25,
            [0] * COUNT,
            [matrix] * COUNT,
            np.full(COUNT, 0.1),
            np.zeros((COUNT, 4)),
        ),
    )
    generator = Smooth(RESOLUTION)
    generator.region[: RESOLUTION // 2] = 0
    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: generator)
    monkeypatch.setattr(lipsync_video, "VideoWriter", Recorder)
    lip_sync_video(video, speech, output, tmp_path)
    sources = [frame.rgb for frame in read_frames(video, fps=None)]
    assert len(written) == COUNT
    for before, after in zip(sources, written, strict=True):
        assert (after[INSIDE] != before[INSIDE]).mean() > (0.5 if strength else 0.1)
        assert (after[AROUND] == before[AROUND]).all()
        if strength:
            ratio = high_pass_std(after[INSIDE]) / high_pass_std(before[AROUND])
            assert ratio == pytest.approx(1, abs=0.25)
        else:
            assert high_pass_std(after[INSIDE]) <= high_pass_std(before[INSIDE])


def test_a_face_that_has_grain_already_gets_only_what_is_missing() -> None:
    noise = np.rint(6 * white((400, 400)))
    under = np.clip(120 + noise, 0, 255)[..., None].repeat(3, -1).astype(np.uint8)
    own = (120 + 5 * white((400, 400), seed=9)[..., None].repeat(3, -1)).astype(np.float32)
    patch, _ = patched(under)
    grainy = with_grain(replace(patch, rgb=own), under, patch.weights == 0, 3)
    assert high_pass_std(grainy.rgb[220:]) == pytest.approx(high_pass_std(under[:180]), rel=0.1)


def test_what_is_behind_the_chin_is_not_asked() -> None:
    region = face_mask(64)[0, 0].numpy() == 0
    kept = kept_around(region.astype(np.float32)) > 0
    rows = np.flatnonzero(kept.any(axis=1))
    assert rows.max() < 0.62 * 64
    assert not (kept & region).any()
    # Brows and the nose are there.
    assert kept[8:20].all()
    assert kept[28, 32]
