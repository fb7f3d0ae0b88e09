from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from datasets.media import VideoWriter, probe, read_audio, read_frames, write_flac
from datasets.media.segments import join_segments
from datasets.media.splice import splice_sound

TIMES = np.cumsum([0, 40, 40, 60, 20, 40, 40, 100, 40, 40, 40, 40]) / 1000


def grey(index: int) -> np.ndarray:
    return np.full((48, 64, 3), 20 * index, np.uint8)


def written(path: Path, times: np.ndarray, first: int = 0) -> Path:
    with VideoWriter(path, 64, 48, 25, crf=4) as writer:
        for index, time in enumerate(times):
            writer.write(grey(first + index), float(time))
    return path


@pytest.mark.parametrize("cuts", [[0], [0, 1], [0, 5], [0, 3, 8, 11]])
def test_segments_become_the_video_that_was_written_at_once(
    cuts: list[int], tmp_path: Path
) -> None:
    edges = [*cuts, len(TIMES)]
    segments = []
    for first, stop in pairwise(edges):
        path = tmp_path / f"{first}.mp4"
        written(path, TIMES[first:stop] - TIMES[first], first)
        segments.append((path, float(TIMES[first])))
    tone = (0.3 * np.sin(np.arange(16000) / 9)).astype(np.float32)
    write_flac(tmp_path / "s.flac", tone, 16000)
    join_segments(tmp_path / "out.mp4", segments, float(TIMES[-1]) + 0.04, tmp_path / "s.flac")
    frames = list(read_frames(tmp_path / "out.mp4", fps=None))
    assert [frame.time_s for frame in frames] == pytest.approx(TIMES, abs=2e-5)
    assert [round(frame.rgb.mean() / 20) for frame in frames] == list(range(len(TIMES)))
    assert probe(tmp_path / "out.mp4").duration_s == pytest.approx(TIMES[-1] + 0.04, abs=0.03)
    heard = read_audio(tmp_path / "out.mp4")
    assert len(heard) / 16000 == pytest.approx(TIMES[-1] + 0.04, abs=0.07)
    assert np.corrcoef(heard[:6000], tone[:6000])[0, 1] > 0.99
    with av.open(str(tmp_path / "out.mp4")) as container:
        decoding = [packet.dts for packet in container.demux(video=0) if packet.dts is not None]
    assert decoding == sorted(set(decoding))


def test_one_sound_is_followed_by_another(tmp_path: Path) -> None:
    first, second = np.full(16000, 0.5, np.float32), np.full(48000, -0.25, np.float32)
    write_flac(tmp_path / "a.flac", first, 16000)
    write_flac(tmp_path / "b.flac", second, 16000)
    splice_sound(tmp_path / "c.flac", tmp_path / "a.flac", tmp_path / "b.flac", 0.8, 4.0)
    heard = read_audio(tmp_path / "c.flac")
    assert len(heard) == 64000
    assert heard[2000:12000] == pytest.approx(np.full(10000, 0.5), abs=0.01)
    assert heard[13200:47000] == pytest.approx(np.full(33800, -0.25), abs=0.01)
    # What the second does not have is silence, and nothing jumps at the splice.
    assert np.abs(heard[48200:]).max() < 0.01
    assert np.abs(np.diff(heard[12000:13400])).max() < 0.02
    splice_sound(tmp_path / "d.flac", tmp_path / "a.flac", None, 0.5, 1.0)
    assert np.abs(read_audio(tmp_path / "d.flac")[8200:]).max() < 0.01
