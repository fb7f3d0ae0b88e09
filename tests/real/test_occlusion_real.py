"""Real hands over real faces stay in front of the new mouth, and speech alone is never a hand."""

from pathlib import Path

import pytest

from benchmarks.lipsync_occlusion import false_alarms, kept_hand, occluded, scanned
from tests.support.hands import cut_hands


@pytest.mark.real
@pytest.mark.parametrize("name", ["grid_lbbc2a.mpg", "grid_lwbsza.mpg", "retalk_1.mp4"])
def test_a_hand_stays_in_front(name: str, shared: Path, tmp_path: Path) -> None:
    clip = shared / "clips" / name
    hand = cut_hands(shared / "clips" / "latentsync_demo3_30fps.mp4", 408)[0]
    assert hand.alpha.mean() > 0.1
    alphas = occluded(clip, scanned(clip), hand, tmp_path / "hand.mp4")
    found = kept_hand(tmp_path / "hand.mp4", alphas)
    assert len(found) >= 15
    covered, kept, beside = (sum(each) for each in zip(*found, strict=True))
    assert kept > 0.9 * covered
    assert beside < 0.05 * len(found)


@pytest.mark.real
@pytest.mark.parametrize("name", ["grid_lbbc2a.mpg", "retalk_5.mp4", "syncnet_example.avi"])
def test_speech_and_glasses_and_beards_are_no_hands(name: str, shared: Path) -> None:
    clip = shared / "clips" / name
    alarms, frames = false_alarms(clip, scanned(clip))
    assert frames >= 75
    assert alarms == 0
