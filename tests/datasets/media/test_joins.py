"""Recordings that were put together byte by byte: picture and sound stay together."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from datasets.media import FPS, SAMPLE_RATE, read_audio, read_frames
from datasets.media.audio import AudioWindow

FLASH_S = 1.0


def write_transport_stream(path: Path, frames: int, sound_s: float) -> None:
    """A black video with a white frame, and silence with a click, both after a second."""
    with av.open(str(path), "w", format="mpegts") as container:
        video = container.add_stream("mpeg2video", rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("mp2", rate=SAMPLE_RATE)
        sound.layout = "mono"
        for index in range(frames):
            light = 255 if index == FLASH_S * FPS else 0
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), light, np.uint8))
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.zeros((1, round(sound_s * SAMPLE_RATE)), np.int16)
        samples[:, int(FLASH_S * SAMPLE_RATE) :][:, :320] = 30000
        for begin in range(0, samples.shape[1], 1152):
            part = av.AudioFrame.from_ndarray(samples[:, begin : begin + 1152], "s16", "mono")
            part.sample_rate, part.pts = SAMPLE_RATE, begin
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))


def clicks(sound: np.ndarray) -> np.ndarray:
    """Seconds at which a click begins."""
    loud = np.flatnonzero(np.abs(sound) > 0.3)
    return loud[np.diff(loud, prepend=-SAMPLE_RATE) > SAMPLE_RATE / 2] / SAMPLE_RATE


@pytest.mark.parametrize("sound_s", [2.0, 2.2, 1.7])
def test_joins_do_not_add_up(tmp_path: Path, sound_s: float) -> None:
    once, often = tmp_path / "once.ts", tmp_path / "often.ts"
    write_transport_stream(once, 50, sound_s)
    often.write_bytes(5 * once.read_bytes())
    light = [frame.index for frame in read_frames(often) if frame.rgb.mean() > 100]
    flashes = np.array([index for index in light if index - 1 not in light]) / FPS
    assert len(flashes) == 5
    sound = read_audio(often)
    heard = clicks(sound)
    first = heard[0] - flashes[0]
    assert np.abs(heard - flashes - first).max() < 0.5 / FPS
    with AudioWindow(often) as window:
        assert np.array_equal(window.part(0, 9 * SAMPLE_RATE), sound[: 9 * SAMPLE_RATE])
