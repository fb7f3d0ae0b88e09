from pathlib import Path

import numpy as np
import pytest

from tasks.lipsync.choice import Choice
from tasks.lipsync.face_scan import FaceScan
from tasks.lipsync.playback import BACK_AND_FORTH, HOLD, LOOP, Plan, Shown, plan_length
from tasks.lipsync.result import LipSyncResult, describe_people


def result(length: str, video_s: float, speech_s: float) -> LipSyncResult:
    return LipSyncResult(
        Path("out.mp4"),
        25,
        25,
        1.0,
        np.arange(25) / 25,
        video_s=video_s,
        speech_s=speech_s,
        plan=plan_length(length, video_s, speech_s, 0.04),
        length=length,
    )


@pytest.mark.parametrize(
    ("length", "video_s", "speech_s", "said"),
    [
        ("auto", 3.0, 3.0, ""),
        ("auto", 3.0, 3.013, ""),
        ("auto", 3.0, 1.0, "3.0 s of video for 1.0 s of speech: the video was cut where the"),
        ("auto", 1.0, 3.0, "1.0 s of video for 3.0 s of speech: played back and forth until"),
        ("loop", 1.0, 3.0, "1.0 s of video for 3.0 s of speech: played again and again until"),
        ("hold", 1.0, 3.0, "1.0 s of video for 3.0 s of speech: frozen at its last frame"),
        ("cut", 1.0, 3.0, "1.0 s of video for 3.0 s of speech: the speech was cut where the"),
        ("cut", 3.0, 1.0, "3.0 s of video for 1.0 s of speech: the video was cut where the"),
        ("keep", 3.0, 1.0, "3.0 s of video for 1.0 s of speech: after the speech the video"),
        ("keep", 1.0, 3.0, "1.0 s of video for 3.0 s of speech: the speech was cut where the"),
    ],
)
def test_what_became_of_lengths_is_said(
    length: str, video_s: float, speech_s: float, said: str
) -> None:
    notes = result(length, video_s, speech_s).notes
    assert len(notes) == bool(said)
    assert not said or notes[0].startswith(said)


def test_plans_name_what_is_shown_at_the_end() -> None:
    assert {plan_length(each, 1, 3, 0.04).then for each in ("auto", "loop", "hold")} == {
        BACK_AND_FORTH,
        LOOP,
        HOLD,
    }
    assert result("auto", 1.0, 3.0).extended
    assert not result("auto", 3.0, 1.0).extended
    assert result("auto", 1.0, 3.0).plan == Plan(3.0, BACK_AND_FORTH)


def test_when_the_face_is_not_there_is_said() -> None:
    count = 100
    there = np.eye(2, 3)
    away = {*range(30, 40), 60, *range(90, 100)}
    faces = FaceScan(
        np.arange(count) / 25,
        4.0,
        [0] * count,
        [None if index in away else there for index in range(count)],
        np.zeros(count),
        np.zeros((count, 4)),
    )
    order = [Shown(index, index / 25) for index in range(count)]
    (alone,) = describe_people(faces, Choice(0, 1, ""), order, 4.0)
    assert alone == (
        "the face cannot be seen for 0.8 s of the output (1.2 to 1.6 s, 3.6 to 4.0 s): these "
        "frames stay as they were"
    )
    who, gaps = describe_people(faces, Choice(1, 3, "as --face says"), order, 2.0)
    assert who.startswith("3 people were seen: number 2 was repainted, as --face says")
    # Behind the speech nothing was to be repainted.
    assert "face number 2 cannot be seen for 0.4 s of the output (1.2 to 1.6 s)" in gaps
