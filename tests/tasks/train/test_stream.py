"""Streamed batches: the same after any interruption, every clip once, nothing of another split."""

import pickle
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.errors import UserError
from datasets.shards.clip_content import ClipContent
from datasets.shards.index import FOLDER, read_index
from datasets.store.open import open_store
from datasets.store.remote import RemoteStore
from tasks.recipes.recipe import recipe
from tasks.train.cutters import SyncCutter, UNetCutter
from tasks.train.stream import (
    Reading,
    Source,
    Stream,
    describe,
    next_readings,
    rank_batches,
    write_readings,
)
from tests.support.file_server import file_server
from tests.support.s3_server import S3Server
from tests.support.talking_boxes import make_dataset

DEBUG = recipe("debug")
CLIPS = 14
"""Clips of the training split, in shards of three; one in seven speakers is for testing."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(
        tmp_path_factory.mktemp("stream") / "d", speakers=8, clips=2, frames=52, per_shard=3
    )


@dataclass
class Names:
    """Cuts nothing: each window is its clip, epoch and number."""

    batch_size: int = 4
    windows_per_clip: int = 3
    reach: int = 40
    window_bytes: int = 100
    members: tuple[str, ...] = ("flac",)

    def cut(self, content: ClipContent, place: tuple[int, ...], keep: Sequence[int]) -> list[Any]:
        assert set(self.members) <= {"flac", "mp4", "npy"}
        assert content.member("flac")[:4] == b"fLaC"
        return [(content.clip.clip_id, place[2], each) for each in keep]

    def batch(self, windows: Sequence[Any]) -> list[Any]:
        return list(windows)


def stream(dataset: Path | str, cutter: Any = None, step: int = 0, **changes: Any) -> Stream:
    """Of rank 0 of 2, with 3 workers; 6 windows of `Names` wait, about."""
    readings = changes.pop("readings", [Reading(0, 2, 3)])
    made = Stream(Source(str(dataset), "train", 64), cutter or Names(), 5, readings, 0, step, 900)
    return replace(made, **changes) if changes else made


def in_turn(made: Stream) -> Iterator[Any]:
    """What `rank_batches` gives, in this process."""
    reading, lanes = made.readings[-1], dict[int, Iterator[Any]]()
    step = made.step
    while True:
        lane, before = reading.lane(made.rank, step)
        if lane not in lanes:
            lanes[lane] = made.batches(lane, before)
        yield next(lanes[lane])
        step += 1


def equal(first: Any, second: Any) -> bool:
    """Whether two batches are the same to the last bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if is_dataclass(first):
        return all(
            equal(getattr(first, each.name), getattr(second, each.name)) for each in fields(first)
        )
    if isinstance(first, tuple | list):
        return all(equal(*each) for each in zip(first, second, strict=True))
    if hasattr(first, "tobytes"):
        return bool(first.tobytes() == second.tobytes())
    return bool(first == second)


def test_every_clip_is_seen_as_often_as_asked_in_every_epoch(dataset: Path) -> None:
    seen: Counter[tuple[str, int, int]] = Counter()
    for rank in range(2):
        # Three epochs of 14 clips in 3 windows each, by two ranks, in batches of 4, and more.
        for batch in islice(in_turn(stream(dataset, rank=rank)), 3 * 14 * 3 // 2 // 4 + 12):
            assert len(batch) == 4
            seen.update(batch)
    assert set(seen.values()) == {1}
    for epoch in range(3):
        of_epoch = [window for window in seen if window[1] == epoch]
        assert len(of_epoch) == CLIPS * 3
        assert {window[2] for window in of_epoch} == {0, 1, 2}


def test_no_clip_of_another_split_or_too_short_a_one_comes(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", speakers=4, clips=3, frames=52, test=(1, 2), per_shard=2)
    found = {each[0] for batch in islice(in_turn(stream(folder)), 30) for each in batch}
    assert found == {f"s{speaker}-c{clip}" for speaker in (0, 3) for clip in range(3)}
    with pytest.raises(UserError, match=r"train split .* needs 60 frames, the longest of 6 clips"):
        next(in_turn(stream(folder, Names(reach=60))))


def test_clips_that_are_too_short_are_passed_by(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", speakers=3, clips=4, frames=(30, 52, 40, 52), per_shard=3)
    lengths = Counter[str]()

    class Lengths(Names):
        def cut(
            self, content: ClipContent, place: tuple[int, ...], keep: Sequence[int]
        ) -> list[Any]:
            assert len(content.audio()) == content.clip.num_frames * 640
            assert int(content.clip.clip_id[-1]) in (1, 2, 3)
            return super().cut(content, place, keep)

    for batch in islice(in_turn(stream(folder, Lengths(), readings=[Reading(0, 1, 2)])), 18):
        lengths.update(each[0] for each in batch)
    assert set(lengths) == {f"s{speaker}-c{clip}" for speaker in (1, 2) for clip in (1, 2, 3)}
    assert max(lengths.values()) - min(lengths.values()) <= 3


def test_windows_of_a_clip_are_mixed_with_others(dataset: Path) -> None:
    clips = [len({each[0] for each in batch}) for batch in islice(in_turn(stream(dataset)), 40)]
    unmixed = in_turn(stream(dataset, mixed_bytes=0))
    without = [len({each[0] for each in batch}) for batch in islice(unmixed, 40)]
    assert sum(without) / 40 <= 2
    assert sum(clips) / 40 > 2.8


def test_half_of_the_pairs_are_in_sync_and_clips_take_turns(dataset: Path) -> None:
    cutter = SyncCutter(replace(DEBUG.syncnet, batch_size=14, windows_per_clip=1))
    made = stream(dataset, cutter, readings=[Reading(0, 1, 1)], mixed_bytes=0)
    first, second = (batch.labels for batch in islice(in_turn(made), 2))
    assert float(first.sum() + second.sum()) == 14
    assert 4 <= float(first.sum()) <= 10


@pytest.mark.parametrize(
    "cutter",
    [
        Names(),
        SyncCutter(replace(DEBUG.syncnet, batch_size=5, windows_per_clip=3)),
        UNetCutter(replace(DEBUG.stage1, batch_size=3, windows_per_clip=2), 16, 64),
    ],
    ids=["names", "sync", "unet"],
)
def test_ten_interruptions_change_no_batch(dataset: Path, cutter: Any) -> None:
    mixed = 2 * cutter.window_bytes * cutter.windows_per_clip
    whole = list(islice(in_turn(stream(dataset, cutter, mixed_bytes=mixed)), 40))
    assert not equal(whole[0], whole[1])
    draw, step = random.Random(0), 0
    for _ in range(11):
        until = min(40, step + draw.randrange(1, 8))
        resumed = in_turn(stream(dataset, cutter, step, mixed_bytes=mixed))
        for batch in islice(resumed, until - step):
            assert equal(batch, whole[step])
            step += 1
        # A killed run goes on from its last checkpoint, not from where it died.
        step -= draw.randrange(0, 2)
    assert step > 20


def test_a_bucket_gives_what_the_folder_gives(dataset: Path, s3_server: S3Server) -> None:
    store = open_store(f"s3://{s3_server.bucket()}/dataset")
    assert isinstance(store, RemoteStore)
    for path in sorted(dataset.rglob("*")):
        if path.is_file():
            store.write(path.relative_to(dataset).as_posix(), path.read_bytes())
    cutter = SyncCutter(replace(DEBUG.syncnet, batch_size=5, windows_per_clip=3))
    whole = list(islice(in_turn(stream(dataset, cutter)), 12))
    draw = random.Random(1)
    for _ in range(10):
        step = draw.randrange(0, 11)
        batch = next(in_turn(stream(store.url, cutter, step)))
        assert equal(batch, whole[step])


def test_a_web_server_gives_what_the_folder_gives(dataset: Path) -> None:
    with file_server() as server:
        server.content = {
            path.relative_to(dataset).as_posix(): path.read_bytes()
            for path in dataset.rglob("*")
            if path.is_file()
        }
        whole = list(islice(in_turn(stream(dataset)), 12))
        assert list(islice(in_turn(stream(server.address)), 12)) == whole
        resumed = stream(f"{server.address}/", step=7)
        assert list(islice(in_turn(resumed), 5)) == whole[7:]


def test_what_was_passed_is_not_decoded(dataset: Path) -> None:
    cut: list[int] = []

    class Counting(Names):
        def cut(
            self, content: ClipContent, place: tuple[int, ...], keep: Sequence[int]
        ) -> list[Any]:
            cut.append(len(keep))
            return super().cut(content, place, keep)

    late = stream(dataset, Counting(), step=3000)
    assert len(next(in_turn(late))) == 4
    # The batch itself, and at most as many windows as wait, twice.
    assert sum(cut) <= 4 + 2 * late.reach


def test_processes_give_what_this_one_would(dataset: Path) -> None:
    cutter = SyncCutter(replace(DEBUG.syncnet, batch_size=5, windows_per_clip=3))
    made = stream(dataset, cutter, 7, readings=[Reading(0, 2, 2)])
    expected = list(islice(in_turn(made), 5))
    with closing(rank_batches(made)) as batches:
        for batch, known in zip(batches, expected, strict=False):
            assert equal(batch, known)


def test_another_number_of_workers_goes_on_with_unfinished_shards(
    tmp_path: Path,
) -> None:
    path = tmp_path / "reading.json"
    first, before = next_readings(path, 0, 2, 3)
    assert (first, before) == ([Reading(0, 2, 3)], None)
    write_readings(path, first)
    assert next_readings(path, 6, 2, 3) == (first, None)
    assert next_readings(path, 6, 2, 0) == (first, None)
    second, before = next_readings(path, 4, 1, 2)
    assert second == [Reading(0, 2, 3), Reading(4, 1, 2)]
    assert before == first[0]
    text = describe(second[-1], before)
    assert "2 processes (1 x 2) instead of 6 (2 x 3): going on with the shards" in text
    write_readings(path, second)
    # A run that died again before its next checkpoint is not a third reading.
    assert next_readings(path, 4, 1, 2) == (second, None)
    assert next_readings(path, 3, 2, 3) == (first, None)


@pytest.mark.parametrize(("mixed", "per_shard"), [(0, 3), (450, 1)])
def test_with_other_workers_the_epoch_is_finished(
    tmp_path: Path, mixed: int, per_shard: int
) -> None:
    dataset = make_dataset(tmp_path / "d", speakers=8, clips=2, frames=52, per_shard=per_shard)
    before, after = Reading(0, 2, 1), Reading(4, 1, 2)
    # Two ranks made 4 batches of 4: 5 of 7 clips each, of which some shards were read to the end.
    seen = {
        each
        for rank in range(2)
        for batch in islice(
            in_turn(stream(dataset, rank=rank, readings=[before], mixed_bytes=mixed)), 4
        )
        for each in batch
    }
    assert len(seen) == 32
    resumed = stream(dataset, step=4, readings=[before, after], mixed_bytes=mixed)
    later = [each for batch in islice(in_turn(resumed), 30) for each in batch]
    first_epoch = {each for each in later if each[1] == 0}
    everything = {
        (f"s{speaker}-c{clip}", 0, at)
        for speaker in range(1, 8)
        for clip in range(2)
        for at in range(3)
    }
    assert {each for each in seen | first_epoch if each[1] == 0} == everything
    assert 0 < len(first_epoch) < len(everything)
    assert {each for each in later if each[1] == 1} == {(name, 1, at) for name, _, at in everything}
    # And any position of that is found again, too.
    again = [each for batch in islice(in_turn(replace(resumed, step=19)), 15) for each in batch]
    assert again == later[15 * 4 :]


def test_a_new_training_forgets_who_read_before(tmp_path: Path) -> None:
    path = tmp_path / "reading.json"
    write_readings(path, [Reading(0, 2, 3), Reading(4, 1, 2)])
    assert next_readings(path, 0, 1, 0, default=5) == ([Reading(0, 1, 5)], None)
    path.write_text("[{")
    assert next_readings(path, 0, 1, 1)[0] == [Reading(0, 1, 1)]
    with pytest.raises(UserError, match=r"reading.json is damaged .* delete it"):
        next_readings(path, 3, 1, 1)


def test_a_stream_travels_without_its_table(dataset: Path) -> None:
    made = stream(dataset)
    assert len(made.shards.table) == CLIPS
    assert len(pickle.dumps(made)) < 2000
    assert pickle.loads(pickle.dumps(made)).shards.sizes == made.shards.sizes


def test_a_damaged_shard_ends_in_a_sentence(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", speakers=2, clips=2, frames=52, per_shard=1)
    shards = [each for each in read_index(folder)["shards"] if each["split"] == "train"]
    made = stream(folder, readings=[Reading(0, 1, 1)])
    assert made.shards.sizes == (1, 1)
    for each in shards:
        path = folder / FOLDER / each["name"]
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"shard .* cannot be read \(it is cut off\)"):
        next(in_turn(made))
    with pytest.raises(UserError, match=r"cannot be read"), closing(rank_batches(made)) as batches:
        next(batches)
    (folder / FOLDER / shards[0]["name"]).unlink()
    (folder / FOLDER / shards[1]["name"]).unlink()
    with pytest.raises(UserError, match="start the training anew"):
        next(in_turn(made))
