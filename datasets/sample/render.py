"""Draws a planned clip and encodes it: H.264 and AAC in mp4."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import soundfile

from datasets.media import VideoWriter
from datasets.sample.looks import BYSTANDER, LOOKS
from datasets.sample.plan import ClipPlan, Shot
from datasets.sample.scene import Camera, Person
from datasets.sample.voice import Speech, speak


def write_clip(path: Path, plan: ClipPlan, spoken: Speech, sound: np.ndarray | None) -> None:
    """Renders and encodes the clip; `path` exists only once it is complete.

    Args:
        path: mp4 to write.
        plan: what is in it.
        spoken: what the speaker's mouth does.
        sound: float32 (n,) at the plan's rate; no audio track if None.
    """
    with TemporaryDirectory() as folder:
        wav = None
        if sound is not None:
            wav = Path(folder) / "sound.wav"
            channels = np.repeat(sound[:, None], plan.channels, axis=1)
            soundfile.write(wav, channels, plan.audio_rate, subtype="PCM_16")
        fps = float(plan.fps)
        with VideoWriter(path, *plan.size, fps, crf=21, audio=wav, preset="superfast") as writer:
            for picture in render(plan, spoken):
                writer.write(picture)


def render(plan: ClipPlan, spoken: Speech) -> Iterator[np.ndarray]:
    """The clip's frames, uint8 (height, width, 3). The mouth is drawn for the middle of the
    time for which a frame is shown, so that sound and picture agree on average."""
    cv2.setNumThreads(1)
    for shot in plan.shots:
        yield from _render_shot(plan, shot, spoken)


def _render_shot(plan: ClipPlan, shot: Shot, spoken: Speech) -> Iterator[np.ndarray]:
    look = LOOKS[plan.speaker]
    seed = plan.seed * 100_003 + plan.index
    rng = np.random.default_rng([seed, shot.first, 4])
    camera = Camera(shot, look, *plan.size, seed)
    people: list[tuple[Person, Speech]] = []
    if plan.kind == "two_faces":
        muttered = speak(plan.seconds, seed + 50_000, BYSTANDER.voice)
        silent = Speech([], BYSTANDER.voice, 0.0, plan.seconds, seed)
        other = Person(BYSTANDER, *plan.size, shot.face_px * 0.95, 1 - shot.x, shot.y, rng, 0.6)
        people.append((other, muttered if rng.random() < 0.5 else silent))
    if shot.cutaway < 0:
        calm = 0.6 if plan.kind == "two_faces" else 1.0
        speaker = Person(look, *plan.size, shot.face_px, shot.x, shot.y, rng, calm)
        people.append((speaker, spoken))
    for number in range(shot.first, shot.last):
        shown = float(number / plan.fps)
        middle = np.array([shown + 0.5 / float(plan.fps)])
        layers = [
            person.render(shown, float(voice.opening(middle)[0]), float(voice.spread(middle)[0]))
            for person, voice in people
        ]
        yield camera.expose(layers, shown)
