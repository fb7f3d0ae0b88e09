from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch

from models.audio_tokens import MelTokens
from models.whisper_tokens import WhisperTokens
from tasks.lipsync import BLOCK, FADE, STRIDE, SpeechTokens, interleaved, window_starts
from tests.fake_generator import Brightener


@pytest.mark.parametrize("count", [1, 15, 16, 17, 28, 29, 97])
def test_windows_cover_every_frame_and_overlap(count: int) -> None:
    starts = window_starts(count, 16)
    covered = {start + offset for start in starts for offset in range(16)}
    assert covered >= set(range(count))
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert all(after - before <= 12 for before, after in pairwise(starts))
    assert count < 16 or starts[-1] + 16 == count


def tokens_by_loudness(wave: np.ndarray, count: int) -> torch.Tensor:
    """One token per frame: the mean of its samples."""
    frames = np.resize(wave[: count * 640], (count, 640))
    return torch.from_numpy(frames.mean(1)).view(count, 1, 1)


def test_tokens_are_those_of_the_frame_at_that_time() -> None:
    audio = np.repeat(np.arange(2000, dtype=np.float32), 640)
    speech = SpeechTokens(tokens_by_loudness, audio)
    times = np.array([0.0, 1.0, 26.0, 52.04, 79.96])
    assert speech.at(times)[:, 0, 0].tolist() == [0.0, 25.0, 650.0, 1301.0, 1999.0]
    # Half a frame later is half of the next one's sound.
    assert float(speech.at(np.array([0.02]))[0, 0, 0]) == pytest.approx(0.5)


def test_tokens_beyond_the_end_hold_the_last_one() -> None:
    audio = np.repeat(np.arange(10, dtype=np.float32), 640)
    speech = SpeechTokens(tokens_by_loudness, audio)
    last = float(speech.at(np.array([9.75 / 25]))[0, 0, 0])
    assert speech.at(np.array([0.5, 99.0]))[:, 0, 0].tolist() == [last, last]


def test_only_the_blocks_that_are_needed_are_encoded() -> None:
    asked: list[int] = []

    def encode(wave: np.ndarray, count: int) -> torch.Tensor:
        asked.append(count)
        return tokens_by_loudness(wave, count)

    speech = SpeechTokens(encode, np.zeros(640 * 10 * BLOCK, np.float32))
    speech.at(np.arange(16) / 25)
    speech.at(np.arange(16, 32) / 25)
    assert len(asked) == 1
    assert asked[0] <= 30 * 25


def test_no_more_blocks_are_kept_than_two_for_each_phase() -> None:
    speech = SpeechTokens(tokens_by_loudness, np.zeros(640 * 20 * STRIDE, np.float32))
    speech.at(np.arange(0, 20 * STRIDE * 4, 7) / 100)
    assert speech._block.cache_info().currsize == 8


def jump(tokens: torch.Tensor, near: slice) -> float:
    """The largest change from frame to frame there, over the usual one."""
    changes = (tokens[1:] - tokens[:-1]).flatten(1).norm(dim=1)
    return float(changes[near].max() / changes.median())


def test_no_jump_where_blocks_meet() -> None:
    torch.manual_seed(0)
    encoder = WhisperTokens(width=16, layers=2, heads=2)
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, 640 * 1000).astype(np.float32)
    soft = SpeechTokens(encoder.encode, audio).at(np.arange(1000) / 25)
    first = encoder.encode(audio[: BLOCK * 640], BLOCK)
    second = encoder.encode(audio[STRIDE * 640 :], 1000 - STRIDE)
    seam = (STRIDE + BLOCK) // 2
    hard = torch.cat([first[:seam], second[seam - STRIDE :]])
    assert jump(hard, slice(seam - 1, seam)) > 1.5
    assert jump(soft, slice(STRIDE - 1, BLOCK)) < 1.1


@pytest.mark.parametrize("phase", [0, 1])
def test_mel_tokens_are_those_of_the_whole_recording(phase: int) -> None:
    encoder = MelTokens()
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, 640 * 1500).astype(np.float32)
    whole = encoder.encode(audio[phase * 160 :], 1490)
    found = SpeechTokens(encoder.encode, audio).at(np.arange(1490) / 25 + phase / 100)
    # Equal but for the last bit.
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 16, 17, 40])
def test_every_frame_is_repainted_once_and_in_order(count: int) -> None:
    generator = Brightener()
    faces = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
    faces = faces.repeat(3, 3)
    speech = generator.speech(np.zeros(640 * count, np.float32))
    out = np.stack(list(generator.stream(iter(faces), np.arange(count) / 25, speech)))
    assert out.shape == (count, 8, 8, 3)
    # Every window adds one more than the last, so a jump between windows would show.
    added = out[:, 0, 0, 0].astype(int) - np.arange(count)
    assert added[0] == 10
    assert set(np.diff(added)) <= {0, 1}


def test_a_stream_holds_no_more_than_a_window() -> None:
    generator = Brightener()
    taken = []

    def faces() -> Iterator[np.ndarray]:
        for index in range(100):
            taken.append(index)
            yield np.zeros((8, 8, 3), np.uint8)

    speech = generator.speech(np.zeros(640 * 100, np.float32))
    for number, _ in enumerate(generator.stream(faces(), np.arange(100) / 25, speech)):
        assert len(taken) - number <= 16


def test_references_are_asked_for_by_window() -> None:
    generator = Brightener()
    asked: list[list[int]] = []

    def reference(positions: np.ndarray) -> np.ndarray:
        asked.append(positions.tolist())
        return np.zeros((16, 8, 8, 3), np.uint8)

    speech = generator.speech(np.zeros(640 * 30, np.float32))
    faces = iter(np.zeros((30, 8, 8, 3), np.uint8))
    list(generator.stream(faces, np.arange(30) / 25, speech, reference))
    assert asked == [list(range(start, start + 16)) for start in window_starts(30, 16)]


class Witness(Brightener):
    """Notes the positions and moments that share a window; faces say their positions."""

    def __init__(self) -> None:
        super().__init__(1)
        self.seen: list[tuple[list[int], list[float], list[int]]] = []

    def window(self, faces: np.ndarray, references: np.ndarray, tokens: torch.Tensor) -> np.ndarray:
        positions = [int(face[0, 0, 0]) for face in faces]
        self.seen.append((positions, tokens[:, 0, 0].tolist(), references[:, 0, 0, 0].tolist()))
        return faces.astype(np.float32)

    def speech_that_tells_the_time(self, seconds: float) -> SpeechTokens:
        frames = round(seconds * 25)
        # Sample k of the sound is worth k, so a frame's token is the time of its middle.
        sound = np.arange(frames * 640, dtype=np.float32)
        return SpeechTokens(tokens_by_loudness, sound)


@pytest.mark.parametrize(
    ("fps", "ways"),
    [
        *((fps, 1) for fps in (12.5, 23.976, 24, 25, 30)),
        *((fps, 2) for fps in (48, 50, 59.94, 60)),
        *((90, 4), (100, 4), (120, 5)),
    ],
)
def test_frames_of_a_window_lie_forty_milliseconds_apart(fps: float, ways: int) -> None:
    times = np.arange(100) / fps
    assert interleaved(times) == ways
    generator = Witness()
    faces = iter(np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(3, 3))
    speech = generator.speech_that_tells_the_time(100 / fps + 1)
    out = list(
        generator.stream(faces, times, speech, lambda positions: positions[:, None, None, None])
    )
    # Every frame comes back once and in its place.
    assert [int(face[0, 0, 0]) for face in out] == list(range(100))
    assert {each for seen, _, _ in generator.seen for each in seen} == set(range(100))
    for positions, moments, references in generator.seen:
        assert set(np.diff(positions)) <= {ways, 0}
        assert references[: len(set(positions))] == sorted(set(positions))
        heard = (np.array(moments) + 0.5) / 16_000 - 0.02
        # Tokens exist for every quarter of a frame, 10 ms.
        assert np.abs(heard - times[positions]).max() <= 0.0051


@pytest.mark.parametrize("count", [3, 6, 81, 82])
@pytest.mark.parametrize("pair", [(0.01, 0.07), (0.02, 0.06), (0.06, 0.02)])
def test_frames_that_come_in_bursts_are_not_taken_for_fast_video(
    count: int, pair: tuple[float, float]
) -> None:
    times = np.concatenate([[0.0], np.cumsum(np.resize(pair, count - 1))])
    assert interleaved(times) == 1


def test_a_pause_does_not_slow_down_fast_video() -> None:
    times = np.arange(60) / 60
    times[30:] += 10
    assert interleaved(times) == 2


def test_interleaved_sequences_hold_no_more_than_a_window_each() -> None:
    generator = Brightener()
    taken = []

    def faces() -> Iterator[np.ndarray]:
        for index in range(200):
            taken.append(index)
            yield np.zeros((8, 8, 3), np.uint8)

    speech = generator.speech(np.zeros(640 * 100, np.float32))
    for number, _ in enumerate(generator.stream(faces(), np.arange(200) / 60, speech)):
        assert len(taken) - number <= 2 * 16


@pytest.mark.parametrize("count", [1, 2, 3, 31, 33])
def test_short_stretches_of_fast_video_are_whole(count: int) -> None:
    generator = Brightener()
    faces = iter(np.zeros((count, 8, 8, 3), np.uint8))
    speech = generator.speech(np.zeros(640 * 100, np.float32))
    assert len(list(generator.stream(faces, np.arange(count) / 60, speech))) == count


def test_all_but_a_few_tokens_are_of_one_block_alone() -> None:
    """Blocks that tell which one they are: only `FADE` frames hold a mean of two."""
    blocks = iter(range(100))

    def encode(wave: np.ndarray, count: int) -> torch.Tensor:
        return torch.full((count, 1, 1), float(next(blocks)))

    speech = SpeechTokens(encode, np.zeros(640 * 3 * BLOCK, np.float32))
    values = speech.at(np.arange(3 * BLOCK) / 25)[:, 0, 0]
    mixed = (values != values.round()).nonzero()[:, 0]
    assert len(mixed) == 3 * FADE
    assert FADE <= 4
    first = mixed[:FADE]
    assert values[first].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    # In the middle of what the blocks share, so each has sound on both sides of what is used.
    assert float(first.float().mean()) == pytest.approx((STRIDE + BLOCK - 1) / 2)
