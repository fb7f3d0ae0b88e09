"""Cuts found in the one pass against PySceneDetect's own, on real footage."""

import json
from pathlib import Path

import numpy as np
import pytest
from scenedetect import (
    AdaptiveDetector,
    ContentDetector,
    SceneDetector,
    SceneManager,
    open_video,
)

from datasets.media import read_frames
from tasks.faces.shots import ShotConfig, ShotDetector

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

ADAPTIVE = ShotConfig(least_change=15, least_frames=15, content_threshold=np.inf)
CONTENT = ShotConfig(adaptive_threshold=np.inf, least_frames=15)
"""Each of PySceneDetect's detectors alone with its own defaults."""
TRUTH = {"AdaptiveDetector": ADAPTIVE, "ContentDetector": CONTENT}


def ours(path: Path, *configs: ShotConfig) -> list[list[int]]:
    """Cuts in native frames by each configuration, from one decode."""
    detectors = [ShotDetector(config=config) for config in configs]
    for frame in read_frames(path, fps=None):
        for detector in detectors:
            detector.add(frame.picture)
    return [detector.cuts() for detector in detectors]


def theirs(path: Path, *detectors: SceneDetector) -> list[int]:
    manager = SceneManager()
    for detector in detectors:
        manager.add_detector(detector)
    manager.detect_scenes(open_video(str(path), backend="pyav"))
    return [start.frame_num for start, _ in manager.get_scene_list()][1:]


def assert_equal(found: list[int], expected: list[int]) -> None:
    assert len(found) == len(expected), (found, expected)
    assert all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True)), (found, expected)


def test_published_cuts(shared: Path) -> None:
    found = ours(shared / "clips/psd_testvideo_cuts_noaudio.mp4", *TRUTH.values())
    for name, cuts in zip(TRUTH, found, strict=True):
        truth = json.loads((shared / f"truth/psd_testvideo.{name}.json").read_text())
        assert_equal(cuts, truth["cuts"])


def test_equals_pyscenedetect_on_every_clip(shared: Path) -> None:
    default = ShotConfig()
    seen = 0
    for path in sorted((shared / "clips").iterdir()):
        adaptive, content, both = ours(path, ADAPTIVE, CONTENT, default)
        assert_equal(adaptive, theirs(path, AdaptiveDetector()))
        assert_equal(content, theirs(path, ContentDetector()))
        expected = theirs(
            path,
            AdaptiveDetector(min_content_val=default.least_change, min_scene_len=0),
            ContentDetector(min_scene_len=0),
        )
        assert_equal(both, expected)
        seen += len(adaptive) + len(content) + len(both)
    assert seen > 20
