from pathlib import Path

import numpy as np
import pytest

from datasets.errors import UserError
from datasets.faces.alignment import CROP
from datasets.faces.landmarks import mouth_opening
from tasks.evaluate.clips import (
    freeze,
    open_clip,
    open_test_clips,
    read_clip_list,
    write_clip_list,
)
from tasks.evaluate.transcripts import NO_TRANSCRIPT, Transcripts
from tests.support.small_dataset import write_small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("data"), speakers=5, resolution=32)


def test_the_choice_is_frozen_and_of_the_test_split(dataset: Path) -> None:
    store, split = open_test_clips(dataset, 32, CROP)
    assert split == "test"
    chosen = freeze(store, split, 2, 50)
    assert chosen == freeze(store, split, 2, 50)
    assert len(chosen.clips) == 2
    assert {clip.split for clip in store.clips} == {"test"}
    assert (chosen.note, chosen.title, chosen.cross) == ("", "evaluation", "cross audio")
    assert chosen.warnings == ()
    assert chosen.digest != freeze(store, split, 1, 50).digest
    assert chosen.digest != freeze(store, split, 2, 49).digest


def test_speech_comes_from_another_speaker_where_there_is_one(dataset: Path) -> None:
    store, split = open_test_clips(dataset, 32, CROP)
    chosen = freeze(store, split, 99, 50).clips
    speakers = {clip.clip_id: clip.speaker for clip in chosen}
    assert len(set(speakers.values())) > 1
    for clip in chosen:
        assert speakers[clip.driver] != clip.speaker
        audio = open_clip(store, clip).driving
        assert len(audio) == clip.cross_frames * 640
        assert np.array_equal(audio, store.audio(clip.driver)[: len(audio)])


def test_a_lone_clip_is_driven_by_its_own_speech_at_another_time(dataset: Path) -> None:
    store, split = open_test_clips(dataset, 32, CROP)
    chosen = freeze(store, split, 1, 60)
    (clip,) = chosen.clips
    own = store.audio(clip.clip_id)
    assert clip.driver == clip.clip_id
    assert np.array_equal(open_clip(store, clip).driving, np.roll(own, len(own) // 2)[: 60 * 640])
    said = "own speech shifted by half, since there is only one test clip"
    assert chosen.cross == f"cross audio ({said})"
    assert len(chosen.warnings) == 1
    assert said in chosen.warnings[0]


def test_the_first_clips_are_silent_too(dataset: Path) -> None:
    store, split = open_test_clips(dataset, 32, CROP)
    chosen = freeze(store, split, 3, 50, silent_clips=2, silent_frames=20).clips
    assert [clip.silent_frames for clip in chosen] == [20, 20, 0]
    assert chosen[0].kinds == ("reconstruction", "cross", "silence")
    assert chosen[2].kinds == ("reconstruction", "cross")
    assert (
        freeze(store, split, 1, 16, silent_clips=1, silent_frames=20).clips[0].silent_frames == 16
    )
    opened = open_clip(store, chosen[0])
    assert opened.length("silence") == 20
    assert np.array_equal(opened.heard("silence"), np.zeros(20 * 640))
    digests = {
        freeze(store, split, 3, 50, silent_clips=clips, silent_frames=frames).digest
        for clips, frames in ((0, 20), (2, 20), (3, 20), (2, 21))
    }
    assert len(digests) == 4


def test_the_drivers_mouth_and_words_come_with_its_speech(dataset: Path, tmp_path: Path) -> None:
    store, split = open_test_clips(dataset, 32, CROP)
    clip = freeze(store, split, 2, 50).clips[0]
    (tmp_path / f"{clip.clip_id}.txt").write_text("")
    (tmp_path / f"{clip.driver}.txt").write_text("7")
    opened = open_clip(store, clip, Transcripts(tmp_path))
    assert opened.said("reconstruction").reason == "the transcript is empty"
    assert "no word '7'" in opened.said("cross").reason
    assert open_clip(store, clip).said("cross").reason == NO_TRANSCRIPT
    expected = mouth_opening(store.landmarks(clip.driver))[: clip.cross_frames]
    assert np.array_equal(opened.driver_opening, expected)


def test_a_list_can_be_used_again(dataset: Path, tmp_path: Path) -> None:
    store, split = open_test_clips(dataset, 32, CROP)
    chosen = freeze(store, split, 2, 50)
    write_clip_list(tmp_path / "clips.json", chosen)
    wanted = read_clip_list(tmp_path / "clips.json")
    assert freeze(store, split, 99, 50, wanted) == chosen
    with pytest.raises(UserError, match="the first being absent"):
        freeze(store, split, 99, 50, ["absent"])


def test_one_speaker_alone_is_said_to_be_trained_on(tmp_path: Path) -> None:
    store, split = open_test_clips(
        write_small_dataset(tmp_path, speakers=1, resolution=32), 32, CROP
    )
    assert split == "train"
    chosen = freeze(store, split, 2, 50)
    assert "TRAINING clips" in chosen.note
    assert chosen.title == "evaluation on TRAINING clips"
    assert "no test split" in chosen.warnings[0]


def test_short_clips_are_refused(tmp_path: Path) -> None:
    folder = write_small_dataset(tmp_path, speakers=2, resolution=32, num_frames=40)
    store, split = open_test_clips(folder, 32, CROP)
    with pytest.raises(UserError, match="no clip of the test split has 48 frames"):
        freeze(store, split, 2, 50)
