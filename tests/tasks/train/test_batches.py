"""Batches: a function of (seed, step, rank), with sound that matches its label."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from datasets.faces.points import OUTER_LIPS
from datasets.shards.clips import ClipStore
from models.audio.mel import mel_spectrogram, mel_window, window_columns
from models.audio.mel_tokens import MelTokens
from tasks.recipes.config import SyncNetConfig, UNetConfig
from tasks.recipes.recipe import recipe
from tasks.train import batches
from tasks.train.batches import SyncBatch, UNetBatch, autoencoder_batch
from tasks.train.sync_windows import sample_columns
from tasks.train.tokens import KEPT_BYTES, Heard, Hearing, TokenCache
from tasks.train.unet_windows import mouth_boxes
from tests.support.counting_store import CountingStore, LevelTokens, shown
from tests.support.talking_boxes import SIDE, make_dataset

DEBUG = recipe("debug")
CPU = torch.device("cpu")


def sync_batch(
    store: ClipStore, config: SyncNetConfig, seed: int, step: int, rank: int = 0
) -> SyncBatch:
    """On the processor, as the network sees it."""
    return batches.sync_batch(store, config, seed, step, rank).to(CPU)


def unet_batch(
    store: ClipStore,
    tokens: TokenCache,
    config: UNetConfig,
    num_frames: int,
    seed: int,
    step: int,
    rank: int = 0,
) -> UNetBatch:
    """On the processor, with the tokens of an encoder."""
    windows = batches.unet_batch(store, config, num_frames, seed, step, rank)
    return windows.to(CPU, tokens)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    folder = make_dataset(tmp_path_factory.mktemp("data") / "d", speakers=3, clips=2)
    return ClipStore(folder, "train")


def unet(store: ClipStore, step: int = 0, rank: int = 0, **changes: object) -> UNetBatch:
    config = replace(DEBUG.stage1, batch_size=4, **changes)  # type: ignore[arg-type]
    return unet_batch(store, TokenCache(MelTokens()), config, 16, 5, step, rank)


def test_autoencoder_frames_are_repeatable_and_differ_by_step_and_rank(store: ClipStore) -> None:
    assert DEBUG.autoencoder is not None
    config = replace(DEBUG.autoencoder, batch_size=6)
    first = autoencoder_batch(store, config, 1, 0)
    assert first.shape == (6, 3, SIDE, SIDE)
    assert first.dtype == torch.float32
    assert first.abs().max() <= 1
    assert torch.equal(first, autoencoder_batch(store, config, 1, 0))
    assert not torch.equal(first, autoencoder_batch(store, config, 1, 1))
    assert not torch.equal(first, autoencoder_batch(store, config, 1, 0, rank=1))


def test_sync_pairs_are_half_positive_and_carry_their_own_sound(store: ClipStore) -> None:
    plain = replace(
        DEBUG.syncnet,
        batch_size=8,
        windows_per_clip=4,
        augment=0.0,
        shift=0.0,
        time_warp=0.0,
        sound_augment=0.0,
    )
    batch = sync_batch(store, plain, 3, 0)
    assert batch.frames.shape == (8, 16, 3, SIDE // 2, SIDE)
    assert batch.mel.shape == (8, 1, 80, 52)
    assert batch.labels.tolist() == [1, 0] * 4
    for row in range(8):
        clip, start = _find(store, batch.frames[row])
        mel = mel_spectrogram(store.audio(clip))
        starts = range(len(store.frames(clip)) - 15)
        said = [s for s in starts if torch.allclose(mel_window(mel, s), batch.mel[row, 0])]
        if batch.labels[row] == 1:
            assert start in said
        else:
            assert said
            assert all(abs(start - s) >= plain.min_distance for s in said)


def _find(store: ClipStore, half: torch.Tensor) -> tuple[str, int]:
    """Where in the store a window of lower halves comes from."""
    grey = ((half.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round()
    for clip in store.clips:
        frames = store.frames(clip.clip_id)[:, SIDE // 2 :].astype(float)
        for start in range(len(frames) - 15):
            if np.abs(frames[start : start + 16] - grey).max() < 1:
                return clip.clip_id, start
    raise AssertionError("the window is in no clip")


def test_warped_and_changed_pairs_keep_their_shape(store: ClipStore) -> None:
    batch = sync_batch(store, replace(DEBUG.syncnet, batch_size=6, augment=1.0), 3, 1)
    assert batch.frames.shape == (6, 16, 3, SIDE // 2, SIDE)
    assert torch.isfinite(batch.mel).all()
    again = sync_batch(store, replace(DEBUG.syncnet, batch_size=6, augment=1.0), 3, 1)
    assert torch.equal(batch.frames, again.frames)
    assert torch.equal(batch.mel, again.mel)


def test_unet_windows_have_all_their_parts(store: ClipStore) -> None:
    batch = unet(store)
    assert batch.target.shape == (4, 4, 3, SIDE, SIDE)
    assert batch.reference.shape == batch.surroundings.shape == batch.target.shape
    assert batch.tokens.shape == (4, 4, 7, 88)
    assert batch.mel.shape == (4, 1, 80, 52)
    assert batch.mouth.shape == (4, 4, 4)
    again = unet(store)
    assert (batch.pose, batch.pose_shown) == (None, None)
    for each in fields(batch)[:-2]:
        assert torch.equal(getattr(batch, each.name), getattr(again, each.name)), each.name
    assert not torch.equal(batch.target, unet(store, step=1).target)
    assert not torch.equal(batch.target, unet(store, rank=1).target)


def test_surroundings_are_swapped_as_often_as_asked(store: ClipStore) -> None:
    never = unet(store, swap_surroundings=0.0)
    assert never.swapped.tolist() == [0] * 4
    assert torch.equal(never.surroundings, never.target)
    always = unet(store, swap_surroundings=1.0)
    assert always.swapped.tolist() == [1] * 4


def test_dropped_audio_is_zeros(store: ClipStore) -> None:
    assert unet(store, audio_dropout=1.0).tokens.abs().max() == 0
    heard = unet(store, audio_dropout=0.0)
    assert all(tokens.abs().max() > 0 for tokens in heard.tokens)


def test_a_window_heard_in_a_slice_is_heard_as_in_the_clip(store: ClipStore) -> None:
    """Tokens of changed sound come from a slice; without any change they must be the same."""
    cache = TokenCache(MelTokens())
    clip = store.clips[0]
    audio = store.audio(clip.clip_id)
    heard = Heard(audio, 22, 16, 1, clip.clip_id), Heard(audio[15 * 640 : 44 * 640], 7, 16, 1)
    whole, part = cache.encode(Hearing.of(heard))
    torch.testing.assert_close(part, whole, atol=1e-4, rtol=0)


def test_the_mel_of_a_window_is_that_of_the_clip(store: ClipStore) -> None:
    batch = unet(store, sound_augment=0.0, frame_step=1, augment=0.0)
    for row in range(4):
        clip, start = _find(store, batch.target[row, :, :, SIDE // 2 :])
        expected = mel_window(mel_spectrogram(store.audio(clip)), start)
        torch.testing.assert_close(batch.mel[row, 0], expected, atol=1e-4, rtol=0)


def test_columns_are_interpolated() -> None:
    mel = np.array([[0.0, 1.0, 3.0]], np.float32)
    found = sample_columns(mel, np.array([-1.0, 0.5, 1.5, 2.0, 9.0]))
    np.testing.assert_allclose(found, [[0.0, 0.5, 2.0, 3.0, 3.0]])


def test_mouth_boxes_hold_the_lips() -> None:
    landmarks = np.zeros((1, 478, 2), np.float32)
    landmarks[:, OUTER_LIPS] = (30, 44)
    landmarks[:, 61], landmarks[:, 291] = (20, 40), (40, 50)
    left, top, right, bottom = mouth_boxes(landmarks, 64)[0]
    assert (left, right) == pytest.approx((13 / 64, 47 / 64))
    assert (top, bottom) == pytest.approx((33 / 64, 57 / 64))


def test_clips_that_are_too_short_end_in_a_sentence(tmp_path: Path) -> None:
    short = ClipStore(make_dataset(tmp_path / "d", speakers=2, frames=30), "train")
    with pytest.raises(UserError, match="needs 32 frames, the longest of 1 clips has 30"):
        unet(short)


PLAIN = UNetConfig(
    steps=1, batch_size=32, lr=0.1, windows_per_clip=4, audio_dropout=0.0, min_distance=20
)
"""Nothing is changed or left out."""


def counted(step: int = 0, **changes: object) -> UNetBatch:
    """A batch of windows of 8 frames of a clip whose frames are numbered."""
    config = replace(PLAIN, **changes)  # type: ignore[arg-type]
    return unet_batch(CountingStore(90), TokenCache(LevelTokens()), config, 8, 5, step)


def test_reference_windows_are_elsewhere_in_the_clip() -> None:
    batch = counted()
    for target, reference in zip(batch.target, batch.reference, strict=True):
        first, other = shown(target)[0], shown(reference)[0]
        assert shown(target) == list(range(first, first + 8))
        assert shown(reference) == list(range(other, other + 8))
        assert abs(first - other) >= 20
    assert len({shown(target)[0] for target in batch.target}) > 10


@pytest.mark.parametrize("step", [1, 3])
def test_everything_of_a_window_is_of_the_same_frames(step: int) -> None:
    batch = counted(frame_step=step)
    for row, target in enumerate(batch.target):
        first = shown(target)[0]
        frames = list(range(first, first + 8, step))
        assert shown(target) == frames
        assert len(shown(batch.reference[row])) == len(frames)
        np.testing.assert_allclose(batch.tokens[row, :, 0, 0] * 100 - 1, frames, atol=1e-3)
        # Landmarks in one place are a box without extent there.
        expected = np.array(frames)[:, None].repeat(4, 1) / 32
        np.testing.assert_allclose(batch.mouth[row], expected, rtol=1e-6)


def test_swapped_surroundings_are_any_window_of_the_clip_and_are_marked() -> None:
    batch = counted(frame_step=2, swap_surroundings=0.5, batch_size=64)
    assert 20 < int(batch.swapped.sum()) < 44
    distances = set()
    for row, swapped in enumerate(batch.swapped.tolist()):
        target, around = shown(batch.target[row]), shown(batch.surroundings[row])
        distances.add((swapped, around[0] - target[0]))
        assert around == list(range(around[0], around[0] + 8, 2))
        assert swapped or around == target
    others = {distance for swapped, distance in distances if swapped}
    assert len(others) > 10
    # Unlike the reference, they may be close by.
    assert any(abs(distance) < 20 for distance in others)


def test_colours_are_changed_alike_in_all_pictures_of_a_window() -> None:
    store = CountingStore(90, level=120)
    config = replace(PLAIN, augment=1.0, swap_surroundings=1.0)
    batch = unet_batch(store, TokenCache(LevelTokens()), config, 8, 5, 0)
    seen = set()
    for row in range(32):
        pictures = torch.cat([batch.target[row], batch.reference[row], batch.surroundings[row]])
        assert torch.equal(pictures, pictures[:1].expand_as(pictures))
        seen.add(tuple(pictures[0, :, 0, 0].tolist()))
    assert len(seen) == 32


def test_changed_sound_is_what_tokens_and_mel_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    strengths = set()

    def louder(sound: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
        strengths.add(strength)
        return sound * np.float32(0.5)

    monkeypatch.setattr("tasks.train.unet_windows.change_sound", louder)
    batch = counted(sound_augment=0.7)
    assert strengths == {0.7}
    whole = mel_spectrogram(CountingStore(90).audio("clip0") * np.float32(0.5))
    for row, target in enumerate(batch.target):
        frames = np.array(shown(target))
        np.testing.assert_allclose(batch.tokens[row, :, 0, 0], (frames + 1) / 200, atol=1e-5)
        columns = window_columns(len(frames))
        expected = mel_window(whole, frames[0], columns)
        assert batch.mel.shape[-1] == columns
        # The edges of the slice are encoded without the sound outside.
        inner = np.s_[:, 2 : columns - 2]
        torch.testing.assert_close(batch.mel[row, 0][inner], expected[inner], atol=1e-3, rtol=0)


def test_half_of_the_audio_is_dropped_where_half_is_asked_for() -> None:
    tokens = counted(audio_dropout=0.5, batch_size=64).tokens
    dropped = [not bool(each.any()) for each in tokens]
    assert 20 < sum(dropped) < 44


def test_clips_that_are_just_long_enough_are_used() -> None:
    cache = TokenCache(LevelTokens())
    batch = unet_batch(CountingStore(28, 27), cache, replace(PLAIN, batch_size=40), 8, 5, 0)
    first, last = {0, 20}, set()
    for target, reference in zip(batch.target, batch.reference, strict=True):
        last |= {shown(target)[0], shown(reference)[0]}
    assert last == first
    with pytest.raises(UserError, match="needs 28 frames, the longest of 1 clips has 27"):
        unet_batch(CountingStore(27), cache, PLAIN, 8, 5, 0)


def test_windows_of_a_group_are_of_one_clip() -> None:
    config = replace(PLAIN, batch_size=40, windows_per_clip=4)
    batch = unet_batch(CountingStore(60, 60), TokenCache(LevelTokens()), config, 8, 5, 0)
    clips = [[shown(target)[0] // 100 for target in group] for group in batch.target.split(4)]
    assert all(len(set(group)) == 1 for group in clips)
    assert {group[0] for group in clips} == {0, 1}


def test_tokens_of_a_clip_are_encoded_once_and_the_oldest_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = CountingStore(20, 20, 20)
    encoder = LevelTokens()
    cache = TokenCache(encoder)
    # Two clips of 20 frames with one token of 4 bytes each.
    monkeypatch.setattr("tasks.train.tokens.KEPT_BYTES", 170)
    assert KEPT_BYTES > 170

    def heard(number: int, start: int) -> list[float]:
        sound = store.audio(f"clip{number}")
        window = Heard(sound, start, 2, 1, f"clip{number}")
        return list(cache.encode(Hearing.of([window]))[0, :, 0, 0].tolist())

    assert heard(0, 3) == pytest.approx([0.04, 0.05])
    heard(1, 0)
    assert heard(0, 5) == pytest.approx([0.06, 0.07])
    assert encoder.encoded == [20, 20]
    heard(2, 0)
    assert set(cache.kept) == {"clip0", "clip2"}
    heard(1, 0)
    assert encoder.encoded == [20] * 4


def test_autoencoder_frames_of_a_group_are_of_one_clip() -> None:
    assert DEBUG.autoencoder is not None
    changes = {"batch_size": 24, "frames_per_clip": 3, "augment": 0.0, "shift": 0.0}
    config = replace(DEBUG.autoencoder, **changes)  # type: ignore[arg-type]
    levels = shown(autoencoder_batch(CountingStore(40, 40), config, 1, 0))
    groups = [{level // 100 for level in levels[start : start + 3]} for start in range(0, 24, 3)]
    assert all(len(group) == 1 for group in groups)
    assert len(set(levels)) > 12


def test_picture_and_sound_of_a_sync_pair_run_at_one_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mel columns say where they are, 80 in a second; frames do, 25 in a second."""

    def places(sound: np.ndarray) -> torch.Tensor:
        first = round(float(sound[0]) * 100 - 1) * 3.2
        columns = first + np.arange(len(sound) // 200 + 1, dtype=np.float32)
        return torch.from_numpy(np.tile(columns, (80, 1)))

    monkeypatch.setattr("tasks.train.sync_windows.mel_spectrogram", places)
    config = replace(
        DEBUG.syncnet,
        batch_size=64,
        windows_per_clip=8,
        augment=0.0,
        shift=0.0,
        sound_augment=0.0,
        time_warp=0.3,
        min_distance=16,
    )
    batch = sync_batch(CountingStore(200), config, 3, 0)
    speeds = []
    for row in range(64):
        frames, sound = shown(batch.frames[row]), batch.mel[row, 0, 0].numpy() / 3.2
        speed = float(sound[10] - sound[0]) * 3.2 / 10
        speeds.append(speed)
        np.testing.assert_allclose(frames, frames[0] + speed * np.arange(16), atol=0.51)
        apart = abs(sound[0] - frames[0])
        # Columns are whole: a window's sound begins up to one of them early.
        assert apart < 0.32 if batch.labels[row] == 1 else apart > 15.6
    assert 0.7 <= min(speeds) < 0.8
    assert 1.2 < max(speeds) <= 1.3


def test_all_frames_of_a_sync_window_are_shifted_alike(
    store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(DEBUG.syncnet, batch_size=4, augment=0.0)
    found = []
    for shift in ((0, 0), (2, 3)):
        monkeypatch.setattr("tasks.train.sync_windows.draw_shift", lambda *_, shift=shift: shift)
        found.append(sync_batch(store, config, 3, 0).frames)
    still, moved = found
    assert torch.equal(moved[..., 2:, 3:], still[..., :-2, :-3])
    assert not torch.equal(moved, still)
