"""When a source counts as changed: by its size and times, by its listing, by its bytes."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.errors import Reason, SourceError
from datasets.sources.items import How, Part, SourceItem, local_item
from tasks.ingest.source_state import (
    digest_of,
    plain,
    readable_digest,
    same_stamp,
    stamp_of,
    written_since,
)

LISTED = SourceItem("a", "https://example.org/a.mp4", "a.mp4", "ann", How.FILE, version="v1")


@pytest.fixture
def local(tmp_path: Path) -> SourceItem:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"video")
    return local_item(path, "a.mp4", "ann")


def later(item: SourceItem, content: bytes | None = None) -> None:
    """Write or only touch the file, a second after its time of now."""
    before = item.path.stat().st_mtime_ns
    if content is not None:
        item.path.write_bytes(content)
    os.utime(item.path, ns=(before + 10**9, before + 10**9))


def test_a_file_is_known_by_size_and_times(local: SourceItem) -> None:
    before = stamp_of(local)
    assert same_stamp(stamp_of(local), before)
    assert not written_since(local, before)
    later(local)
    assert not same_stamp(stamp_of(local), before)
    assert written_since(local, before)


def test_a_file_of_another_size_was_written_though_its_time_was_set_back(local: SourceItem) -> None:
    before, time = stamp_of(local), local.path.stat().st_mtime_ns
    local.path.write_bytes(b"longer video")
    os.utime(local.path, ns=(time, time))
    assert written_since(local, before)


def test_another_name_or_right_is_no_writing(local: SourceItem) -> None:
    before = stamp_of(local)
    local.path.chmod(0o600)
    os.link(local.path, local.path.with_name("b.mp4"))
    assert not written_since(local, before)


@pytest.mark.parametrize(
    "changes",
    [
        {"speaker": "bob"},
        {"split": "test"},
        {"parts": (Part("p", 0.0, 1.0),)},
        {"reason": Reason.UNAVAILABLE},
        {"sound": LISTED},
    ],
)
def test_what_is_said_of_a_source_belongs_to_its_state(
    local: SourceItem, changes: dict[str, object]
) -> None:
    for item in (local, LISTED):
        other = replace(item, **changes)  # type: ignore[arg-type]
        assert not same_stamp(stamp_of(other), stamp_of(item))
        assert not written_since(other, stamp_of(item))


def test_a_listing_is_known_by_its_version_and_address() -> None:
    assert same_stamp(stamp_of(LISTED), stamp_of(replace(LISTED)))
    others = (
        replace(LISTED, version="v2"),
        replace(LISTED, location="https://example.org/b"),
        replace(LISTED, sha256="0" * 64),
    )
    for other in others:
        assert not same_stamp(stamp_of(other), stamp_of(LISTED))


def test_a_server_that_does_not_answer_says_nothing() -> None:
    silent = replace(LISTED, version="")
    assert same_stamp(stamp_of(silent), stamp_of(LISTED))
    # Where it said nothing then and does now, the state is another one.
    assert not same_stamp(stamp_of(LISTED), stamp_of(silent))
    # All else must still be the same.
    other = replace(silent, speaker="bob")
    assert not same_stamp(stamp_of(other), stamp_of(LISTED))


def test_a_file_that_is_gone_is_another_state(local: SourceItem) -> None:
    before = stamp_of(local)
    local.path.unlink()
    assert not same_stamp(stamp_of(local), before)
    assert not written_since(local, before)
    assert digest_of(local) == ""


def test_the_digest_is_that_of_the_bytes(local: SourceItem, tmp_path: Path) -> None:
    expected = hashlib.sha256(b"video").hexdigest()
    assert digest_of(local) == expected
    assert readable_digest(local.path, local.path) == expected
    sound = tmp_path / "sound.wav"
    with pytest.raises(SourceError) as missing:
        readable_digest(local.path, sound)
    assert missing.value.reason is Reason.NOT_READ
    os.mkfifo(sound)
    with pytest.raises(SourceError) as pipe:
        readable_digest(local.path, sound)
    assert pipe.value.reason is Reason.UNREADABLE


def test_names_that_are_no_text_become_text() -> None:
    assert plain("ä b.mp4") == "ä b.mp4"
    assert plain(b"a\xff.mp4".decode("utf-8", "surrogateescape")) == "a\\xff.mp4"
