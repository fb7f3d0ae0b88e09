"""VoxCeleb2 as a source: clips, archives, box files; the official split."""

import zipfile
from pathlib import Path

import fsspec
import pytest

from datasets.errors import Reason, UserError
from datasets.fetch.item import fetch
from datasets.sources.items import How
from datasets.sources.lists import list_source
from datasets.sources.voxceleb2 import MARGIN, list_voxceleb2
from tests.support.file_server import file_server
from tests.support.zip_series import cut, make_zip

META = "\ufeffVoxCeleb2 ID,VGGFace2 ID,Gender,Set\nid1 ,n1 ,m ,dev \nid2 ,n2 ,f ,test \n"
HEAD = "Identity  : \t{}\nReference : \t{}\nOffset    : \t1\n\nFRAME \tX \tY \tW \tH \n"


def write(folder: Path, *names: str, content: bytes = b"video") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def boxes(speaker: str, video: str, *rows: str) -> bytes:
    text = HEAD.format(speaker, video)
    return (text + "".join(" \t".join(row.split()) + " \n" for row in rows)).encode()


def test_clips_of_the_official_layout(tmp_path: Path) -> None:
    write(
        tmp_path,
        "dev/mp4/id1/a/00001.mp4",
        "dev/mp4/id1/b/00001.mp4",
        "test/mp4/id2/a/00001.mp4",
        "test/mp4/id2/a/notes.txt",
        "readme.mp4",
    )
    items = list_source("voxceleb2", str(tmp_path))
    assert [(item.key, item.speaker, item.split, item.how) for item in items] == [
        ("dev/mp4/id1/a/00001.mp4", "id1", "train", How.LOCAL),
        ("dev/mp4/id1/b/00001.mp4", "id1", "train", How.LOCAL),
        ("test/mp4/id2/a/00001.mp4", "id2", "test", How.LOCAL),
    ]
    assert {item.expected_bytes for item in items} == {5}
    assert items[0].path.is_file()
    assert items[0].path.is_absolute()


def test_audio_that_lies_apart(tmp_path: Path) -> None:
    write(tmp_path, "dev/mp4/id1/a/00001.mp4", "dev/mp4/id1/a/00002.mp4")
    write(tmp_path, "dev/aac/id1/a/00001.m4a", content=b"sound")
    first, second = list_voxceleb2(tmp_path)
    assert first.sound is not None
    assert first.sound.path.read_bytes() == b"sound"
    assert second.sound is None


def test_one_half_alone(tmp_path: Path) -> None:
    write(tmp_path, "vox/test/mp4/id2/a/00001.mp4")
    for below in ("vox", "vox/test", "vox/test/mp4"):
        [item] = list_voxceleb2(tmp_path / below)
        assert (item.speaker, item.split) == ("id2", "test")


def test_the_table_decides_where_the_path_does_not(tmp_path: Path) -> None:
    write(tmp_path, "mp4/id1/a/00001.mp4", "mp4/id2/a/00001.mp4", "mp4/id3/a/00001.mp4")
    write(tmp_path, "vox2_meta.csv", content=META.encode())
    assert [item.split for item in list_voxceleb2(tmp_path)] == ["train", "test", ""]


def test_path_and_table_disagree(tmp_path: Path) -> None:
    write(tmp_path, "dev/mp4/id2/a/00001.mp4")
    write(tmp_path, "vox2_meta.csv", content=META.encode())
    with pytest.raises(UserError, match="puts speaker id2 into test"):
        list_voxceleb2(tmp_path)


def test_a_speaker_in_both_halves(tmp_path: Path) -> None:
    write(tmp_path, "dev/mp4/id1/a/00001.mp4", "test/mp4/id1/b/00001.mp4")
    with pytest.raises(UserError, match="id1 is both in train and in test"):
        list_source("voxceleb2", str(tmp_path))


def test_archives_in_parts_are_read_in_place(tmp_path: Path) -> None:
    dev = {f"dev/mp4/id1/a/0000{n}.mp4": b"%d" % n * 5000 for n in (1, 2)}
    for suffix, piece in cut(make_zip({**dev, "dev/x.txt": b"x"}), 4000).items():
        write(tmp_path, f"vox2_mp4_part{suffix}", content=piece)
    test = make_zip({"mp4/id2/a/00001.mp4": b"test"}, zipfile.ZIP_DEFLATED)
    write(tmp_path, "vox2_test_mp4.zip", content=test)
    sound = make_zip({"dev/aac/id1/a/00002.m4a": b"sound"})
    write(tmp_path, "vox2_aac.zip", content=sound)
    items = list_source("voxceleb2", str(tmp_path))
    assert [(item.key, item.split, item.how) for item in items] == [
        ("dev/mp4/id1/a/00001.mp4", "train", How.MEMBER),
        ("dev/mp4/id1/a/00002.mp4", "train", How.MEMBER),
        ("test/mp4/id2/a/00001.mp4", "test", How.MEMBER),
    ]
    assert [item.expected_bytes for item in items] == [5000, 5000, 4]
    assert len({item.version for item in items}) == 3
    cache = tmp_path / "cache"
    assert fetch(items[1], cache).path.read_bytes() == dev["dev/mp4/id1/a/00002.mp4"]
    assert fetch(items[2], cache).path.read_bytes() == b"test"
    assert items[1].sound is not None
    assert fetch(items[1].sound, cache).path.read_bytes() == b"sound"


def test_a_clip_that_is_unpacked_already_is_taken_so(tmp_path: Path) -> None:
    write(tmp_path, "dev/mp4/id1/a/00001.mp4")
    write(tmp_path, "vox2_mp4.zip", content=make_zip({"dev/mp4/id1/a/00001.mp4": b"video"}))
    assert [item.how for item in list_voxceleb2(tmp_path)] == [How.LOCAL]


def test_clips_and_archives_at_an_address(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/vox/dev/mp4/id1/a/00001.mp4", b"one")
    for suffix, piece in cut(make_zip({"dev/mp4/id1/a/00002.mp4": b"two" * 99}), 100).items():
        files.pipe(f"/vox/zips/vox2_mp4_part{suffix}", piece)
    first, second = list_source("voxceleb2", "memory://vox")
    assert (first.how, second.how) == (How.FILE, How.MEMBER)
    assert fetch(first, tmp_path).path.read_bytes() == b"one"
    assert fetch(second, tmp_path).path.read_bytes() == b"two" * 99
    files.rm("/vox", recursive=True)


@pytest.mark.parametrize(
    "bad", ["../../dev/mp4/id1/a/00001.mp4", "/dev/mp4/id1/a/00001.mp4", "a\\..\\..\\b.mp4"]
)
def test_a_member_with_a_bad_name_is_lost_and_no_other(tmp_path: Path, bad: str) -> None:
    good = {"dev/mp4/id1/a/00001.mp4": b"one", "dev/mp4/id2/a/00001.mp4": b"two"}
    write(tmp_path, "vox2_mp4.zip", content=make_zip({bad: b"evil", **good}))
    items = {item.key: item for item in list_voxceleb2(tmp_path)}
    assert [fetch(items.pop(key), tmp_path / "cache").path.read_bytes() for key in good] == [
        b"one",
        b"two",
    ]
    ((key, item),) = items.items()
    assert key == f"vox2_mp4.zip: {bad}".replace("\\", "\\\\")
    assert (item.reason, item.wanted) == (Reason.UNREADABLE, False)
    assert item.detail == "its name in the archive leads out of it"


def test_one_archive_by_itself(tmp_path: Path) -> None:
    write(tmp_path, "vox2_test_mp4.zip", content=make_zip({"mp4/id2/a/00001.mp4": b"test"}))
    write(tmp_path, "dev/mp4/id1/a/00001.mp4")
    [item] = list_source("voxceleb2", str(tmp_path / "vox2_test_mp4.zip"))
    assert (item.key, item.split) == ("test/mp4/id2/a/00001.mp4", "test")


def test_an_archive_on_a_server(tmp_path: Path) -> None:
    clips = {f"dev/mp4/id1/a/0000{n}.mp4": b"%d" % n * 5000 for n in (1, 2, 3)}
    with file_server() as files:
        for suffix, piece in cut(make_zip(clips), 4000).items():
            files.content[f"vox/vox2_mp4_part{suffix}"] = piece
        items = list_source("voxceleb2", f"{files.address}/vox/vox2_mp4_partaa")
        assert [item.expected_bytes for item in items] == [5000] * 3
        for item in items:
            assert fetch(item, tmp_path).path.read_bytes() == clips[item.key]
        with pytest.raises(UserError, match="neither a folder nor an archive"):
            list_source("voxceleb2", f"{files.address}/vox")


def test_box_files_become_parts_of_videos(tmp_path: Path) -> None:
    rows = ("000025 0.2 0.2 0.1 0.2", "000026 0.3 0.25 0.1 0.2")
    write(tmp_path, "dev/txt/id1/vid/00001.txt", content=boxes("id1", "vid", *rows))
    edge = boxes("id1", "vid", "000100 0.0 0.9 0.5 0.2")
    write(tmp_path, "dev/txt/id1/vid/00002.txt", content=edge)
    write(tmp_path, "test/txt/id2/vid/00001.txt", content=boxes("id2", "vid", *rows))
    seen: list[tuple[object, ...]] = []
    first, second = list_voxceleb2(tmp_path, lambda *counts: seen.append(counts))
    assert seen == [(2, 3), (3, 3)]
    assert (first.key, first.split, first.how) == ("dev/txt/id1/vid", "train", How.PAGE)
    assert (second.key, second.split, second.speaker) == ("test/txt/id2/vid", "test", "id2")
    assert first.location == second.location == "https://www.youtube.com/watch?v=vid"
    track, outer = first.parts
    assert (track.name, track.start_s, track.end_s) == ("00001", 1.0, 27 / 25)
    assert track.region is not None
    assert track.region.pixels(1000, 1000) == (
        round(200 - 100 * MARGIN),
        round(200 - 200 * MARGIN),
        round(400 + 100 * MARGIN),
        round(450 + 200 * MARGIN),
    )
    assert outer.region is not None
    assert outer.region.pixels(100, 100) == (0, 82, 70, 100)
    assert first.expected_seconds == pytest.approx(3 / 25)


def test_box_files_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    folder = "txt/id1/vid/"
    write(tmp_path, f"{folder}00001.txt", content=b"nothing")
    write(tmp_path, f"{folder}00002.txt", content=boxes("id1", "vid", "000025 223 80 130 130"))
    write(tmp_path, f"{folder}00003.txt", content=boxes("id1", "vid", "000025 nan 0.5 0.1 0.1"))
    write(tmp_path, f"{folder}00004.txt", content=boxes("id1", "vid", "000025 0.5 0.5 0.1 0.1"))
    [item] = list_voxceleb2(tmp_path)
    assert item.wanted
    reasons = [part.reason for part in item.parts]
    assert reasons == [Reason.NOT_ANNOTATED] * 3 + [Reason.NONE]
    expected = ("not a VoxCeleb box file", "pixels of", "no part of", "")
    for part, words in zip(item.parts, expected, strict=True):
        assert words in part.detail
    assert not item.parts[-1].detail


@pytest.mark.real
def test_the_real_samples(shared: Path) -> None:
    """The table decides that id00017 is for testing."""
    [item] = list_source("voxceleb2", str(shared / "voxceleb2"))
    assert (item.key, item.split) == ("txt/id00017/7t6lfzvVaTM", "test")
    [part] = item.parts
    assert part.region is not None
    left, top, right, bottom = part.region.pixels(1280, 720)
    assert 0 <= left < 0.359 * 1280
    assert right > (0.392 + 0.253) * 1280
    assert top < 0.207 * 720
    assert bottom > (0.223 + 0.451) * 720


def test_nothing_of_the_data_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing of VoxCeleb2"):
        list_voxceleb2(tmp_path)
    with pytest.raises(UserError, match="is neither a folder nor"):
        list_voxceleb2(tmp_path / "none")
