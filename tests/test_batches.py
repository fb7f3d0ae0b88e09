"""Batches: a function of (seed, step, rank), with sound that belongs where it is said to."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.clips import ClipStore
from datasets.errors import UserError
from models.audio_tokens import MelTokens
from models.mel import mel_spectrogram, mel_window
from tasks.batches import (
    TokenCache,
    UNetBatch,
    autoencoder_batch,
    mouth_boxes,
    sampled_columns,
    sync_batch,
    unet_batch,
)
from tasks.recipes import recipe
from tests.talking_boxes import LIPS, SIDE, make_dataset

DEBUG = recipe("debug")


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
    for each in fields(batch):
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
    whole = cache.unchanged(store, clip, 22, 16)
    audio = store.audio(clip.clip_id)
    part = cache.changed(audio[15 * 640 : 44 * 640], 7, 16)
    torch.testing.assert_close(part, whole, atol=1e-4, rtol=0)


def test_the_mel_of_a_window_is_that_of_the_clip(store: ClipStore) -> None:
    batch = unet(store, sound_augment=0.0, frame_step=1, augment=0.0)
    for row in range(4):
        clip, start = _find(store, batch.target[row, :, :, SIDE // 2 :])
        expected = mel_window(mel_spectrogram(store.audio(clip)), start)
        torch.testing.assert_close(batch.mel[row, 0], expected, atol=1e-4, rtol=0)


def test_columns_are_interpolated() -> None:
    mel = np.array([[0.0, 1.0, 3.0]], np.float32)
    found = sampled_columns(mel, np.array([-1.0, 0.5, 1.5, 2.0, 9.0]))
    np.testing.assert_allclose(found, [[0.0, 0.5, 2.0, 3.0, 3.0]])


def test_mouth_boxes_hold_the_lips() -> None:
    landmarks = np.zeros((1, 478, 2), np.float32)
    landmarks[:, LIPS] = (30, 44)
    landmarks[:, 61], landmarks[:, 291] = (20, 40), (40, 50)
    left, top, right, bottom = mouth_boxes(landmarks, 64)[0]
    assert (left, right) == pytest.approx((13 / 64, 47 / 64))
    assert (top, bottom) == pytest.approx((33 / 64, 57 / 64))


def test_clips_that_are_too_short_end_in_a_sentence(tmp_path: Path) -> None:
    short = ClipStore(make_dataset(tmp_path / "d", speakers=2, frames=30), "train")
    with pytest.raises(UserError, match="needs 32 frames, the longest of 1 clips has 30"):
        unet(short)
