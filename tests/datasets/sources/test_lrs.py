"""LRS2 and LRS3 as sources: made folders in both layouts, and the exact items that come out."""

from pathlib import Path

import pytest

from datasets.errors import Reason, UserError
from datasets.sources.items import SourceItem
from datasets.sources.lists import list_source

BROADCAST = "6330311066473698535"
OTHER = "5535415699068794046"


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")


def write_lrs2(root: Path, inside: str = "mvlrs_v1") -> Path:
    """Six clips; lists with a further column, CRLF, a blank line, a missing file, a clip twice."""
    videos = root / inside
    write(videos, *(f"main/{BROADCAST}/0000{n}.mp4" for n in (1, 2, 3)))
    write(videos, f"main/{OTHER}/00001.mp4", f"pretrain/{BROADCAST}/00007.mp4")
    write(videos, f"main/{OTHER}/00099.mp4", f"main/{OTHER}/00001.txt")
    lists = {
        "train": f"{BROADCAST}/00001\r\n{BROADCAST}/00001\r\n\r\n",
        "val": f"{BROADCAST}/00002 NF\n",
        "test": f"\ufeff{BROADCAST}/00003 MV\n{OTHER}/00001 NF\n{OTHER}/00002\n",
        "pretrain": f"{BROADCAST}/00007\n",
    }
    for name, text in lists.items():
        (root / f"{name}.txt").write_bytes(text.encode())
    return root


def rows(items: list[SourceItem]) -> list[tuple[str, str, str, str]]:
    return [(item.relative, item.speaker, item.split, item.reason.value) for item in items]


@pytest.mark.parametrize("inside", ["mvlrs_v1", "."])
def test_lrs2_gives_what_its_lists_name(tmp_path: Path, inside: str) -> None:
    items = list_source("lrs2", str(write_lrs2(tmp_path, inside)))
    assert rows(items) == [
        (f"main/{OTHER}/00001.mp4", f"lrs2/test/{OTHER}", "test", ""),
        (f"main/{OTHER}/00002.mp4", f"lrs2/test/{OTHER}", "test", "unavailable"),
        (f"main/{BROADCAST}/00001.mp4", f"lrs2/train/{BROADCAST}", "train", ""),
        (f"main/{BROADCAST}/00002.mp4", f"lrs2/val/{BROADCAST}", "train", ""),
        (f"main/{BROADCAST}/00003.mp4", f"lrs2/test/{BROADCAST}", "test", ""),
        (f"pretrain/{BROADCAST}/00007.mp4", f"lrs2/pretrain/{BROADCAST}", "train", ""),
    ]
    assert [item.wanted for item in items] == [True, False, True, True, True, True]
    assert items[1].reason is Reason.UNAVAILABLE
    assert items[0].path.read_bytes() == b"video"
    assert items[0].path.is_absolute()


def test_a_clip_in_two_lists_of_lrs2_is_refused_by_name(tmp_path: Path) -> None:
    write_lrs2(tmp_path)
    (tmp_path / "val.txt").write_text(f"{BROADCAST}/00002\n{BROADCAST}/00001\n")
    with pytest.raises(UserError, match=r"line 2 of .*val\.txt names .*00001, which train\.txt"):
        list_source("lrs2", str(tmp_path))


def test_a_line_that_is_no_clip_is_named(tmp_path: Path) -> None:
    write_lrs2(tmp_path)
    (tmp_path / "test.txt").write_text("# clips\n")
    with pytest.raises(UserError, match=r"line 1 of .*test\.txt begins with '#'"):
        list_source("lrs2", str(tmp_path))


def test_lrs3_gives_the_clips_of_its_folders(tmp_path: Path) -> None:
    write(
        tmp_path,
        "pretrain/0aOJTTUYTS8/00001.mp4",
        "trainval/0aOJTTUYTS8/50001.mp4",
        "trainval/2T0q9gBKDCY/50003.mp4",
        "test/0Fi83BHQsMA/00002.mp4",
        "test/0Fi83BHQsMA/00002.txt",
        "test/notes.mp4",
        "other/x/00001.mp4",
    )
    assert rows(list_source("lrs3", str(tmp_path))) == [
        ("pretrain/0aOJTTUYTS8/00001.mp4", "lrs3/0aOJTTUYTS8", "train", ""),
        ("test/0Fi83BHQsMA/00002.mp4", "lrs3/0Fi83BHQsMA", "test", ""),
        ("trainval/0aOJTTUYTS8/50001.mp4", "lrs3/0aOJTTUYTS8", "train", ""),
        ("trainval/2T0q9gBKDCY/50003.mp4", "lrs3/2T0q9gBKDCY", "train", ""),
    ]


def test_a_speaker_of_lrs3_in_both_halves_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "trainval/a/50001.mp4", "test/a/00002.mp4")
    with pytest.raises(UserError, match="lrs3/a is both in train and in test"):
        list_source("lrs3", str(tmp_path))


@pytest.mark.parametrize("source", ["lrs2", "lrs3"])
def test_nothing_of_the_data_set(source: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is nothing of {source.upper()} in"):
        list_source(source, str(tmp_path))
    with pytest.raises(UserError, match="there is no folder"):
        list_source(source, str(tmp_path / "none"))
    with pytest.raises(UserError, match="only read from a folder of this machine"):
        list_source(source, "s3://bucket/lrs")
