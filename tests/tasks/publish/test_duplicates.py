"""One content is published once, whatever its files are called and however they are encoded."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets.errors import UserError
from datasets.media import SAMPLE_RATE, SAMPLES_PER_FRAME, VideoWriter, write_flac
from datasets.shards.clips import ClipStore
from datasets.shards.index import read_index, read_samples
from datasets.shards.leaks import clips_in_two_splits
from datasets.shards.splits import speaker_hash
from datasets.sources.addresses import AddressPolicy
from datasets.sources.items import SourceItem, list_folder
from datasets.sources.lists import ListOptions, list_source
from tasks.evaluate.clips import open_test_clips
from tasks.ingest.journal_entries import GroupEntry, SourceEntry
from tasks.publish.duplicates import Standing, find_duplicates, inherited_splits
from tests.support.file_server import file_server
from tests.support.portrait import moving
from tests.support.whole_refresh import WholeRefresh

FRAMES = 36
SIX = [f"{name}/take.mp4" for name in ("ann", "bea", "cid", "dan", "eve", "fay")]


def speech(seed: int) -> np.ndarray:
    """Bursts of noise in bands that change, float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(FRAMES * SAMPLES_PER_FRAME) / SAMPLE_RATE
    sound = np.zeros(len(time))
    for begin in np.arange(0, time[-1], 0.12):
        here = (time >= begin) & (time < begin + 0.1)
        for pitch in rng.uniform(300, 3000, 4):
            sound[here] += rng.uniform(0.2, 1) * np.sin(2 * np.pi * pitch * time[here])
    return (0.1 * sound).astype(np.float32)


def film(path: Path, seed: int, side: int = 320, codec: str = "aac", crf: int = 18) -> Path:
    """The same face in the same place, saying what the seed says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = path.with_suffix(".flac")
    write_flac(sound, speech(seed), SAMPLE_RATE)
    with VideoWriter(path, side, side, 25, crf=crf, preset="ultrafast", audio=sound) as writer:
        for frame in moving(FRAMES, side):
            writer.write(frame)
    sound.unlink()
    return path


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A recording, another encoding of it, and two other sentences in the same room."""
    folder = tmp_path_factory.mktemp("takes")
    return {
        "take": film(folder / "take.mp4", 1),
        "smaller": film(folder / "smaller.mp4", 1, side=240, crf=32),
        "other": film(folder / "other.mp4", 2),
        "third": film(folder / "third.mp4", 3),
    }


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> WholeRefresh:
    return WholeRefresh(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def refresh(loaded: WholeRefresh, tmp_path: Path) -> WholeRefresh:
    """With a dataset of its own; the face models are loaded once."""
    own = WholeRefresh.__new__(WholeRefresh)
    own.__dict__ |= loaded.__dict__
    own.out, own.cache = tmp_path / "out", tmp_path / "cache"
    own.store = type(loaded.store)(own.out)
    return own


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return tmp_path / "videos"


def put(take: Path, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(take, path)


def test_six_copies_are_published_once(
    takes: dict[str, Path], refresh: WholeRefresh, videos: Path
) -> None:
    put(takes["take"], *(videos / name for name in SIX))
    put(takes["other"], videos / "gus/other.mp4")
    made = refresh(list_folder(videos))
    assert made.accepted() == {"ann/take.mp4": "ann", "gus/other.mp4": "gus"}
    assert made.duplicates() == dict.fromkeys(SIX[1:], "ann/take.mp4")
    assert sum(made.made.splits.values()) == 2
    assert sorted(path for split in refresh.shards().values() for path in split) == [
        "ann/take.mp4",
        "gus/other.mp4",
    ]
    row = next(row for row in made.made.rows if row["path"] == "bea/take.mp4")
    assert (row["reason"], row["detail"]) == ("duplicate", "the same file as ann/take.mp4")
    assert made.made.summary()["reasons"] == {"duplicate": 5}


def test_the_first_stays_first_and_does_not_depend_on_who_is_finished_first(
    takes: dict[str, Path], refresh: WholeRefresh, videos: Path
) -> None:
    put(takes["take"], *(videos / name for name in SIX[2:4]))
    first = refresh(list_folder(videos), backwards=True)
    assert first.accepted() == {"cid/take.mp4": "cid"}
    put(takes["take"], videos / "ann/take.mp4")
    again = refresh(list_folder(videos))
    assert again.accepted() == first.accepted(), "a newcomer does not displace what is published"
    assert refresh(list_folder(videos)).made.digest == again.made.digest
    shutil.rmtree(videos / "cid")
    taken = refresh(list_folder(videos))
    assert taken.accepted() == {"dan/take.mp4": "dan"}, "the duplicate takes over"
    assert not taken.decoded
    put(takes["take"], videos / "cid/take.mp4")
    assert refresh(list_folder(videos)).accepted() == taken.accepted()


@pytest.mark.parametrize("forget", [False, True])
def test_a_duplicate_takes_over_from_what_is_dropped(
    takes: dict[str, Path], refresh: WholeRefresh, videos: Path, forget: bool
) -> None:
    put(takes["take"], videos / "ann/take.mp4")
    put(takes["smaller"], videos / "bob/small.mp4")
    assert refresh(list_folder(videos)).duplicates() == {"bob/small.mp4": "ann/take.mp4"}
    shutil.rmtree(videos / "ann")
    made = refresh(list_folder(videos), forget=forget)
    assert made.accepted() == {"bob/small.mp4": "bob"}
    assert [*refresh.shards().values()] == [{"bob/small.mp4"}]


def test_a_renamed_folder_keeps_clips_and_split(
    takes: dict[str, Path], refresh: WholeRefresh, videos: Path
) -> None:
    # By its own name the new speaker would be for training, and the test split is not empty.
    (test, other_test), (train, new) = _speakers()
    others = {f"{train}/b.mp4": train, f"{other_test}/c.mp4": other_test}
    put(takes["take"], videos / test / "take.mp4")
    put(takes["other"], videos / train / "b.mp4")
    put(takes["third"], videos / other_test / "c.mp4")

    def shards(path: str) -> dict[str, set[str]]:
        return {"test": {path, f"{other_test}/c.mp4"}, "train": {f"{train}/b.mp4"}}

    refresh(list_folder(videos))
    assert refresh.shards() == shards(f"{test}/take.mp4")
    os.rename(videos / test, videos / new)
    made = refresh(list_folder(videos))
    assert (made.decoded, made.moved) == ([], {f"{test}/take.mp4": f"{new}/take.mp4"})
    assert made.accepted() == {f"{new}/take.mp4": new, **others}
    assert made.made.inputs == 3
    assert refresh.shards() == shards(f"{new}/take.mp4")
    assert not made.made.duplicates
    (clip,) = [row["clip_id"] for row in made.made.rows if row["speaker"] == new]
    assert clip.startswith(f"{new}-take-"), "clips are called as if they came from there"
    assert clip in {each.clip_id for each in ClipStore(refresh.out, split="test").clips}
    assert refresh(list_folder(videos)).made.digest == made.made.digest
    os.rename(videos / new, videos / test)
    assert refresh(list_folder(videos)).accepted() == {f"{test}/take.mp4": test, **others}


def test_a_renamed_source_stays_the_first_of_its_copies(
    takes: dict[str, Path], refresh: WholeRefresh, videos: Path
) -> None:
    (test, other_test), (train, new) = _speakers()
    put(takes["take"], videos / test / "take.mp4")
    put(takes["other"], videos / other_test / "b.mp4")
    put(takes["third"], videos / train / "c.mp4")
    refresh(list_folder(videos))
    put(takes["take"], videos / train / "take.mp4")
    os.rename(videos / test, videos / new)
    made = refresh(list_folder(videos))
    assert made.duplicates() == {f"{train}/take.mp4": f"{new}/take.mp4"}
    assert refresh.shards()["test"] == {f"{new}/take.mp4", f"{other_test}/b.mp4"}


def test_a_move_gives_what_ingesting_would(
    takes: dict[str, Path], refresh: WholeRefresh, videos: Path, tmp_path: Path
) -> None:
    put(takes["take"], videos / "ann/take.mp4")
    put(takes["other"], videos / "ann/other.mp4")
    refresh(list_folder(videos))
    os.rename(videos / "ann", videos / "eve")
    refresh(list_folder(videos))
    moved = _samples(refresh)
    refresh.out = tmp_path / "anew"
    refresh.store = type(refresh.store)(refresh.out)
    refresh(list_folder(videos))
    assert moved == _samples(refresh)


def test_another_encoding_is_a_duplicate_unless_only_files_count(
    takes: dict[str, Path], refresh: WholeRefresh, videos: Path
) -> None:
    put(takes["take"], videos / "ann/take.mp4")
    put(takes["smaller"], videos / "bob/small.mp4")
    put(takes["other"], videos / "ann/other.mp4")
    made = refresh(list_folder(videos))
    assert made.duplicates() == {"bob/small.mp4": "ann/take.mp4"}
    assert set(made.accepted()) == {"ann/take.mp4", "ann/other.mp4"}, "another sentence is not"
    detail = next(row["detail"] for row in made.made.rows if row["speaker"] == "bob")
    assert detail.startswith("the same recording as ann/take.mp4 (pictures differ by 0.0")
    files = refresh(list_folder(videos), kind="files")
    assert len(files.accepted()) == 3
    assert not files.decoded
    assert not files.duplicates()
    assert refresh(list_folder(videos)).made.digest == made.made.digest


def test_two_addresses_of_one_file_are_one_content(
    takes: dict[str, Path], refresh: WholeRefresh, tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    with file_server() as files:
        files.content["a.mp4"] = takes["take"].read_bytes()
        files.redirects["z.mp4"] = f"{files.address}/a.mp4"
        listed.write_text(f"{files.address}/z.mp4 zoe\n{files.address}/a.mp4 ann\n")
        made = refresh(_addresses(listed))
        (name,) = made.accepted()
        assert len(made.duplicates()) == 1
        speaker = made.accepted()[name]
        listed.write_text(f"{files.address}/new.mp4 new\n")
        files.redirects["new.mp4"] = f"{files.address}/a.mp4"
        moved = refresh(_addresses(listed))
        assert len(moved.accepted()) == 1
        assert [*moved.accepted().values()] == ["new"]
        assert moved.made.inputs == 1
        splits = json.loads((refresh.out / "refresh.json").read_text())["splits"]
        assert splits["new"] == splits[speaker]


def test_the_file_that_was_published_stays_when_the_same_name_holds_something_else(
    takes: dict[str, Path], refresh: WholeRefresh, videos: Path
) -> None:
    put(takes["take"], videos / "ann/take.mp4")
    refresh(list_folder(videos))
    os.rename(videos / "ann", videos / "bob")
    put(takes["other"], videos / "ann/take.mp4")
    made = refresh(list_folder(videos))
    assert made.accepted() == {"ann/take.mp4": "ann", "bob/take.mp4": "bob"}


def test_what_was_published_is_first_then_what_came_first() -> None:
    def find(*published: str) -> dict[str, str]:
        sources = [
            SourceEntry(key, [{"path": f"{key}.mp4"}], [], content="same")
            for key in ("b", "a", "c")
        ]
        groups = [GroupEntry(number, [source]) for number, source in enumerate(sources)]
        found = find_duplicates(groups, Standing({"a": 50, "b": 50}, (), {*published}))
        return {key: twin.path for key, twin in found.items()}

    assert find() == {"a": "b.mp4", "c": "b.mp4"}
    assert find("a.mp4") == {"b": "a.mp4", "c": "a.mp4"}
    assert find("c.mp4") == {"a": "b.mp4", "c": "b.mp4"}, "c has no clip that is good enough"


def test_a_cut_or_damaged_copy_does_not_stand_for_a_whole_one() -> None:
    frames = {"a": 40, "b": 50, "c": 50}
    notes = {"b": "ends at 1.0 s of 9.0 s"}
    sources = [
        SourceEntry(key, [{"path": key}], [], content="same", note=notes.get(key, ""))
        for key in frames
    ]
    found = find_duplicates([GroupEntry(0, sources)], Standing(frames, (), set()))
    assert {key: twin.path for key, twin in found.items()} == {"a": "c", "b": "c"}


def test_new_names_inherit_the_split_of_the_old_ones() -> None:
    splits = {"ann": "test", "bob": "train"}
    assert inherited_splits(splits, [("eve", "ann")]) == {"eve": "test"}
    assert inherited_splits(splits, [("eve", "ann"), ("eve", "bob")]) == {"eve": "train"}
    assert inherited_splits(splits, [("bob", "ann"), ("eve", "zoe")]) == {}


def test_an_evaluation_of_content_in_two_splits_is_refused_by_name(
    takes: dict[str, Path], refresh: WholeRefresh, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (test, _), (train, _) = _speakers()
    put(takes["take"], videos / test / "take.mp4", videos / train / "take.mp4")
    with monkeypatch.context() as blind:
        blind.setattr("tasks.publish.version.find_duplicates", lambda *_: {})
        with pytest.raises(UserError, match="same content as one of another split") as refused:
            refresh(list_folder(videos))
        assert f"{test}/take.mp4, test" in str(refused.value)
        assert not (refresh.out / "index.json").exists(), "such a version is not published"
        blind.setattr("tasks.publish.pack.refuse_leaks", lambda *_: None)
        refresh(list_folder(videos))
    ((one, other),) = clips_in_two_splits(refresh.store, ClipStore(refresh.out).clips)
    assert {one.split, other.split} == {"test", "train"}
    with pytest.raises(UserError, match=f"{train}/take.mp4, train"):
        open_test_clips(refresh.out, 96, ClipStore(refresh.out).index["crop"])
    refresh(list_folder(videos))
    assert not list(clips_in_two_splits(refresh.store, ClipStore(refresh.out).clips))


def _speakers() -> tuple[list[str], list[str]]:
    """Speakers for testing by their names, and for training."""
    shares = {name: speaker_hash(name) for name in (f"p{number}" for number in range(100))}
    return (
        [name for name, share in shares.items() if share < 0.3][:2],
        [name for name, share in shares.items() if share > 0.5][:2],
    )


def _addresses(listed: Path) -> list[SourceItem]:
    options = ListOptions(addresses=AddressPolicy(allow_private=True))
    return list_source("urls", str(listed), options=options)


def _samples(refresh: WholeRefresh) -> dict[str, dict[str, bytes]]:
    return {
        key: members
        for shard in read_index(refresh.out)["shards"]
        for key, members in read_samples(refresh.store, f"shards/{shard['name']}")
    }
