"""The reading benchmark: both readers see the same clips, and what it writes is a dataset."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.loader import PlainReader, main, memory, stream, sync_config
from benchmarks.loader_faces import BEFORE, ENCODINGS, OURS, SIDE, Face, decoded, write_dataset
from datasets.shards.clips import ClipStore
from datasets.shards.index import verify
from models.audio.mel import mel_spectrogram, mel_window
from tests.support.talking_boxes import talking_box


def faces(count: int) -> list[Face]:
    found = []
    for seed in range(count):
        frames, sound, points = talking_box(seed, 110)
        large = frames.repeat(SIDE // 64, 1).repeat(SIDE // 64, 2)
        found.append(Face(large, sound, points * (SIDE // 64)))
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("loader") / "d", faces(2), OURS, 20)


def test_what_is_measured_is_a_whole_dataset(dataset: Path) -> None:
    assert verify(dataset) == []
    store = ClipStore(dataset, "train")
    assert len(store.clips) == 20
    first, third = (store.content(f"clip-{number:06d}") for number in (0, 2))
    assert np.array_equal(first.frames(np.arange(5)), third.frames(np.arange(5)))


def test_the_plain_reader_gives_windows_of_the_clips_with_their_mel(dataset: Path) -> None:
    shown = faces(2)
    store = ClipStore(dataset, "train")
    whole = [decoded(store.content(f"clip-{n:06d}").member("mp4"))[:, SIDE // 2 :] for n in (0, 1)]
    mels = [mel_spectrogram(face.sound) for face in shown]
    for frames, mel in islice(PlainReader(dataset, shown).windows(0), 6):
        places = [
            (clip, start)
            for clip in (0, 1)
            for start in range(110 - 15)
            if np.array_equal(whole[clip][start : start + 16], frames)
        ]
        assert any(
            np.allclose(mel_window(mels[clip], start), mel, atol=1e-6) for clip, start in places
        )


def test_ours_reads_as_many_windows_as_it_is_asked_for(dataset: Path) -> None:
    for each in (1, 4):
        config = sync_config(each)
        for batch in islice(stream(dataset, config).batches(0, 0), 3):
            assert batch.frames.grey.shape == (16, 16, SIDE // 2, SIDE, 3)
            assert batch.mel.shape == (16, 1, 80, 52)
    assert len(memory(dataset, 4, 2)) == 2


def test_the_encodings_that_are_compared_hold_the_same_pictures() -> None:
    face = faces(1)[0]
    sizes = {}
    for each in ENCODINGS:
        video = each.encode(face.frames)
        assert np.abs(decoded(video).astype(int) - face.frames).mean() < 3
        sizes[each.name] = len(video)
    assert sizes[OURS.name] > sizes[BEFORE.name]
    assert len(set(sizes.values())) == len(ENCODINGS)


def test_a_large_dataset_is_opened(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--open", "4000", "--json", str(tmp_path / "open.json")]) == 0
    assert "3,600 training clips of 4,000 opened" in capsys.readouterr().out
    assert '"usable"' in (tmp_path / "open.json").read_text()
