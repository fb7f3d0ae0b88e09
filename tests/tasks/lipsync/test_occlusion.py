"""What passes in front of a face stays in front of its new mouth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from datasets.errors import UserError
from datasets.faces.alignment import Aligner, align, align_points
from datasets.faces.landmarks import FaceMeshDetector
from datasets.faces.points import SHAPE
from datasets.media import VideoWriter, read_frames, write_flac
from models.latentsync.mask import face_mask
from tasks.lipsync import video as lipsync_video
from tasks.lipsync.face_scan import FaceScan
from tasks.lipsync.occlusion import SAMPLES, Occlusion, make_occlusion
from tasks.lipsync.video import lip_sync_video
from tests.support.fake_generator import Brightener, recorded_frames
from tests.support.fake_scan import give_scan
from tests.support.portrait import portrait

SIDE, RESOLUTION, COUNT = 320, 128, 24
REGION = (face_mask(RESOLUTION)[0, 0].numpy() == 0).astype(np.float32)
MOUTH = (153, 157)
"""In the portrait."""


def mesh() -> np.ndarray:
    with FaceMeshDetector(max_faces=1) as detector:
        return detector.detect(portrait(SIDE))[0].landmarks


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    return mesh()


@pytest.fixture(scope="module")
def matrix(landmarks: np.ndarray) -> np.ndarray:
    return Aligner(RESOLUTION).matrix(landmarks)


def speaking(number: int, cup: tuple[int, int] | None = None, side: int = SIDE) -> np.ndarray:
    """The portrait in other light and with another mouth in every frame, behind a cup or not."""
    picture = portrait(side).astype(np.float32) * (1 + 0.04 * np.sin(number))
    picture = np.ascontiguousarray(picture)
    opening = int(9 * abs(np.sin(1.7 * number)))
    if opening:
        cv2.ellipse(picture, MOUTH, (18, opening), 0, 0, 360, (70, 25, 25), -1)
    if cup is not None:
        left, top = cup
        cv2.rectangle(picture, (left, top), (left + 45, top + 55), (40, 70, 150), -1)
        cv2.rectangle(picture, (left + 6, top + 20), (left + 38, top + 30), (220, 220, 200), -1)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


Face = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def shape(landmarks: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return align_points(landmarks[list(SHAPE)], matrix, RESOLUTION)


@pytest.fixture(scope="module")
def finder(matrix: np.ndarray, shape: np.ndarray) -> Occlusion:
    """Of a shot in which the cup passes in two of twelve frames."""
    faces = [
        align(speaking(number, (130, 145) if number in (4, 5) else None), matrix, RESOLUTION)
        for number in range(SAMPLES)
    ]
    return Occlusion(np.stack(faces), np.repeat(shape[None], SAMPLES, axis=0), REGION)


def test_nothing_is_in_front_of_a_mouth_that_speaks(
    finder: Occlusion, matrix: np.ndarray, shape: np.ndarray
) -> None:
    for number in range(20, 60):
        assert not finder(align(speaking(number), matrix, RESOLUTION), shape).any()


@pytest.mark.parametrize("cup", [(100, 140), (120, 145), (140, 150), (150, 155)])
def test_a_cup_is_in_front_and_what_is_beside_it_is_not(
    cup: tuple[int, int], finder: Occlusion, matrix: np.ndarray, shape: np.ndarray
) -> None:
    without, there = speaking(33), speaking(33, cup)
    front = finder(align(there, matrix, RESOLUTION), shape)
    changed = (there != without).any(axis=-1).astype(np.uint8) * 255
    covered = align(changed[..., None].repeat(3, axis=-1), matrix, RESOLUTION)[..., 0] / 255
    inside = REGION > 0
    cup_there = (covered > 0.9) & inside
    assert cup_there.sum() > 0.05 * inside.sum()
    assert front[cup_there].mean() > 0.9
    beside = inside & (cv2.dilate(covered, np.ones((9, 9))) < 0.1)
    assert front[beside].mean() < 0.03
    assert 0 <= front.min() <= front.max() <= 1


def test_what_is_there_all_the_time_is_the_face(matrix: np.ndarray, shape: np.ndarray) -> None:
    faces = [align(speaking(k, (130, 145)), matrix, RESOLUTION) for k in range(SAMPLES)]
    found = Occlusion(np.stack(faces), np.repeat(shape[None], SAMPLES, axis=0), REGION)
    assert not found(align(speaking(50, (130, 145)), matrix, RESOLUTION), shape).any()


def test_a_face_that_changes_altogether_is_no_occlusion(
    finder: Occlusion, matrix: np.ndarray, shape: np.ndarray
) -> None:
    lit = np.clip(speaking(30).astype(np.float32) * [1.3, 1.0, 0.7], 0, 255).astype(np.uint8)
    assert not finder(align(lit, matrix, RESOLUTION), shape).any()


def test_a_short_shot_is_not_judged_and_a_long_one_by_frames_of_all_of_it() -> None:
    asked: list[int] = []

    def faces(sources: Any) -> np.ndarray:
        asked.extend(sources)
        return np.zeros((len(sources), 32, 32, 3), np.uint8)

    def shapes(sources: Any) -> np.ndarray:
        rng = np.random.default_rng(0)
        return rng.uniform(4, 28, (len(sources), len(SHAPE), 2))

    assert make_occlusion(range(SAMPLES - 1), faces, shapes, np.ones((32, 32))) is None
    assert not asked
    assert make_occlusion(range(100, 300), faces, shapes, np.ones((32, 32))) is not None
    assert (asked[0], asked[-1], len(asked)) == (100, 299, SAMPLES)


CUP_FRAMES = range(9, 14)


@pytest.fixture
def job(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    landmarks: np.ndarray,
    matrix: np.ndarray,
) -> tuple[Path, Path]:
    """A video in which a cup passes, and speech; parts of 5 frames."""
    video, speech = tmp_path / "v.mkv", tmp_path / "s.flac"
    with VideoWriter(video, SIDE, SIDE, 25, crf=2) as writer:
        for number in range(COUNT):
            cup = (90 + 12 * (number - 9), 140) if number in CUP_FRAMES else None
            writer.write(speaking(number, cup))
    write_flac(speech, np.full(640 * COUNT, 0.1, np.float32), 16000)
    scan = FaceScan(
        np.arange(COUNT) / 25,
        COUNT / 25,
        [0] * COUNT,
        [matrix] * COUNT,
        np.full(COUNT, 0.1),
        np.zeros((COUNT, 4)),
        np.repeat(landmarks[None, list(SHAPE)], COUNT, axis=0),
    )
    give_scan(monkeypatch, scan)

    class Repainter(Brightener):
        def window(self, faces: np.ndarray, *_: Any) -> np.ndarray:
            return 0 * faces.astype(np.float32) + [10, 200, 10]

    generator = Repainter(RESOLUTION, reference="frame")
    generator.region = REGION
    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: generator)
    monkeypatch.setattr(lipsync_video, "PART", 5)
    return video, speech


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    return recorded_frames(monkeypatch)


@pytest.mark.parametrize("occlusion", ["keep", "off"])
def test_the_cup_stays_as_it_was(
    occlusion: str, job: tuple[Path, Path], written: list[np.ndarray], tmp_path: Path
) -> None:
    lip_sync_video(*job, tmp_path / "o.mp4", tmp_path, occlusion=occlusion)
    sources = [frame.rgb for frame in read_frames(job[0], fps=None)]
    assert len(written) == COUNT
    for number, (before, after) in enumerate(zip(sources, written, strict=True)):
        changed = np.abs(after.astype(int) - before).max(axis=-1) > 30
        if number not in CUP_FRAMES:
            assert changed[145:180, 135:170].all()
            continue
        left = 90 + 12 * (number - 9)
        # The cup without its edge, as far as it lies on the lower face.
        cup = np.s_[150:175, max(left + 5, 128) : left + 40]
        if cup[1].stop - cup[1].start < 12:
            continue
        assert changed.sum() > 500
        share = changed[cup].mean()
        assert share > 0.95 if occlusion == "off" else share < 0.05


def test_parts_after_an_interruption_are_the_same(job: tuple[Path, Path], tmp_path: Path) -> None:
    def stop(done: int, total: int | None, note: str = "") -> None:
        if note == "repainting faces" and done == 12:
            raise KeyboardInterrupt

    whole, again = tmp_path / "whole.mp4", tmp_path / "again.mp4"
    lip_sync_video(*job, whole, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        lip_sync_video(*job, again, tmp_path, progress=stop)
    assert len(list((tmp_path / ".again.mp4.parts").glob("part-*"))) == 2
    lip_sync_video(*job, again, tmp_path)
    assert again.read_bytes() == whole.read_bytes()


def test_values_that_there_are_not_are_refused(job: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--occlusion must be keep or off, got 'on'"):
        lip_sync_video(*job, tmp_path / "o.mp4", tmp_path, occlusion="on")
