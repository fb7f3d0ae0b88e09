from pathlib import Path

import numpy as np
import pytest

from datasets.errors import UserError
from datasets.media import VideoWriter
from tasks.lipsync import playback
from tasks.lipsync.playback import (
    AUTO,
    BACK_AND_FORTH,
    CUT,
    HOLD,
    KEEP,
    LOOP,
    Plan,
    Shown,
    frames_in_order,
    plan_length,
    timeline,
)

TIMES = np.array([0.0, 0.1, 0.2])


@pytest.mark.parametrize(
    ("length", "video_s", "speech_s", "expected"),
    [
        (AUTO, 3.0, 1.0, Plan(1.0, HOLD)),
        (AUTO, 1.0, 3.0, Plan(3.0, BACK_AND_FORTH)),
        # 13 ms more of speech are not a reason to turn back.
        (AUTO, 1.0, 1.013, Plan(1.013, HOLD)),
        (BACK_AND_FORTH, 1.0, 3.0, Plan(3.0, BACK_AND_FORTH)),
        (LOOP, 1.0, 3.0, Plan(3.0, LOOP)),
        (HOLD, 1.0, 3.0, Plan(3.0, HOLD)),
        (LOOP, 3.0, 1.0, Plan(1.0, HOLD)),
        (CUT, 1.0, 3.0, Plan(1.0, HOLD)),
        (CUT, 3.0, 1.0, Plan(1.0, HOLD)),
        (KEEP, 1.0, 3.0, Plan(1.0, HOLD)),
        (KEEP, 3.0, 1.0, Plan(3.0, HOLD)),
    ],
)
def test_every_length_is_as_long_as_it_says(
    length: str, video_s: float, speech_s: float, expected: Plan
) -> None:
    assert plan_length(length, video_s, speech_s, 0.04) == expected


def test_other_lengths_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"--length must be one of auto, cut, .* got 'twice'"):
        plan_length("twice", 1.0, 1.0, 0.04)


@pytest.mark.parametrize(
    ("then", "sources"),
    [
        (BACK_AND_FORTH, [0, 1, 2, 2, 1, 0, 0, 1]),
        (LOOP, [0, 1, 2, 0, 1, 2, 0, 1]),
        (HOLD, [0, 1, 2, 2, 2, 2, 2, 2]),
    ],
)
def test_what_is_shown_when_the_frames_are_over(then: str, sources: list[int]) -> None:
    shown = timeline(TIMES, 0.3, Plan(0.75, then))
    assert [each.source for each in shown] == sources
    assert [each.time_s for each in shown] == pytest.approx(np.arange(8) / 10)


def test_a_frame_that_is_shown_again_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 64, 64, 25, crf=4) as writer:
        for index in range(5):
            writer.write(np.full((64, 64, 3), 50 * index, np.uint8))
    readings = 0
    read = playback.read_frames

    def counted(*given: object, **options: object) -> object:
        nonlocal readings
        readings += 1
        return read(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(playback, "read_frames", counted)
    order = [Shown(index, 0.0) for index in (0, 1, 2, 3, 4, 4, 4, 4)]
    frames = list(frames_in_order(path, order, np.arange(5) / 25))
    assert [round(frame.rgb.mean() / 50) for frame in frames] == [0, 1, 2, 3, 4, 4, 4, 4]
    assert readings == 1
