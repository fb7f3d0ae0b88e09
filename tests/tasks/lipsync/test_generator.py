from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from models.audio.mel_tokens import MelTokens
from models.audio.whisper_tokens import WhisperTokens
from models.audio.windows import window_starts
from models.latentsync.diffusion import DDIM, SAMPLERS
from models.latentsync.model import LatentSync
from tasks.lipsync.generator import OVERLAP, FaceGenerator, interleaved
from tasks.lipsync.speech_tokens import BLOCK, FADE, STRIDE, SpeechTokens
from tests.support.fake_generator import Brightener
from tests.support.small_models import shaken, small_config


@pytest.mark.parametrize("count", [1, 15, 16, 17, 28, 29, 97])
def test_windows_cover_every_frame_and_overlap(count: int) -> None:
    starts = window_starts(count, 16, OVERLAP)
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
    assert asked == [list(range(start, start + 16)) for start in window_starts(30, 16, OVERLAP)]


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


def test_windows_begin_where_they_should() -> None:
    assert window_starts(16, 16, OVERLAP) == [0]
    assert window_starts(28, 16, OVERLAP) == [0, 12]
    assert window_starts(29, 16, OVERLAP) == [0, 12, 13]
    assert window_starts(40, 16, overlap=8) == [0, 8, 16, 24]
    assert window_starts(3, 16, OVERLAP) == [0]


class Scripted(Brightener):
    """Paints given pictures, and keeps its inputs."""

    def __init__(self, *windows: list[float]) -> None:
        super().__init__()
        self.script = list(windows)
        self.given: list[tuple[list[int], list[int], list[float]]] = []

    def _tokens(self, wave: np.ndarray, count: int) -> torch.Tensor:
        return tokens_by_loudness(wave, count)

    def window(self, faces: np.ndarray, references: np.ndarray, tokens: torch.Tensor) -> np.ndarray:
        levels = [each[:, 0, 0, 0].tolist() for each in (faces, references)]
        self.given.append((levels[0], levels[1], tokens[:, 0, 0].tolist()))
        values = np.array(self.script[len(self.given) - 1], np.float32)
        return np.broadcast_to(values[:, None, None, None], faces.shape).copy()


def numbered(count: int) -> Iterator[np.ndarray]:
    """Faces that are as bright as their number."""
    return (np.full((8, 8, 3), number, np.uint8) for number in range(count))


def streamed(generator: FaceGenerator, count: int, **options: Any) -> list[int]:
    """The levels that come out for numbered faces; frame t of the speech is as loud as t."""
    speech = generator.speech(np.repeat(np.arange(count, dtype=np.float32), 640))
    out = list(generator.stream(numbered(count), np.arange(count) / 25, speech, **options))
    assert all((face == face[0, 0, 0]).all() for face in out)
    return [int(face[0, 0, 0]) for face in out]


def test_shared_frames_fade_in_a_straight_line_from_window_to_window() -> None:
    first, second = [10.0 * k for k in range(16)], [100.0 + k for k in range(16)]
    shown = streamed(Scripted(first, second), 28)
    assert shown[:12] == first[:12]
    # A fifth of the second window in frame 12, two of them in frame 13, and so on.
    faded = [0.8 * 120 + 0.2 * 100, 0.6 * 130 + 0.4 * 101, 0.4 * 140 + 0.6 * 102]
    faded.append(0.2 * 150 + 0.8 * 103)
    assert shown[12:16] == [round(value) for value in faded] == [116, 118, 117, 112]
    assert shown[16:] == second[4:]


def test_the_last_window_fades_over_all_frames_that_it_shares() -> None:
    shown = streamed(Scripted([0.0] * 16, [130.0] * 16), 20)
    assert shown[:4] == [0] * 4
    assert shown[4:16] == [10 * k for k in range(1, 13)]
    assert shown[16:] == [130] * 4


def test_three_windows_fade_one_after_the_other() -> None:
    shown = streamed(Scripted([50.0] * 16, [100.0] * 16, [200.0] * 16), 40)
    assert shown[12:16] == [60, 70, 80, 90]
    assert shown[16:24] == [100] * 8
    assert shown[24:28] == [120, 140, 160, 180]


def test_each_window_is_painted_from_its_own_faces_and_its_own_words() -> None:
    generator = Scripted([0.0] * 16, [0.0] * 16)
    streamed(generator, 28)
    for start, (faces, references, words) in zip((0, 12), generator.given, strict=True):
        expected = list(range(start, start + 16))
        assert faces == references == expected
        assert words == expected


def test_a_short_shot_stands_still_at_its_end() -> None:
    generator = Scripted([7.0] * 16)
    assert streamed(generator, 5) == [7] * 5
    ((faces, _, words),) = generator.given
    assert faces == words == [0, 1, 2, 3, *[4] * 12]


def test_references_are_those_that_are_given() -> None:
    generator = Scripted([0.0] * 16, [0.0] * 16)
    streamed(
        generator,
        28,
        references=lambda positions: np.full((16, 8, 8, 3), 90 + positions[0], np.uint8),
    )
    assert [references for _, references, _ in generator.given] == [[90] * 16, [102] * 16]


def test_values_are_rounded_and_not_cut() -> None:
    assert streamed(Scripted([127.4, 127.6, 0.0, 255.0] * 4), 4) == [127, 128, 0, 255]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose pictures depend on its noise, on the speech and on the reference."""
    folder = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    unet = {**small_config().unet, "residual": False}
    model = LatentSync(small_config(num_frames=16, prediction_type="epsilon", unet=unet))
    shaken(model.unet)
    shaken(model.autoencoder)
    model.save(folder)
    return folder


def test_the_reference_is_the_bundles_own_unless_another_is_asked_for(tmp_path: Path) -> None:
    LatentSync(small_config(num_frames=16, reference="away")).save(tmp_path)
    own = FaceGenerator(tmp_path)
    assert own.reference == "away"
    other = own.tuned(5, 1.5, 1, "still")
    assert (other.reference, other.tuned(5, 1.5, 1).reference) == ("still", "away")
    assert FaceGenerator(tmp_path, reference="frame").reference == "frame"


def inputs() -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    rng = np.random.default_rng(0)
    faces, references = rng.integers(0, 256, (2, 16, 64, 64, 3), dtype=np.uint8)
    tokens = MelTokens().encode(rng.uniform(-0.5, 0.5, 16 * 640).astype(np.float32), 16)
    return faces, references, tokens


def test_every_window_starts_from_the_same_noise_and_the_seed_decides_it(bundle: Path) -> None:
    generator = FaceGenerator(bundle, steps=1, seed=5)
    first, second = generator.window(*inputs()), generator.window(*inputs())
    assert np.array_equal(first, second)
    assert np.array_equal(first, FaceGenerator(bundle, steps=1, seed=5).window(*inputs()))
    other = FaceGenerator(bundle, steps=1, seed=6).window(*inputs())
    repainted = generator.region > 0.5
    assert np.abs(other - first)[:, repainted].max() > 1


@pytest.mark.parametrize(("sampler", "reuse"), [*((each, 1) for each in SAMPLERS), (DDIM, 2)])
def test_a_window_is_what_the_model_generates_with_these_options(
    bundle: Path, sampler: str, reuse: int
) -> None:
    faces, references, tokens = inputs()
    generator = FaceGenerator(bundle).tuned(3, 2.5, 11, sampler=sampler, reuse=reuse)
    pixels, shown = (
        torch.from_numpy(each.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)[None]
        for each in (faces, references)
    )
    with torch.inference_mode():
        expected = LatentSync.load(bundle).generate(
            pixels,
            shown,
            tokens[None],
            steps=3,
            guidance=2.5,
            generator=torch.Generator().manual_seed(11),
            sampler=sampler,
            reuse=reuse,
        )
    grey = (expected[0].permute(0, 2, 3, 1).numpy() + 1) * 127.5
    found = generator.window(faces, references, tokens)
    np.testing.assert_allclose(found, grey, atol=1e-2)
    kept = generator.region == 0
    np.testing.assert_allclose(found[:, kept], faces[:, kept], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "between 1 and 500, got 0"),
        ({"steps": 501}, "between 1 and 500, got 501"),
        ({"guidance": 0.99}, "between 1 and 20, got 0.99"),
        ({"guidance": 20.5}, "between 1 and 20, got 20.5"),
        ({"sampler": "euler"}, "must be one of ddim, dpm-solver"),
        ({"reuse": 0}, "between 1 and 10, got 0"),
    ],
)
def test_options_out_of_range_end_in_a_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        FaceGenerator(Path("nowhere"), **options)


class Averaging(Brightener):
    """What it paints of a frame depends on its whole window."""

    def window(self, faces: np.ndarray, references: np.ndarray, tokens: torch.Tensor) -> np.ndarray:
        self.windows += 1
        return 0.5 * faces.astype(np.float32) + 0.5 * references.astype(np.float32).mean(axis=0)


@pytest.mark.parametrize("fps", [25.0, 50.0, 75.0])
@pytest.mark.parametrize("count", [1, 9, 16, 17, 31, 70])
def test_a_stream_that_begins_later_gives_the_same(fps: float, count: int) -> None:
    generator = Averaging(8)
    times = np.arange(count) / fps
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
    speech = generator.speech(np.zeros(16000 * 4, np.float32))
    whole = list(generator.stream(faces, times, speech))
    assert len(whole) == count
    for begin in range(count):
        first = generator.first_needed(times, begin)
        assert 0 <= first <= begin
        assert begin - first <= 48 * round(fps / 25)
        taken = iter(faces[first:])
        later = list(generator.stream(taken, times, speech, None, begin))
        assert np.array_equal(later, whole[begin:])
        assert next(taken, None) is None
