"""Errors of the user become one sentence, whatever they are wrapped in; defects do not."""

import errno
import os
from pathlib import Path

import pytest

from datasets.errors import UserError
from models.files.errors import ModelFileError, is_disk_full
from tasks.runtime.failures import causes, describe, sentence_for


class Wrapper(Exception):
    """As Ray does it: the worker's error is an attribute."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("worker failed\nwith many lines")
        self.cause = cause


def raised_from(outer: Exception, inner: BaseException) -> Exception:
    try:
        raise outer from inner
    except Exception as error:
        return error


@pytest.mark.parametrize("kind", [UserError, ModelFileError])
def test_the_users_errors_are_found_in_every_wrapping(kind: type[Exception]) -> None:
    error = kind("no folder 'x':\n give another one")
    sentence = "no folder 'x': give another one"
    assert sentence_for(error) == sentence
    assert sentence_for(Wrapper(error)) == sentence
    assert sentence_for(raised_from(RuntimeError("flow failed"), Wrapper(error))) == sentence
    assert sentence_for(ExceptionGroup("several", [ValueError("x"), error])) == sentence


def test_a_full_disk_is_named_with_its_file() -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/out.mp4")
    assert is_disk_full(error)
    text = sentence_for(raised_from(RuntimeError("encoder"), error))
    assert text is not None
    assert "disk is full" in text
    assert "/data/out.mp4" in text


@pytest.mark.parametrize(
    "error",
    [
        OSError("106116 requested and 76768 written"),
        RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0: file write"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
    ],
)
def test_a_full_disk_is_known_without_the_systems_number(error: Exception) -> None:
    assert sentence_for(error) == "the disk is full: free some space and run the same command again"


def test_a_full_disk_is_really_full() -> None:
    with pytest.raises(OSError, match="No space") as seen, open("/dev/full", "wb") as file:
        file.write(bytes(1 << 16))
    assert is_disk_full(seen.value)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path))
    assert sentence_for(error) == f"{tmp_path} cannot be used: permission denied"


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), FileNotFoundError("x")])
def test_defects_have_no_sentence(error: Exception) -> None:
    assert sentence_for(error) is None


def test_suppressed_contexts_and_circles_end() -> None:
    first, second = ValueError("a"), UserError("b")
    first.__cause__, second.__cause__ = second, first
    assert sentence_for(first) == "b"
    hidden = ValueError("c")
    hidden.__context__, hidden.__suppress_context__ = UserError("d"), True
    assert [str(each) for each in causes(hidden)] == ["c"]


def test_a_defect_is_described_with_its_place() -> None:
    try:
        [][1]
    except IndexError as error:
        text = describe(error)
    assert text.startswith("IndexError: list index out of range (test_failures.py:")
    assert describe(ValueError()) == "ValueError: ValueError"
