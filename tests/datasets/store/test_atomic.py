"""Files that are whole or not there, whatever is killed."""

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.store.atomic import (
    TEMPORARY,
    content_digest,
    link_atomic,
    move_atomic,
    replacing,
    sweep,
    write_atomic,
)

ROOT = Path(__file__).resolve().parents[3]
WRITER = """
import sys
from pathlib import Path
from datasets.store.atomic import replacing
print("ready", flush=True)
while True:
    for letter in b"ab":
        with replacing(Path(sys.argv[1])) as file:
            for turn in range(64):
                file.write(bytes([letter]) * 4096)
"""
STOPPED = """
import sys
from pathlib import Path
from datasets.store.atomic import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
"""


def start(script: str, path: Path) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline()
    return process


def end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_a_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "old")

    def fail() -> None:
        with replacing(tmp_path / "a") as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_killed_writers_leave_a_whole_file_and_what_a_sweep_removes(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    chance = random.Random(5)
    left = 0
    for _ in range(12):
        process = start(WRITER, path)
        while not path.exists():
            pass
        for _ in range(chance.randrange(40)):
            content = path.read_bytes()
            assert content in (b"a" * (64 * 4096), b"b" * (64 * 4096))
        process.send_signal(signal.SIGKILL)
        end(process)
        left = max(left, len(list(path.parent.glob(".*.tmp"))))
        assert path.read_bytes() in (b"a" * (64 * 4096), b"b" * (64 * 4096))
    assert left
    assert len(sweep(tmp_path)) >= left
    assert os.listdir(path.parent) == ["file"]


def test_a_sweep_spares_writers_at_work_and_foreign_files(tmp_path: Path) -> None:
    for name in (".hidden.tmp", "a.12345678.tmp", ".train-000000.tar.tmp"):
        (tmp_path / name).write_text("mine")
    process = start(STOPPED, tmp_path / "file")
    assert sweep(tmp_path) == []
    assert process.stdin
    process.stdin.close()
    process.wait()
    end(process)
    assert (tmp_path / "file").read_text() == "half"
    killed = start(STOPPED, tmp_path / "other")
    killed.kill()
    end(killed)
    (removed,) = sweep(tmp_path)
    assert TEMPORARY.fullmatch(removed.name)
    assert len(os.listdir(tmp_path)) == 4


def test_without_locks_files_are_written_and_none_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unknown)
    write_atomic(tmp_path / "a", "new")
    (tmp_path / ".b.0123abcd.tmp").write_text("of a writer at work, for all that is known")
    assert sweep(tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == [".b.0123abcd.tmp", "a"]


def test_moving_replaces_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    write_atomic(tmp_path / "x" / "old", "old")
    inode = (tmp_path / "new").stat().st_ino
    move_atomic(tmp_path / "new", tmp_path / "x" / "old")
    assert (tmp_path / "x" / "old").read_text() == "new"
    assert (tmp_path / "x" / "old").stat().st_ino == inode
    assert os.listdir(tmp_path) == ["x"]


def test_moving_between_two_names_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    move_atomic(tmp_path / "a", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "content"
    os.link(tmp_path / "a", tmp_path / "b")
    move_atomic(tmp_path / "b", tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_moving_to_another_file_system(tmp_path: Path) -> None:
    target = Path("/dev/shm") / f"test-atomic-{os.getpid()}"
    if target.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one file system")
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    digest = content_digest(tmp_path / "a")
    try:
        move_atomic(tmp_path / "a", target / "b")
        assert content_digest(target / "b") == digest
        assert os.listdir(target) == ["b"]
        assert os.listdir(tmp_path) == []
    finally:
        for path in target.iterdir():
            path.unlink()
        target.rmdir()


def test_a_link_replaces_and_may_be_made_again(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "one")
    write_atomic(tmp_path / "b", "two")
    for _ in range(2):
        link_atomic(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    with pytest.raises(FileNotFoundError):
        link_atomic(tmp_path / "absent", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "one"


def test_a_copy_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refused)
    write_atomic(tmp_path / "a", "one")
    link_atomic(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "one"
    assert not (tmp_path / "b").samefile(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
