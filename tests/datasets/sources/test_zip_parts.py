"""Archives in parts: joined in thought alone, each member checked."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from datasets.errors import Reason, SourceError, UserError
from datasets.sources.zip_parts import JoinedFile, archives, list_members, parts_of, read_member
from tests.support.zip_series import cut, make_zip

FILES = {"dev/mp4/id1/v/00001.mp4": os.urandom(300_000), "dev/mp4/id1/v/00002.mp4": b"two" * 9999}


def write(folder: Path, content: bytes, size: int, stem: str = "vox2_mp4_part") -> list[str]:
    for suffix, piece in cut(content, size).items():
        (folder / f"{stem}{suffix}").write_bytes(piece)
    return sorted(str(path) for path in folder.iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [1 << 30, 100_000, 7777])
def test_members_across_parts(tmp_path: Path, method: int, size: int) -> None:
    parts = write(tmp_path, make_zip(FILES, method), size)
    members = list_members(parts)
    assert {member.name: member.bytes for member in members} == {
        name: len(content) for name, content in FILES.items()
    }
    for member in members:
        assert b"".join(read_member(parts, member)) == FILES[member.name]


def test_parts_are_found_from_the_first(tmp_path: Path) -> None:
    parts = write(tmp_path, make_zip(FILES), 100_000)
    write(tmp_path, b"other", 2, stem="vox2_aac_part")
    assert parts_of(parts[0]) == parts
    assert parts_of(str(tmp_path / "whole.zip")) == [str(tmp_path / "whole.zip")]


def test_parts_at_an_address() -> None:
    files = fsspec.filesystem("memory")
    for suffix, piece in cut(make_zip(FILES), 100_000).items():
        files.pipe(f"/zips/vox2_part{suffix}", piece)
    parts = parts_of("memory://zips/vox2_partaa")
    assert len(parts) == 4
    first = list_members(parts)[0]
    assert b"".join(read_member(parts, first)) == FILES[first.name]


def test_how_archives_and_parts_are_named() -> None:
    names = ["d/a_partab", "d/a_partaa", "d/b.zip", "d/c.zip.002", "d/c.zip.001", "d/readme.txt"]
    assert archives([*names, "d/vox2_test_mp4.zip", "d/departed"]) == [
        ["d/a_partaa", "d/a_partab"],
        ["d/b.zip"],
        ["d/c.zip.001", "d/c.zip.002"],
        ["d/vox2_test_mp4.zip"],
    ]
    many = [f"a_part{number}" for number in range(12)]
    assert archives(reversed(many)) == [many]


@pytest.mark.parametrize("names", [["a_partaa", "a_partac"], ["a_partab"], ["a.zip.002"]])
def test_a_part_in_between_is_missing(names: list[str]) -> None:
    with pytest.raises(UserError, match=r"parts of .* are missing before"):
        archives(names)


def test_the_last_part_is_missing(tmp_path: Path) -> None:
    parts = write(tmp_path, make_zip(FILES), 100_000)
    with pytest.raises(UserError, match=r"not a complete zip archive .*3 found"):
        list_members(parts[:-1])


def test_a_member_that_leads_out_says_so(tmp_path: Path) -> None:
    for name in ("../evil.mp4", "/evil.mp4", "a\\..\\..\\evil.mp4"):
        path = tmp_path / "a.zip"
        path.write_bytes(make_zip({name: b"x"}))
        (member,) = list_members([str(path)])
        assert member.problem == "its name in the archive leads out of it"


def test_damage_is_noticed(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = bytearray(make_zip(FILES, method))
        content[len(content) // 3] ^= 1
        path = tmp_path / "a.zip"
        path.write_bytes(content)
        first = list_members([str(path)])[0]
        with pytest.raises(SourceError, match="damaged") as caught:
            list(read_member([str(path)], first))
        assert caught.value.reason is Reason.UNREADABLE
        with pytest.raises(SourceError, match="not where"):
            list(read_member([str(path)], replace(first, offset=3)))


def test_a_bomb_is_unpacked_no_further_than_its_stated_size(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(make_zip({"a": bytes(50 << 20)}, zipfile.ZIP_DEFLATED))
    member = replace(list_members([str(path)])[0], bytes=1 << 20)
    seen: list[int] = []
    with pytest.raises(SourceError, match="damaged"):
        seen.extend(map(len, read_member([str(path)], member)))
    assert sum(seen) <= 1 << 20


def test_reading_and_seeking_over_the_joins(tmp_path: Path) -> None:
    pieces = [b"abc", b"", b"defgh", b"i"]
    for number, piece in enumerate(pieces):
        (tmp_path / str(number)).write_bytes(piece)
    with JoinedFile([str(tmp_path / str(number)) for number in range(4)]) as joined:
        assert joined.readall() == b"abcdefghi"
        joined.seek(-2, os.SEEK_END)
        assert joined.readall() == b"hi"
        joined.seek(2)
        assert joined.read(1) == b"c"
        assert joined.read(4) == b"defg"
        joined.seek(100)
        assert joined.read(1) == b""
