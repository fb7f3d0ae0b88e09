"""`python -m tasks.weights`: what there is, what is fetched, and one sentence when it is not."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets.fetch.policy import Clock
from tasks.weights import store
from tasks.weights.command import main
from tasks.weights.lock import LOCK_FILE
from tasks.weights.store import weights_folder
from tests.support.file_server import Files, file_server
from tests.support.raw_server import answer, raw_server

ROOT = Path(__file__).resolve().parents[3]
HEADER = b'{"a": {"dtype": "U8", "shape": [3000000], "data_offsets": [0, 3000000]}}'
BODY = len(HEADER).to_bytes(8, "little") + HEADER + bytes(3_000_000)
NAME = "sd-vae-ft-mse"
"""Of this one neither size nor sha256 is published."""
FILE = store.find(NAME).file


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WEIGHTS_OFFLINE", "HF_HUB_OFFLINE", "WEIGHTS_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "weights"))
    clock = Clock(sleep=lambda _: pytest.fail("tried again"))
    monkeypatch.setattr("tasks.weights.download.Clock", lambda: clock)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    with file_server() as files:
        files.content[FILE] = BODY
        monkeypatch.setenv("WEIGHTS_MIRROR", files.address)
        yield files


def test_list_shows_all_with_licence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path))
    assert weights_folder() == tmp_path
    assert main([]) == 0
    text = capsys.readouterr().out
    for row in store.WEIGHTS:
        assert row.name in text
        assert row.licence in text
    assert f"0 present, {len(store.WEIGHTS)} missing" in text
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "tiny.pt").write_bytes(b"no")
    assert main(["list"]) == 1
    assert "damaged" in capsys.readouterr().out


def test_fetch_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTS_OFFLINE", "1")
    assert main(["fetch", "whisper-tiny", "--folder", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "licence MIT" in captured.out
    assert "switched off" in captured.err


def test_fetch_and_list_by_name(mirror: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", NAME, NAME]) == 0
    assert len(mirror.requests) == 1
    assert capsys.readouterr().out.endswith(f"{NAME}: {weights_folder() / FILE}\n")
    assert main(["list", NAME]) == 0
    out = capsys.readouterr().out
    assert "1 present, 0 missing" in out
    assert "whisper-tiny" not in out


def test_names_are_checked_before_anything_comes(
    mirror: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    for action in ("fetch", "list"):
        assert main([action, NAME, "nope"]) == 2
        captured = capsys.readouterr()
        assert "no weights are called 'nope': choose one of" in captured.err
        assert not captured.out
    assert not mirror.requests


def test_ctrl_c_is_said_and_the_next_fetch_goes_on(mirror: Files) -> None:
    mirror.stall_after = [2_000_000]
    command = [sys.executable, "-m", "tasks.weights", "fetch", NAME]
    part = weights_folder() / f"{FILE}.part"
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (part.exists() and part.stat().st_size):
            threading.Event().wait(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert error == (
        "\ninterrupted: what was fetched so far is kept, and the next fetch goes on from there\n"
    )
    have = part.stat().st_size
    assert main(["fetch", NAME]) == 0
    assert mirror.requests == [(FILE, None), (FILE, f"bytes={have}-")]
    assert (weights_folder() / FILE).read_bytes() == BODY


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("http://[bad", "malformed address"),
        ("127.0.0.1:8765/ok", "write http://127.0.0.1:8765/ok"),
        ("s3://bucket", "its scheme is 's3'"),
        ("bogus://x", "its scheme is 'bogus'"),
        ("/no/such/folder", "is not a folder: put the file there"),
        ("file:///no/such/folder", "is not a folder: put the file there"),
    ],
)
def test_a_mirror_that_cannot_work_is_one_sentence_at_once(
    value: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEIGHTS_MIRROR", value)
    assert main(["fetch", NAME]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "network" not in error


def test_a_mirror_with_signs_that_http_cannot_carry(
    mirror: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.content[f"mod%C3%A8les/{FILE}"] = BODY
    monkeypatch.setenv("WEIGHTS_MIRROR", f"{mirror.address}/modèles")
    assert main(["fetch", NAME]) == 0


@pytest.mark.parametrize(
    "reply",
    [
        answer(BODY, "200 x", "Content-Length: abc", length=False),
        answer(b"", "302 x", "Location: http://[bad"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        answer(b"version https://git-lfs.github.com/spec/v1\n"),
    ],
)
def test_a_server_that_answers_nonsense_is_one_sentence(
    reply: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server(reply) as server:
        monkeypatch.setenv("WEIGHTS_MIRROR", server.address)
        assert main(["fetch", NAME]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (weights_folder() / LOCK_FILE).exists()


@pytest.mark.parametrize("text", ["[]", f'{{"{NAME}": []}}'])
def test_a_damaged_record_is_one_sentence(
    text: str, mirror: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    file = weights_folder() / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(BODY)
    (weights_folder() / LOCK_FILE).write_text(text)
    for action in ("fetch", "list"):
        assert main([action, NAME]) == 2
        assert "delete it if you trust" in capsys.readouterr().err


def test_a_folder_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    for action in ("fetch", "list"):
        assert main([action, NAME, "--folder", str(tmp_path / "file")]) == 2
        assert "file is not a folder; set --folder or" in capsys.readouterr().err
