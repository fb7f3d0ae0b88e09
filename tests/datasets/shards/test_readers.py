"""Shards are read by plain webdataset and by Ray Data, with nothing of this project around."""

import io
import re
import string
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from datasets.media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from datasets.shards.records import ClipRow
from datasets.store.local import LocalStore
from tasks.ingest.file_run import clip_prefix
from tasks.runtime.ray_session import ray_session
from tests.support.shard_files import write_index, write_shards
from tests.support.small_dataset import _members

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/dataset.md"
FILES = (
    "anna/one.mp4",
    "Zoë Müller/Größe 1 – Ende.mp4",
    "日本語/ビデオ.mov",
    "日本語/動画.mov",
    "with space/a.b.c.mp4",
    "with space/a b c.mp4",
    "dev/mp4/id00012/-x_9/00001.mp4",
)
SIDE = 64


@pytest.fixture(scope="module")
def rows() -> list[ClipRow]:
    """Clips of different lengths, named as those of files with all kinds of names."""
    return [
        ClipRow(
            path=name,
            clip_id=f"{clip_prefix(name)}-s00-t00-00",
            speaker=name.partition("/")[0],
            end_s=(50 + number) / FPS,
            num_frames=50 + number,
            av_offset_frames=1.0,
            sync_confidence=7.0,
            scorer="mouth-audio",
        )
        for number, name in enumerate(FILES)
    ]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, rows: list[ClipRow]) -> Path:
    """A dataset of two train shards and one test shard."""
    folder = tmp_path_factory.mktemp("dataset")
    shards = []
    for split, part in (("test", rows[:2]), ("train", rows[2:])):
        samples = [
            (row.clip_id, _members(folder / "scratch", row, SIDE, np.random.default_rng(1)))
            for row in part
        ]
        shards += write_shards(samples, folder, split, max_samples=3)
    write_index(LocalStore(folder), shards, {"resolution": SIDE, "fps": FPS})
    return folder


def urls(dataset: Path) -> list[str]:
    found = sorted(str(path) for path in (dataset / "shards").glob("*.tar"))
    assert len(found) == 3
    return found


def check(samples: list[dict[str, Any]], rows: list[ClipRow]) -> None:
    """Every clip appears once, with the content that its row states."""
    assert sorted(each["__key__"] for each in samples) == sorted(row.clip_id for row in rows)
    by_key = {each["__key__"]: each for each in samples}
    for row in rows:
        sample = by_key[row.clip_id]
        with av.open(io.BytesIO(sample["mp4"]), "r") as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
            assert video.streams.video[0].average_rate == FPS
        assert np.shape(frames) == (row.num_frames, SIDE, SIDE, 3)
        sound, rate = soundfile.read(io.BytesIO(sample["flac"]))
        assert (rate, sound.shape) == (SAMPLE_RATE, (row.num_frames * SAMPLES_PER_FRAME,))
        assert np.abs(sound).max() > 0.05
        assert sample["npy"].shape == (row.num_frames, 478, 2)
        assert sample["npy"].dtype == np.float32
        assert sample["json"]["path"] == row.path
        assert sample["json"]["num_frames"] == row.num_frames


def test_keys_are_plain_whatever_the_file_is_called(rows: list[ClipRow]) -> None:
    keys = [row.clip_id for row in rows]
    assert len(set(keys)) == len(FILES)
    assert set("".join(keys)) <= {*string.ascii_letters, *string.digits, "-", "_"}


def test_webdataset_reads_all_clips(dataset: Path, rows: list[ClipRow]) -> None:
    import webdataset as wds

    names = ("__key__", "mp4", "flac", "npy", "json")
    reader = wds.WebDataset(urls(dataset), shardshuffle=False).decode().to_tuple(*names)
    check([dict(zip(names, sample, strict=True)) for sample in reader], rows)


@pytest.mark.e2e
def test_ray_data_reads_all_clips(dataset: Path, rows: list[ClipRow]) -> None:
    import ray.data

    with ray_session(num_cpus=2):
        clips = ray.data.read_webdataset(urls(dataset))
        assert clips.count() == len(rows)
        check(clips.take_all(), rows)


@pytest.mark.e2e
def test_the_document_shows_how(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition("## Reading a dataset")[2]
    plain, ray_data = re.findall(r"```python\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    names: dict[str, Any] = {}
    exec(plain.replace("runs/dataset", str(dataset)), names)
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == len(FILES) - 2
    assert "(56, 478, 2)" in shown
    with ray_session(num_cpus=2):
        exec(ray_data, names)
    assert f"{len(FILES) - 2} clips" in capsys.readouterr().out
