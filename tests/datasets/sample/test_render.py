"""Rendering and encoding of planned clips."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from datasets.sample.plan import ClipPlan, Shot
from datasets.sample.render import render, write_clip
from datasets.sample.voice import Voice, speak

FACE = Shot(0, 8, 50.0, 0.5, 0.6, 1.0, 0.0)
PLAN = ClipPlan(
    index=0,
    seed=0,
    speaker=0,
    kind="plain",
    size=(128, 96),
    fps=Fraction(30000, 1001),
    frames=8,
    audio="speech",
    audio_rate=44100,
    channels=2,
    offset_frames=0,
    shots=(FACE,),
)


@pytest.mark.parametrize("sound", [True, False])
def test_a_clip_has_the_planned_streams(tmp_path: Path, sound: bool) -> None:
    spoken = speak(1.0, 0, Voice())
    wave = spoken.audio(0.0, PLAN.seconds, PLAN.audio_rate) if sound else None
    write_clip(tmp_path / "clip.mp4", PLAN, spoken, wave)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    with av.open(str(tmp_path / "clip.mp4")) as container:
        video = container.streams.video[0]
        assert video.average_rate == PLAN.fps
        assert (video.width, video.height) == (128, 96)
        assert len(container.streams.audio) == int(sound)
        if sound:
            assert container.streams.audio[0].rate == 44100
            assert container.streams.audio[0].channels == 2
        assert sum(1 for _ in container.decode(video)) == 8


def test_frames_are_the_same_each_time_and_show_the_mouth_of_their_middle() -> None:
    spoken = speak(1.0, 0, Voice())
    frames = list(render(PLAN, spoken))
    assert all(np.array_equal(a, b) for a, b in zip(frames, render(PLAN, spoken), strict=True))
    silent = list(render(PLAN, replace(spoken, syllables=[])))
    moving = spoken.opening((np.arange(8) + 0.5) / float(PLAN.fps)) > 0.2
    differs = [not np.array_equal(a, b) for a, b in zip(frames, silent, strict=True)]
    assert moving.any()
    assert np.array(differs)[moving].all()


def test_cutaways_show_nobody_and_two_faces_show_more() -> None:
    spoken = speak(1.0, 0, Voice())
    away = Shot(4, 8, 0, 0, 0, 1.0, 0.0, cutaway=0)
    frames = list(render(replace(PLAN, shots=(replace(FACE, last=4), away)), spoken))
    assert len(frames) == 8
    jumps = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]
    assert int(np.argmax(jumps)) == 3
    beside = replace(PLAN, kind="two_faces", shots=(replace(FACE, x=0.3, last=1),), frames=1)
    alone = replace(beside, kind="plain")
    change = np.abs(next(render(beside, spoken)).astype(int) - next(render(alone, spoken)))
    assert change[:, 80:].mean() > 20
