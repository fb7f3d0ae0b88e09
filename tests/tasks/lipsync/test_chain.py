"""Generation as a chain: every frame once, resumable anywhere, shots on their own, memory flat."""

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.latentsync.config import PoseConfig
from models.latentsync.model import LatentSync
from tasks.lipsync.chain import ChainMemory, Link
from tasks.lipsync.generator import FaceGenerator
from tasks.lipsync.parts import Parts
from tests.support.fake_generator import Brightener
from tests.support.small_models import shaken, small_config


class Chained(Brightener):
    """What it paints of a window depends on what it painted before, and on nothing else it held."""

    chained = True

    def __init__(self, length: int = 1, lag: int = 1) -> None:
        super().__init__(8)
        self.num_frames, self.lag = length, lag

    def window_after(
        self, past: Sequence[Tensor], faces: np.ndarray, references: np.ndarray, tokens: Tensor
    ) -> tuple[np.ndarray, tuple[Tensor, ...]]:
        assert len(faces) == len(references) == len(tokens) == self.num_frames
        self.windows += 1
        before = float(past[0].mean()) if len(past) == self.lag else 100.0
        painted = 0.5 * faces.astype(np.float32) + 0.5 * before
        made = [torch.full((1, 1, 2, 2), float(each.mean())) for each in painted]
        return painted, tuple([*past, *made][-self.lag :])


def faces_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)


def streamed(
    generator: FaceGenerator,
    faces: np.ndarray,
    times: np.ndarray,
    begin: int = 0,
    memory: ChainMemory | None = None,
) -> Iterator[np.ndarray]:
    speech = generator.speech(np.zeros(16_000 * 4, np.float32))
    first = generator.first_needed(times, begin, memory)
    return generator.stream(iter(faces[first:]), times, speech, None, begin, memory)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 16])
def test_as_many_frames_come_out_as_go_in(length: int) -> None:
    for count in range(1, 41):
        out = list(streamed(Chained(length), faces_of(count), np.arange(count) / 25))
        assert len(out) == count


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_short_windows_that_overlap_lose_no_frame_either(length: int) -> None:
    """Models that are not shown an earlier frame, made with another number of frames."""
    for count in range(1, 41):
        generator = Brightener()
        generator.num_frames = length
        faces = faces_of(count)
        out = list(streamed(generator, faces, np.arange(count) / 25))
        assert len(out) == count
        for begin in range(0, count, 7):
            # What a window adds grows with the windows, so it is painted anew.
            other = Averaged()
            other.num_frames = length
            whole = list(streamed(other, faces, np.arange(count) / 25))
            later = list(streamed(other, faces, np.arange(count) / 25, begin))
            assert np.array_equal(later, whole[begin:])


class Averaged(Brightener):
    """What it paints of a frame depends on its whole window."""

    def window(self, faces: np.ndarray, references: np.ndarray, tokens: Tensor) -> np.ndarray:
        return 0.5 * faces.astype(np.float32) + 0.5 * references.astype(np.float32).mean(axis=0)


@pytest.mark.parametrize("fps", [25.0, 50.0])
@pytest.mark.parametrize(("length", "lag"), [(1, 1), (1, 3), (3, 1), (4, 2)])
def test_a_chain_goes_on_anywhere_without_painting_again(fps: float, length: int, lag: int) -> None:
    count = 41
    faces, times = faces_of(count), np.arange(count) / fps
    ways = round(fps / 25)
    whole = list(streamed(Chained(length, lag), faces, times))
    for begin in range(1, count):
        memory = ChainMemory()
        memory.enter(7)
        stream = streamed(Chained(length, lag), faces, times, 0, memory)
        assert np.array_equal([next(stream) for _ in range(begin)], whole[:begin])
        stored = io.BytesIO()
        np.savez(stored, **memory.arrays())
        stored.seek(0)
        again = ChainMemory.of_arrays(dict(np.load(stored)))
        again.enter(7)
        generator = Chained(length, lag)
        first = generator.first_needed(times, begin, again)
        assert begin - ways * length < first <= begin
        later = list(streamed(generator, faces, times, begin, again))
        assert np.array_equal(later, whole[begin:])
        assert generator.windows <= -(-(count - first) // length) + ways


def test_a_chain_that_is_not_remembered_is_painted_from_its_beginning() -> None:
    faces, times = faces_of(20), np.arange(20) / 25
    whole = list(streamed(Chained(), faces, times))
    generator = Chained()
    assert generator.first_needed(times, 9, ChainMemory()) == 0
    assert np.array_equal(list(streamed(generator, faces, times, 9)), whole[9:])
    assert generator.windows == 20


def test_nothing_is_handed_from_one_stretch_to_another() -> None:
    memory = ChainMemory()
    memory.enter(0)
    first = faces_of(12, 1)
    list(streamed(Chained(), first, np.arange(12) / 25, 0, memory))
    assert memory.links
    memory.enter(12)
    assert memory.links == {}
    second, times = faces_of(12, 2), np.arange(12) / 25
    after = list(streamed(Chained(), second, times, 0, memory))
    assert np.array_equal(after, list(streamed(Chained(), second, times)))


@pytest.mark.parametrize("fps", [25, 60])
def test_a_stream_holds_no_more_than_a_window(fps: int) -> None:
    generator, taken = Chained(4, 2), []

    def faces() -> Iterator[np.ndarray]:
        for index in range(300):
            taken.append(index)
            yield np.zeros((8, 8, 3), np.uint8)

    memory = ChainMemory()
    speech = generator.speech(np.zeros(16_000, np.float32))
    stream = generator.stream(faces(), np.arange(300) / fps, speech, memory=memory)
    for number, _ in enumerate(stream):
        assert len(taken) - number <= 4 * round(fps / 25)
        assert all(len(link.past) <= 2 for link in memory.links.values())


def test_where_a_chain_stands_is_kept_with_the_parts(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with suppress(KeyboardInterrupt), Parts(output, ("a",)) as parts:
        assert parts.chain().links == {}
        for done in (20, 40):
            parts.path().write_bytes(b"video")
            link = Link(done, (torch.full((1, 1, 2, 2), float(done)),))
            parts.add(20, 20, ChainMemory(3, {0: link}))
        (parts.folder / "chain-00000060.npz").write_bytes(b"of a part that was never finished")
        raise KeyboardInterrupt
    assert len(list(tmp_path.rglob("chain-*"))) == 2
    with Parts(output, ("a",)) as parts:
        found = parts.chain()
        assert (found.stretch, found.links[0].done) == (3, 40)
        assert float(found.links[0].past[0].mean()) == 40
        assert [path.name for path in parts.folder.glob("chain-*")] == ["chain-00000040.npz"]
        (parts.folder / "chain-00000040.npz").write_bytes(b"damaged")
        assert parts.chain().links == {}


@pytest.mark.parametrize("length", [1, 3])
def test_a_bundle_with_a_pose_is_generated_as_a_chain(length: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pose = PoseConfig(kind="full")
    model = LatentSync(small_config(num_frames=length, pose=pose))
    shaken(model.unet)
    shaken(model.autoencoder)
    model.save(tmp_path)
    generator = FaceGenerator(tmp_path, steps=2)
    assert generator.chained
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)
    times = np.arange(7) / 25
    speech = generator.speech(rng.normal(0, 0.2, 7 * 640).astype(np.float32))
    memory = ChainMemory()
    stream = generator.stream(iter(faces), times, speech, memory=memory)
    head = [next(stream) for _ in range(4)]
    tail = list(stream)
    assert len(head) + len(tail) == 7
    # What comes first changes what comes later.
    other = np.concatenate([255 - faces[:length], faces[length:]])
    changed = list(generator.stream(iter(other), times, speech))
    assert not np.array_equal(changed[-1], tail[-1])
    again = ChainMemory()
    stream = generator.stream(iter(faces), times, speech, memory=again)
    for _ in range(4):
        next(stream)
    first = generator.first_needed(times, 4, again)
    assert first >= 3
    rest = list(generator.stream(iter(faces[first:]), times, speech, None, 4, again))
    assert np.array_equal(rest, tail)
