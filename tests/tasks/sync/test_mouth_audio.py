"""The mouth-audio scorer finds known shifts, and is not sure where there is nothing to find."""

import numpy as np
import pytest

from datasets.media import SAMPLES_PER_FRAME
from tasks.sync.mouth_audio import MouthAudioScorer, _peak
from tasks.sync.signals import MAX_LAG, ClipSignals, OffsetScore
from tests.support.mouths import loudness, mouth, sound

SCORER = MouthAudioScorer()


@pytest.mark.parametrize("shift", [-15, -9, -4, 0, 1, 6, 9, 15])
def test_finds_known_shifts(shift: int) -> None:
    frames = 150
    curve = loudness(frames + 40, seed=abs(shift))
    audio = sound(np.roll(curve, shift))[20 * SAMPLES_PER_FRAME :]
    score = SCORER.measure(mouth(curve[20:-20]), audio[: frames * SAMPLES_PER_FRAME])
    assert score.offset_frames == pytest.approx(shift, abs=1)
    assert score.confidence > 4


def test_finds_parts_of_a_frame() -> None:
    curve = loudness(240, 5)
    audio = sound(curve)
    for late in (0.0, 0.5):
        samples = round(late * SAMPLES_PER_FRAME)
        moved = np.concatenate([np.zeros(samples, np.float32), audio])
        scores = SCORER.measure(mouth(curve), moved)
        assert scores.offset_frames == pytest.approx(late, abs=0.3)


def test_three_seconds_are_enough_for_clear_speech() -> None:
    curve = loudness(75, 3)
    score = SCORER.measure(mouth(curve), sound(curve))
    assert abs(score.offset_frames) <= 1
    assert score.confidence > SCORER.min_confidence


def test_audio_of_another_clip_is_rarely_sure() -> None:
    confident = [
        SCORER.measure(mouth(loudness(125, seed)), sound(loudness(125, seed + 500))).confidence
        > SCORER.min_confidence
        for seed in range(60)
    ]
    assert sum(confident) <= 6


def test_longer_clips_are_surer() -> None:
    curve = loudness(250, 1)
    long = SCORER.measure(mouth(curve), sound(curve)).confidence
    short = SCORER.measure(mouth(curve[:75]), sound(curve[:75])).confidence
    assert long > 1.3 * short


def test_a_rhythm_that_fits_at_several_shifts_is_not_sure() -> None:
    steady = np.clip(np.sin(np.arange(150) * 2 * np.pi / 9), 0, 1)
    speech = loudness(150, 4)
    rhythm = SCORER.measure(mouth(steady), sound(steady))
    sure = SCORER.measure(mouth(speech), sound(speech))
    assert rhythm.confidence < 0.6 * sure.confidence


@pytest.mark.parametrize("rival", [0.0, 0.5, 0.99])
def test_the_lead_over_the_second_peak_counts_as_much_as_the_height(rival: float) -> None:
    """All other shifts are 0, so that every number can be worked out by hand."""
    curve = np.zeros(200)
    curve[5], curve[-5] = 1.0, rival
    score = _peak(curve, chance_variance=0.01)
    assert score.offset_frames == 5
    # 200 - 31 shifts beyond the search, 22 within it and not of the peak, 30 expected ones.
    weight = 169 + 22 + 30
    mean = rival / weight
    squares = (190 * mean**2 + (rival - mean) ** 2) + 30 * 0.01
    deviation = (squares / weight) ** 0.5
    expected = ((1 - mean) / deviation + (1 - rival) / deviation + 1.5) / 2
    assert score.confidence == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("case", ["silence", "still mouth", "too short", "no audio"])
def test_nothing_to_measure(case: str) -> None:
    curve = loudness(100, 2)
    landmarks, audio = mouth(curve), sound(curve)
    if case == "silence":
        audio = np.zeros_like(audio)
    elif case == "still mouth":
        landmarks = np.repeat(landmarks[:1], 100, axis=0)
    elif case == "too short":
        landmarks, audio = landmarks[: MAX_LAG - 1], audio[:640]
    else:
        audio = audio[:0]
    assert SCORER.measure(landmarks, audio) == OffsetScore(0.0, 0.0)


def test_size_and_place_of_the_face_do_not_matter() -> None:
    curve = loudness(120, 7)
    near, audio = mouth(curve), sound(curve)
    first, second = SCORER.measure(near, audio), SCORER.measure(near * 4 + 300, audio * 0.2)
    assert first.offset_frames == pytest.approx(second.offset_frames, abs=0.01)
    assert first.confidence == pytest.approx(second.confidence, rel=1e-2)


def test_clips_of_any_lengths_at_once() -> None:
    clips = []
    for frames in (80, 40, 120):
        curve = loudness(frames, frames)
        clips.append(ClipSignals(mouth(curve), sound(curve)))
    scores = SCORER.score(clips)
    assert scores == [SCORER.measure(clip.landmarks, clip.audio) for clip in clips]
    assert SCORER.score([]) == []
    assert all(np.isnan(score.distance) for score in scores)
