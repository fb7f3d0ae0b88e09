"""Which pictures and windows are compared, and what the labels say they compare with."""

from typing import Any

import cv2
import numpy as np
import pytest

from datasets.faces.landmarks import FaceMeshDetector
from datasets.faces.mediapipe_models import REGION_SCALE, Region
from tasks.evaluate.measurement import Labels, Measurement, SetLabel
from tasks.evaluate.metrics import BORDER, landmarks_of
from tasks.evaluate.published import PublishedCrop
from tasks.evaluate.sets import published_window, spread_frames, windows
from tasks.evaluate.summary import STATISTICS, Summary
from tests.support.portrait import moving


def test_frames_are_spread_and_windows_follow_each_other() -> None:
    assert spread_frames(10, 4).tolist() == [0, 3, 6, 9]
    assert spread_frames(3, 8).tolist() == [0, 1, 2]
    assert windows(50, 2)[:, [0, -1]].tolist() == [[0, 15], [16, 31]]
    assert windows(15, 2).shape == (0, 16)


def test_the_published_window_is_frames_20_to_35() -> None:
    assert published_window(36).tolist() == [list(range(20, 36))]
    assert published_window(35).shape == (0, 16)


class Detector:
    """Finds a face of a given box in every picture, and none in black ones."""

    def __init__(self, box: tuple[float, float, float]) -> None:
        self.x, self.y, self.side = box

    def regions(self, rgb: np.ndarray) -> list[Region]:
        if not rgb.any():
            return []
        return [Region(self.x, self.y, REGION_SCALE * self.side, 0.3)]


def crop(box: tuple[float, float, float]) -> PublishedCrop:
    made = PublishedCrop.__new__(PublishedCrop)
    made._detector = Detector(box)  # type: ignore[assignment]
    return made


def test_the_published_crop_is_the_detectors_box_in_the_picture() -> None:
    side, margin = 100, round(BORDER * 100)
    frames = np.full((40, side, side, 3), 50, np.uint8)
    frames[:, 20:60, 30:70] = 200
    found = crop((50 + margin, 40 + margin, 40))(frames)
    assert found.shape == (1, 16, 224, 224, 3)
    assert (found == 200).all()
    # What lies beyond the aligned face is not made up.
    beyond = crop((50 + margin, 90 + margin, 40))(frames)
    assert beyond.shape == found.shape
    assert (beyond == 50).all()


def test_mediapipes_own_detector_finds_a_real_face() -> None:
    frames = np.stack(moving(36, 128))
    (faces,) = PublishedCrop()(frames)
    # The head fills a part of the picture, and its box less than that.
    shown = np.abs(faces[0].astype(int) - np.asarray(cv2.resize(frames[20], (224, 224)), int))
    assert shown.mean() > 10
    landmarks, seen = landmarks_of(faces, FaceMeshDetector(max_faces=1))
    assert seen == 1
    width = np.ptp(landmarks[:, :, 0], axis=1)
    assert (width > 0.6 * 224).all()


@pytest.mark.parametrize("fault", ["short", "no face"])
def test_a_clip_without_a_face_or_too_short_has_no_published_window(fault: str) -> None:
    frames = np.full((40, 100, 100, 3), 50, np.uint8)
    frames = frames[:35] if fault == "short" else frames
    if fault == "no face":
        frames[35] = 0
    assert crop((85, 85, 40))(frames).shape == (0, 16, 224, 224, 3)


def measured(value: float) -> Measurement:
    values = {number: value for number, _ in STATISTICS.values()}
    sets = {name: np.array([[value], [value + 1]]) for name in ("fid", "fvd", "motion")}
    sets["fvd_latentsync"] = sets["fvd"][:1]
    return Measurement(values, {}, {}, sets, {name: each + 1 for name, each in sets.items()})


@pytest.mark.parametrize(
    ("clips", "with_what"), [(3, "nothing published: 3 clips"), (30, "LatentSync's")]
)
def test_labels_of_sets_say_what_they_compare_with(clips: int, with_what: str) -> None:
    sets = {name: SetLabel("i3d", 1) for name in ("fid", "fvd", "motion", "fvd_latentsync")}
    summary = Summary(Labels("judge", "judge", "lpips", "mouth", "", sets), draws=5)
    for number in range(clips):
        summary.add(f"{number}", measured(float(number)))
    metrics: dict[str, Any] = summary.metrics()
    names = list(metrics)
    assert names[names.index("fid") : names.index("ssim")] == [
        "fid",
        "fvd",
        "cd_fvd",
        "motion_mmd",
        "fvd_latentsync",
    ]
    for name in ("fid", "fvd", "cd_fvd", "motion_mmd"):
        assert "compares with the same clips by this program, not with" in metrics[name]["label"]
        assert metrics[name]["n"] == 2 * clips
    published = metrics["fvd_latentsync"]
    assert "frames 20 to 35 of each clip, box of MediaPipe's" in published["label"]
    assert f"; compares with {with_what}" in published["label"]
    assert published["n"] == clips
