"""Paths and addresses."""

from pathlib import Path

import fsspec
import pytest

from datasets.errors import UserError
from datasets.sources.locations import (
    cache_name,
    exists,
    file_system,
    join,
    read_text,
    scheme,
    shown,
)


def test_what_is_a_path_and_what_an_address() -> None:
    assert [scheme(text) for text in ("a/b", "/a", "C:/a", "S3://b/c", "https://x")] == [
        "",
        "",
        "",
        "s3",
        "https",
    ]
    assert join("/a/b", "c.txt") == "/a/b/c.txt"
    assert join("memory://a/", "c.txt") == "memory://a/c.txt"


def test_texts_here_and_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffé\n".encode())
    fsspec.filesystem("memory").pipe("/texts/a.txt", b"there")
    assert read_text(str(tmp_path / "a.txt")) == "é\n"
    assert read_text("memory://texts/a.txt") == "there"
    assert exists(str(tmp_path / "a.txt"))
    assert not exists(str(tmp_path))
    assert not exists("memory://texts/b.txt")


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.txt is missing: give one"):
        read_text(str(tmp_path / "none.txt"), missing=": give one")
    with pytest.raises(UserError, match="cannot be read"):
        read_text(str(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a text in UTF-8"):
        read_text(str(tmp_path / "a.txt"))


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(UserError, match=r"gs:// needs a library .* pip install gcsfs"):
        file_system("gs://bucket/a")


def test_secrets_are_not_shown() -> None:
    assert (
        shown("https://ann:pass@host:80/a%20b.mp4?X-Amz-Signature=1") == "https://host:80/a%20b.mp4"
    )
    assert shown("/a/b?c") == "/a/b?c"


def test_names_in_the_cache_can_be_read_and_differ() -> None:
    watch = "https://www.youtube.com/watch?v="
    names = {
        cache_name(watch + "abc_-1"),
        cache_name(watch + "abc_-1", "720"),
        cache_name(watch + "abc_-2"),
        cache_name("s3://bucket/folder/a clip.mp4"),
        cache_name("https://host/"),
    }
    assert len(names) == 5
    assert cache_name(watch + "abc_-1").startswith("abc_-1-")
    assert cache_name("s3://bucket/folder/a clip.mp4").startswith("a-clip-")
    assert all("/" not in name and len(name) < 100 for name in names)
    assert len(cache_name("https://host/" + "x" * 5000)) < 100
