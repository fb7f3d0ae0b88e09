"""A fetched file's place: there when whole, held by one, and nothing left behind."""

import errno
import json
import os
from pathlib import Path

import pytest

from datasets.errors import Reason, SourceError
from datasets.fetch.policy import Deadline
from datasets.fetch.slot import Slot
from tests.support.fake_clock import FakeClock


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return Slot(tmp_path / "cache", "talk-1")


def published(slot: Slot, content: bytes = b"video") -> Path:
    slot.folder.mkdir(exist_ok=True)
    slot.part.write_bytes(content)
    slot.set_part_state(version="v", total=len(content))
    return slot.publish(slot.part, ".mp4", "v").path


def test_a_published_file_is_known_to_a_later_run(slot: Slot) -> None:
    path = published(slot)
    kept = Slot(slot.folder, slot.name).kept()
    assert kept is not None
    assert (kept.path, kept.bytes, kept.version) == (path, 5, "v")
    assert len(kept.sha256) == 64
    assert sorted(file.name for file in slot.folder.iterdir()) == ["talk-1.json", "talk-1.mp4"]


def test_being_killed_between_file_and_record_leaves_nothing_known(
    slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(slot)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("datasets.fetch.slot.write_atomic", killed)
    slot.part.write_bytes(b"other")
    with pytest.raises(KeyboardInterrupt):
        slot.publish(slot.part, ".mp4", "w")
    assert slot.kept() is None


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"file": "x", "bytes": 1}', '{"file": 3}'])
def test_a_record_that_makes_no_sense_counts_for_nothing(slot: Slot, record: str) -> None:
    published(slot)
    slot.record.write_text(record)
    assert slot.kept() is None


def test_a_record_without_its_file_counts_for_nothing(slot: Slot) -> None:
    published(slot).unlink()
    assert slot.kept() is None
    slot.discard()
    assert list(slot.folder.iterdir()) == []


def test_one_at_a_time(slot: Slot) -> None:
    time = FakeClock()
    other = Slot(slot.folder, slot.name)
    with slot.held(Deadline(5.0, time.clock)):
        with pytest.raises(SourceError) as caught, other.held(Deadline(5.0, time.clock)):
            pass
        assert caught.value.reason is Reason.TIMED_OUT
        with Slot(slot.folder, "another").held(Deadline(5.0, time.clock)):
            pass
    with other.held(Deadline(5.0, time.clock)):
        pass


def test_whoever_waited_for_a_lock_that_was_removed_takes_a_new_one(slot: Slot) -> None:
    """The one who held it removes its file; a third could hold a new one already."""
    time = FakeClock()
    waiting = Slot(slot.folder, slot.name)
    held = slot.held(Deadline(5.0, time.clock))
    held.__enter__()
    opened: list[int] = []
    honest = os.open

    def slow(*arguments: object, **more: object) -> int:
        handle = honest(*arguments, **more)  # type: ignore[arg-type]
        if not opened:
            opened.append(handle)
            slot.leave()
            held.__exit__(None, None, None)
        return handle

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", slow)
        with waiting.held(Deadline(5.0, time.clock)):
            lock = slot.folder / f"{slot.name}.lock"
            assert lock.exists()
            with pytest.raises(SourceError), slot.held(Deadline(1.0, time.clock)):
                pass


def test_a_lent_file_is_not_written_down(slot: Slot) -> None:
    slot.folder.mkdir()
    slot.part.write_bytes(b"clip")
    lent = slot.lend(slot.part, ".mp4", "crc")
    assert (lent.path.read_bytes(), lent.version) == (b"clip", "crc")
    assert slot.kept() is None
    slot.discard(".mp4")
    assert list(slot.folder.iterdir()) == []


def test_a_partial_folder_is_removed_as_well(slot: Slot) -> None:
    slot.part.mkdir(parents=True)
    (slot.part / "video.f1.mp4").write_bytes(b"1")
    assert slot.part_bytes() == 0
    slot.forget_part()
    assert list(slot.folder.iterdir()) == []


def test_what_is_known_of_a_partial_file(slot: Slot) -> None:
    assert slot.part_state() == {}
    slot.set_part_state(version='"1"', total=None)
    assert slot.part_state() == {"version": '"1"', "total": None}
    assert json.loads(slot.state.read_text())


def test_room_is_asked_for_first(slot: Slot) -> None:
    slot.folder.mkdir()
    slot.need(1, 0)
    with pytest.raises(OSError, match="are left") as caught:
        slot.need(1 << 60, 5)
    assert caught.value.errno == errno.ENOSPC
