"""What is wrong with frames whoever speaks: no sound, a frozen picture, lips that are still."""

import numpy as np
import pytest

from datasets.errors import Reason
from datasets.faces.landmarks import INNER_LIP_PAIRS
from tasks.ingest.frame_facts import frame_facts, is_frozen, is_still, runs, same
from tasks.sync.belonging import CHANGE
from tasks.sync.signals import MAX_LAG
from tests.support.mouths import loudness, mouth, sound

FRAMES = 150


def speaking() -> tuple[np.ndarray, np.ndarray]:
    """Landmarks and sound, with margins, of somebody who speaks."""
    curve = loudness(FRAMES + 2 * MAX_LAG, 2)
    landmarks = mouth(curve[MAX_LAG:-MAX_LAG])
    upper, lower = (np.array(INNER_LIP_PAIRS)[:, side] for side in (0, 1))
    landmarks[:, lower] = landmarks[:, upper]
    landmarks[:, lower, 1] += 8 * curve[MAX_LAG:-MAX_LAG, None].astype(np.float32)
    return landmarks, sound(curve)


def test_nothing_is_wrong_with_speech() -> None:
    landmarks, audio = speaking()
    facts = frame_facts(landmarks, audio, np.ones(FRAMES, np.float32), lips=True)
    assert set(facts.wrong) == {Reason.NONE}
    assert facts.sound.mean() > 0.9
    assert facts.by_lag is not None
    assert facts.by_lag.argmax() == MAX_LAG
    assert facts.by_lag[MAX_LAG] > 3 * CHANGE


@pytest.mark.parametrize(("missing", "named"), [(37, 0), (38, 38), (70, 70)])
def test_sound_that_stops_is_missing_unless_it_is_a_pause(missing: int, named: int) -> None:
    landmarks, audio = speaking()
    audio[(MAX_LAG + 40) * 640 : (MAX_LAG + 40 + missing) * 640] = 0
    facts = frame_facts(landmarks, audio, None, lips=False)
    assert [at for at, each in enumerate(facts.wrong) if each is Reason.NO_SOUND] == list(
        range(40, 40 + named)
    )
    assert facts.ratios is None
    assert np.isnan(facts.speech).all()


def test_a_picture_that_stands_still_is_frozen() -> None:
    landmarks, _ = speaking()
    assert not is_frozen(landmarks).any()
    held = landmarks.copy()
    held[60:110] = held[60] + np.random.default_rng(0).normal(0, 0.005, (50, 478, 2))
    frozen = is_frozen(held)
    assert frozen[62:108].all()
    assert not frozen[:58].any()
    assert not frozen[113:].any()
    # Where the encoder begins a new group, everything jumps once.
    for at in (72, 84, 96):
        held[at:110] += 0.5
    assert is_frozen(held)[62:108].all()
    held[60:73] = landmarks[60:73]
    held[73:110] = landmarks[73:110]
    held[62:74] = held[62]
    assert not is_frozen(held).any(), "half a second is a picture that was repeated"


def test_lips_are_still_only_where_somebody_speaks() -> None:
    rng = np.random.default_rng(0)
    moving = 0.1 + 0.03 * np.sin(np.arange(FRAMES) / 3)
    opening = moving.copy()
    opening[50:110] = 0.1 + rng.normal(0, 0.001, 60)
    spoken = np.ones(FRAMES, bool)
    still = is_still(opening, spoken)
    assert still[52:108].all()
    assert not still[:44].any()
    assert not still[116:].any()
    assert not is_still(opening, ~spoken).any()
    assert not is_still(moving, spoken).any()
    assert not is_still(opening[60:90], spoken[60:90]).any(), "a pause"


def test_without_a_model_no_lips_are_called_still() -> None:
    _, audio = speaking()
    upper, lower = (np.array(INNER_LIP_PAIRS)[:, side] for side in (0, 1))
    closed = mouth(np.zeros(FRAMES))
    closed[:, lower] = closed[:, upper]
    facts = frame_facts(closed, audio, np.ones(FRAMES, np.float32), lips=False)
    assert set(facts.wrong) == {Reason.STILL_LIPS}
    assert set(frame_facts(closed, audio, None, lips=False).wrong) == {Reason.NONE}


@pytest.mark.parametrize(("degrees", "named"), [(0, False), (80, False), (170, True), (-150, True)])
def test_a_face_that_hangs_is_named_and_one_that_lies_is_not(degrees: float, named: bool) -> None:
    landmarks, audio = speaking()
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks[50:] = landmarks[50:] @ turn.T
    facts = frame_facts(landmarks, audio, np.ones(FRAMES, np.float32), lips=True)
    assert set(facts.wrong[:50]) == {Reason.NONE}
    assert set(facts.wrong[50:]) == {Reason.UPSIDE_DOWN if named else Reason.NONE}


def test_runs() -> None:
    assert runs(np.array([1, 1, 0, 1], bool)) == [(0, 2), (3, 4)]
    assert runs(np.zeros(3, bool)) == []
    assert same("aabccc") == [(0, 2), (2, 3), (3, 6)]
    assert same("") == []
