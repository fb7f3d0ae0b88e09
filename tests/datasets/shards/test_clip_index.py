"""The table of clips: the same from a publication's file and from the headers of shards."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.errors import UserError
from datasets.shards.clip_index import (
    MEMBERS,
    SAMPLE,
    Clip,
    ClipTable,
    read_table,
    table_bytes,
    table_entry,
)
from datasets.shards.clips import ClipStore
from datasets.shards.index import FOLDER, make_index, publish_index, read_index, verify
from datasets.shards.records import ClipRow
from datasets.shards.writer import Shard, ShardWriter
from datasets.store.local import LocalStore


def row(clip_id: str, number: int) -> ClipRow:
    return ClipRow(f"s{number % 3}/{number}.mp4", clip_id, speaker=f"s{number % 3}")


def published(folder: Path, longest: int = 130) -> dict[str, bytes]:
    """Two shards of each split with a table; member name -> content. Names come out of order, and
    some are too long for a plain header."""
    rows, content = dict[str, Any](), dict[str, bytes]()
    shards: list[Shard] = []
    for group in range(2):
        writer = ShardWriter(folder / "scratch", group)
        for number in range(6):
            clip = row(
                f"c{(7 * number + group) % 10}{'x' * (longest if number == 2 else 5)}", number
            )
            clip.num_frames, clip.quality = 50 + number, 10.0 * number
            clip.clip_id += str(group)
            facts = '{"speaker": "%s", "path": "%s", "num_frames": %d, "resolution": 64}'
            members = {
                ext: f"{ext} of {clip.clip_id} ".encode() * (number + 3) for ext in MEMBERS
            } | {"json": (facts % (clip.speaker, clip.path, clip.num_frames)).encode()}
            writer.add("test" if number % 3 == 0 else "train", clip.clip_id, members)
            rows[clip.clip_id] = asdict(clip)
            content |= {f"{clip.clip_id}.{ext}": each for ext, each in members.items()}
        shards += writer.finish(LocalStore(folder), FOLDER)
    table = table_bytes(shards, rows, 64)
    entry = table_entry(table)
    LocalStore(folder).write(f"{FOLDER}/{entry['name']}", table)
    index = make_index([shard.info for shard in shards], {"clips": entry})
    publish_index(LocalStore(folder), index)
    return content


@pytest.mark.parametrize("split", ["train", "test", None])
def test_the_table_says_what_the_headers_say(tmp_path: Path, split: str | None) -> None:
    content = published(tmp_path)
    store, index = LocalStore(tmp_path), read_index(tmp_path)
    table = read_table(store, index, split)
    del index["clips"]
    headers = read_table(store, index, split)
    assert len(table) == {"train": 8, "test": 4, None: 12}[split]
    assert list(table) == list(headers)
    assert table.shards() == headers.shards()
    for number, clip in enumerate(table):
        for ext in (*MEMBERS, SAMPLE):
            assert table.place(number, ext) == headers.place(number, ext)
        for ext in MEMBERS:
            place = table.place(number, ext)
            whole = (tmp_path / FOLDER / place.shard).read_bytes()
            found = whole[place.offset : place.offset + place.size]
            assert found == content[f"{clip.clip_id}.{ext}"]
    assert split is None or {clip.split for clip in table} == {split}


def test_samples_lie_one_after_the_other_in_their_shards(tmp_path: Path) -> None:
    published(tmp_path)
    table = read_table(LocalStore(tmp_path), read_index(tmp_path))
    for name, first, last in table.shards():
        places = [table.place(number, SAMPLE) for number in range(first, last)]
        assert {place.shard for place in places} == {name}
        ends = [0, *(place.offset + place.size for place in places)]
        assert [place.offset for place in places] == ends[:-1]


def test_clips_are_found_by_name_and_chosen_by_length(tmp_path: Path) -> None:
    published(tmp_path)
    store = ClipStore(tmp_path)
    names = [clip.clip_id for clip in store.clips]
    assert names == sorted(names)
    assert [store.clips.find(name) for name in names] == list(range(12))
    for missing in ("", "c4", "zz"):
        with pytest.raises(KeyError):
            store.clips.find(missing)
    long = store.clips.long_enough(54)
    assert [store.clips[int(number)].num_frames for number in long] == [
        clip.num_frames for clip in store.clips if clip.num_frames >= 54
    ]
    assert store.clips.long_enough(54) is long
    assert store.clips.speakers() == 3
    assert store.clips.chosen(long)[0] == store.clips[int(long[0])]
    assert store.clips[2:4] == list(store.clips)[2:4]
    assert store.clips[-1].clip_id == names[-1]


def test_a_damaged_table_is_said_and_found(tmp_path: Path) -> None:
    published(tmp_path)
    assert verify(tmp_path) == []
    name = read_index(tmp_path)["clips"]["name"]
    (tmp_path / FOLDER / name).write_bytes(b"PAR1 and then nothing")
    assert verify(tmp_path) == [name]
    with pytest.raises(UserError, match=r"table of clips .* cannot be read .* refresh"):
        ClipStore(tmp_path)
    (tmp_path / FOLDER / name).unlink()
    with pytest.raises(UserError, match="table of clips"):
        ClipStore(tmp_path)


def test_a_new_version_replaces_the_table_of_the_one_before_the_last(tmp_path: Path) -> None:
    published(tmp_path, longest=130)
    first = read_index(tmp_path)["clips"]["name"]
    published(tmp_path, longest=140)
    second = read_index(tmp_path)["clips"]["name"]
    assert first != second
    tables = {path.name for path in (tmp_path / FOLDER).glob("*.parquet")}
    assert tables == {second}


def test_a_table_of_clips_that_are_in_no_shard() -> None:
    clips = [Clip("b", "s", "train", 9, "b.mp4", 64), Clip("a", "t", "test", 8, "a.mp4", 64)]
    table = ClipTable.of(clips)
    assert list(table) == clips
    assert np.array_equal(table.num_frames, [9, 8])
    assert [clip.clip_id for clip in table.sorted()] == ["a", "b"]
    with pytest.raises(KeyError, match="mp4"):
        table.place(0, "mp4")
