"""Which pictures of a clip windows show, by clips whose frames say which ones they are."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.recipes.recipe import recipe
from tasks.train.sync_windows import sync_windows
from tasks.train.unet_windows import unet_windows
from tests.support.counting_store import SIDE, CountingStore

DEBUG = recipe("debug")


@pytest.mark.parametrize(("sees", "rows"), [("pixels", SIDE // 2), ("latents", SIDE)])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_a_sync_network_on_latents_sees_all_of_the_face(sees: str, rows: int, shift: float) -> None:
    config = replace(DEBUG.syncnet, sees=sees, shift=shift, resolution=SIDE)  # type: ignore[arg-type]
    content = CountingStore(80).content("clip0")
    for window in sync_windows(content, config, np.random.default_rng(0), [True, False]):
        assert window.frames.shape == (config.num_frames, rows, SIDE, 3)


@pytest.mark.parametrize("lag", [1, 3])
def test_the_pose_is_the_frame_before_the_window(lag: int) -> None:
    config = replace(DEBUG.stage1, frame_step=1, pose_dropout=0.0, swap_surroundings=0.0)
    content = CountingStore(60).content("clip0")
    windows = unet_windows(content, config, 1, np.random.default_rng(0), 40, lag=lag)
    firsts = set()
    for window in windows:
        assert window.pose is not None
        first, pose = int(window.target[0, 0, 0, 0]), int(window.pose[0, 0, 0, 0])
        firsts.add(first)
        if first >= lag:
            assert (pose, window.pose_shown) == (first - lag, 1.0)
        else:
            assert pose == first
    assert max(firsts) > 40


def test_a_pose_that_is_dropped_is_not_shown() -> None:
    config = replace(DEBUG.stage1, frame_step=1, pose_dropout=1.0)
    content = CountingStore(60).content("clip0")
    windows = unet_windows(content, config, 1, np.random.default_rng(0), 10, lag=1)
    assert {window.pose_shown for window in windows} == {0.0}
