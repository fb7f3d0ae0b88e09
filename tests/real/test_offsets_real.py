"""The scorer mouth-audio on real talking heads whose sound is moved, or another one's."""

import pytest

from benchmarks.mouth_audio_fit import KNOWN_OFFSETS, LeftOut
from benchmarks.offsets import Footage, measure
from tasks.sync.mouth_audio import MouthAudioScorer

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


def test_which_clips_are_measured(footage: list[Footage]) -> None:
    """All of one frontal speaker with sound; not silent, mute, cut or two-face ones."""
    others = {"latentsync_demo1_25fps.mp4", "latentsync_demo2_25fps.mp4"}
    assert {each.name for each in footage} == set(KNOWN_OFFSETS) | others


@pytest.mark.parametrize("longest", [250, 125])
def test_shifts_are_recovered_and_foreign_sound_is_not_believed(
    footage: list[Footage], longest: int
) -> None:
    figures, _ = measure(MouthAudioScorer(), footage, longest)
    assert figures.recovered >= 0.9
    assert figures.confident >= 0.6
    assert figures.foreign <= 0.05
    assert figures.counts["long"] >= 11
    assert figures.counts["shifts"] > 250
    assert figures.counts["foreign"] > 300


def test_speakers_that_were_left_out_of_the_fit_do_as_well(footage: list[Footage]) -> None:
    figures, results = measure(LeftOut(footage), footage, 250)
    assert figures.recovered >= 0.9
    assert figures.confident >= 0.6
    assert figures.foreign <= 0.05
    for each in results:
        if each.confident and each.name in KNOWN_OFFSETS:
            # What is known is known to about a frame.
            assert abs(each.offset - KNOWN_OFFSETS[each.name]) <= 1.5, each
