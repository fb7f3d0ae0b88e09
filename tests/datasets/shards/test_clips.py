"""Clips by name, out of shards."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.errors import UserError
from datasets.shards.clips import ClipStore
from datasets.shards.index import FOLDER, read_index, read_samples
from datasets.store.local import LocalStore
from tests.support.shard_files import write_index, write_shards
from tests.support.small_dataset import write_small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("small"), num_frames=40)


def test_everything_of_a_clip(dataset: Path) -> None:
    store = ClipStore(dataset)
    assert len(store.clips) == 6
    clip = store.clips[0]
    assert (clip.clip_id, clip.speaker, clip.num_frames) == ("speaker_00-0", "speaker_00", 40)
    frames = store.frames(clip.clip_id)
    assert frames.shape == (40, 64, 64, 3)
    assert store.audio(clip.clip_id).shape == (40 * 640,)
    assert store.landmarks(clip.clip_id).shape == (40, 478, 2)
    # The mouth is where the landmarks say: dark at the lips' middle when it is open.
    points = store.landmarks(clip.clip_id)
    gap = points[:, 14, 1] - points[:, 13, 1]
    widest = int(np.argmax(gap))
    x, y = points[widest, 13:15].mean(0).astype(int)
    assert frames[widest, y, x].mean() < 70


def test_splits_share_no_speaker(dataset: Path) -> None:
    train, test = ClipStore(dataset, "train"), ClipStore(dataset, "test")
    assert len(train.clips) + len(test.clips) == 6
    assert not {clip.speaker for clip in train.clips} & {clip.speaker for clip in test.clips}


def test_scaled(dataset: Path) -> None:
    store, half = ClipStore(dataset), ClipStore(dataset, resolution=32)
    name = store.clips[0].clip_id
    assert half.frames(name).shape == (40, 32, 32, 3)
    whole = store.frames(name).reshape(40, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(whole - half.frames(name)).mean() < 1
    assert np.allclose(half.landmarks(name) * 2, store.landmarks(name))


def test_memory_is_bounded_and_results_stay_the_same(dataset: Path) -> None:
    one = 40 * 64 * 64 * 3
    small, large = ClipStore(dataset, memory_bytes=2 * one), ClipStore(dataset)
    for clip in [*large.clips, large.clips[0]]:
        assert np.array_equal(small.frames(clip.clip_id), large.frames(clip.clip_id))
        assert sum(frames.nbytes for frames in small._kept.values()) <= 2 * one


def test_mistakes_are_said(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dataset"):
        ClipStore(tmp_path)
    write_index(LocalStore(tmp_path), [], {})
    with pytest.raises(UserError, match="no clip"):
        ClipStore(tmp_path)
    shards = write_shards([("a", {"json": b"{}"})], tmp_path, "train")
    write_index(LocalStore(tmp_path), shards, {})
    with pytest.raises(UserError, match="its clip a does not have a speaker"):
        ClipStore(tmp_path)
    (tmp_path / "shards" / shards[0].name).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        ClipStore(tmp_path)
    with pytest.raises(KeyError, match="nobody"):
        ClipStore(dataset).audio("nobody")


def sample(clip_id: str, video: bytes, num_frames: int) -> tuple[str, dict[str, bytes | Path]]:
    facts = {
        "clip_id": clip_id,
        "speaker": "s",
        "path": "s/x.mp4",
        "num_frames": num_frames,
        "resolution": 64,
    }
    return clip_id, {"json": json.dumps(facts).encode(), "mp4": video}


def test_a_damaged_clip_is_named(dataset: Path, tmp_path: Path) -> None:
    whole = ClipStore(dataset)
    video = next(
        members["mp4"]
        for entry in read_index(dataset)["shards"]
        for key, members in read_samples(LocalStore(dataset), f"{FOLDER}/{entry['name']}")
        if key == whole.clips[0].clip_id
    )
    samples = [sample("noise", bytes(3000), 40), sample("short", video, 41)]
    write_index(LocalStore(tmp_path), write_shards(samples, tmp_path, "train"), {})
    store = ClipStore(tmp_path)
    with pytest.raises(UserError, match=r"noise .* cannot be decoded"):
        store.frames("noise")
    with pytest.raises(UserError, match="40 frames, but its record says 41"):
        store.frames("short")


def test_a_shard_that_is_cut_off_is_said(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "copy")
    shard = next((tmp_path / "copy" / "shards").iterdir())
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"shard .* cannot be read"):
        ClipStore(tmp_path / "copy")


def test_a_store_travels_to_other_processes(dataset: Path) -> None:
    store = ClipStore(dataset, "train")
    name = store.clips[0].clip_id
    copy = pickle.loads(pickle.dumps(store))
    assert np.array_equal(copy.frames(name), store.frames(name))


def test_sound_and_lips_move_together(dataset: Path) -> None:
    store = ClipStore(dataset)
    for clip in store.clips:
        points = store.landmarks(clip.clip_id)
        gap = points[:, 14, 1] - points[:, 13, 1]
        loudness = np.abs(store.audio(clip.clip_id)).reshape(-1, 640).mean(1)
        assert np.corrcoef(gap, loudness)[0, 1] > 0.9


@pytest.mark.parametrize("frames", [35, 40, 44])
def test_sound_is_as_long_as_the_pictures_whatever_is_stored(dataset: Path, frames: int) -> None:
    store = ClipStore(dataset)
    stored = store.audio("speaker_00-0")
    content = store.content("speaker_00-0")
    content.clip = replace(content.clip, num_frames=frames)
    sound = content.audio()
    assert len(sound) == frames * 640
    inside = min(len(sound), len(stored))
    assert np.array_equal(sound[:inside], stored[:inside])
    assert not sound[inside:].any()
