"""Draws a planned clip and encodes it: H.264 and AAC in mp4."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from datasets.sample_looks import BYSTANDER, LOOKS
from datasets.sample_plan import ClipPlan, Shot
from datasets.sample_scene import Camera, Person
from datasets.sample_voice import Speech, speak

_AUDIO_BLOCK = 1024


def write_clip(path: Path, plan: ClipPlan, spoken: Speech, sound: np.ndarray | None) -> None:
    """Renders and encodes the whole clip into `path`, whatever its suffix."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=plan.fps)
        video.width, video.height, video.pix_fmt = plan.width, plan.height, "yuv420p"
        video.time_base = 1 / plan.fps
        video.thread_count = 1
        video.options = {"preset": "veryfast", "crf": "20", "x264-params": "subme=1:me=dia:ref=1"}
        track = None
        if sound is not None:
            layout = "stereo" if plan.channels == 2 else "mono"
            track = container.add_stream("aac", rate=plan.audio_rate, layout=layout)
            track.bit_rate = 96_000
            for block in _audio_frames(sound, plan.audio_rate, layout):
                container.mux(track.encode(block))
            container.mux(track.encode(None))
        for number, picture in enumerate(render(plan, spoken)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, 1 / plan.fps
            container.mux(video.encode(frame))
        container.mux(video.encode(None))


def _audio_frames(sound: np.ndarray, rate: int, layout: str) -> Iterator[av.AudioFrame]:
    channels = np.repeat(sound[None, :], 2 if layout == "stereo" else 1, axis=0)
    for start in range(0, len(sound), _AUDIO_BLOCK):
        block = np.ascontiguousarray(channels[:, start : start + _AUDIO_BLOCK])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield frame


def render(plan: ClipPlan, spoken: Speech) -> Iterator[np.ndarray]:
    """The clip's frames, uint8 (height, width, 3). The mouth is that of the middle of the
    time for which a frame is shown, so that sound and picture agree on average."""
    cv2.setNumThreads(1)
    for shot in plan.shots:
        yield from _render_shot(plan, shot, spoken)


def _render_shot(plan: ClipPlan, shot: Shot, spoken: Speech) -> Iterator[np.ndarray]:
    look = LOOKS[plan.speaker]
    seed = plan.seed * 100_003 + plan.index
    rng = np.random.default_rng([seed, shot.first, 4])
    camera = Camera(shot, look, plan.width, plan.height, seed)
    size = plan.width, plan.height
    people: list[tuple[Person, Speech]] = []
    if plan.kind == "two_faces":
        muttered = speak(plan.seconds, seed + 50_000, BYSTANDER.voice)
        silent = Speech([], BYSTANDER.voice, 0.0, plan.seconds, seed)
        other = Person(BYSTANDER, *size, shot.face_px * 0.95, 1 - shot.x, shot.y, rng, 0.6)
        people.append((other, muttered if rng.random() < 0.5 else silent))
    if shot.cutaway < 0:
        calm = 0.6 if plan.kind == "two_faces" else 1.0
        speaker = Person(look, *size, shot.face_px, shot.x, shot.y, rng, calm)
        people.append((speaker, spoken))
    for number in range(shot.first, shot.last):
        shown = float(number / plan.fps)
        middle = np.array([shown + 0.5 / float(plan.fps)])
        layers = [
            person.render(shown, float(voice.opening(middle)[0]), float(voice.spread(middle)[0]))
            for person, voice in people
        ]
        yield camera.expose(layers, shown)
