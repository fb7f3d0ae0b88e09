"""Streaming shot detection against PySceneDetect's own run and known cuts."""

import numpy as np
import pytest

from tasks.faces.shots import LATENCY, ShotDetector
from tests.support.portrait import moving


def scene(frames: int, seed: int) -> list[np.ndarray]:
    """A picture of coloured blocks that drifts and flickers a little."""
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(40, 215, (6, 8, 3)).repeat(40, axis=0).repeat(40, axis=1)
    return [
        np.clip(np.roll(blocks, index, axis=1) + rng.normal(0, 3, blocks.shape), 0, 255).astype(
            np.uint8
        )
        for index in range(frames)
    ]


def test_finds_cuts_and_says_so_in_time() -> None:
    frames = scene(20, 1) + scene(13, 2) + scene(25, 3) + moving(15, 240)
    # Pictures of another size than the rest cannot happen in one video: pad the last scene.
    frames = [np.pad(f, ((0, 0), (0, 80), (0, 0))) if f.shape[1] == 240 else f for f in frames]
    detector = ShotDetector()
    told = {cut: index for index, frame in enumerate(frames) for cut in detector.add(frame)}
    assert detector.cuts() == [20, 33, 58] == sorted(told)
    assert all(0 <= index - cut <= LATENCY for cut, index in told.items())


def test_no_cuts_in_one_shot() -> None:
    detector = ShotDetector(29.97)
    assert not [cut for frame in moving(40) for cut in detector.add(frame)]
    assert detector.cuts() == []


def test_a_cut_right_before_the_end_is_found() -> None:
    detector = ShotDetector()
    for frame in scene(10, 1) + scene(1, 2):
        detector.add(frame)
    assert detector.cuts() == [10]


def test_equals_scenedetect_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    from scenedetect import AdaptiveDetector, ContentDetector, SceneManager, open_video

    from datasets.media import VideoWriter, read_frames

    path = tmp_path_factory.mktemp("shots") / "cuts.mp4"
    with VideoWriter(path, 320, 240, 25) as writer:
        for frame in scene(20, 4) + scene(20, 5) + scene(20, 6):
            writer.write(frame)
    manager = SceneManager()
    manager.add_detector(AdaptiveDetector(min_scene_len=0))
    manager.add_detector(ContentDetector(min_scene_len=0))
    video = open_video(str(path), backend="pyav")
    manager.detect_scenes(video)
    expected = [start.frame_num for start, _ in manager.get_scene_list()][1:]
    detector = ShotDetector()
    for decoded in read_frames(path):
        detector.add(decoded.rgb)
    assert detector.cuts() == expected == [20, 40]
