"""Which errors are one sentence for the user, and which sentence.

Libraries wrap errors in their own, so the whole chain of causes is looked at.
"""

import errno
import logging
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from datasets.errors import StoreError, UserError
from datasets.redact import redact
from models.files.errors import ModelFileError, is_disk_full

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then everything it came from: causes, contexts, groups, Ray's wrappings."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        # Ray keeps the error that a worker raised as `cause`, some releases as an attribute
        # of an attribute; anything that is not an exception is left alone.
        wrapped = getattr(each, "cause", None)
        waiting.append(wrapped if isinstance(wrapped, BaseException) else None)
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(each.exceptions)
        waiting.append(each.__cause__)
        if not each.__suppress_context__:
            waiting.append(each.__context__)


def for_the_user(error: BaseException) -> bool:
    """Whether this error itself carries a sentence for the user."""
    return isinstance(error, UserError | ModelFileError | StoreError)


def sentence_for(error: BaseException) -> str | None:
    """The sentence that tells the user what to fix; None for a defect of the program."""
    chain = list(causes(error))
    for each in chain:
        if for_the_user(each):
            return one_line(each)
    for each in chain:
        if not isinstance(each, UserError) and is_disk_full(each):
            name = getattr(each, "filename", None)
            where = f" while writing {name}" if name else ""
            return f"the disk is full{where}: free some space and run the same command again"
    for each in chain:
        if isinstance(each, OSError) and each.errno in NOT_WRITABLE and each.filename:
            return f"{each.filename} cannot be used: {(each.strerror or 'not permitted').lower()}"
    return None


def one_line(error: BaseException) -> str:
    """The error's text on one line without secrets, or its type's name if it has no text."""
    return redact(" ".join(str(error).split())) or type(error).__name__


def redact_logs() -> None:
    """Keep secrets out of everything logged in this process from now on, including tracebacks:
    libraries quote the addresses they were given."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def made(*args: Any, **settings: Any) -> logging.LogRecord:
        record = make(*args, **settings)
        with suppress(Exception):
            text = record.getMessage()
            if redact(text) != text:
                record.msg, record.args = redact(text), ()
        if record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
            if redact(text) != text:
                record.exc_text, record.exc_info = redact(text), None
        return record

    made.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(made)


def describe(error: BaseException) -> str:
    """An unforeseen error in one line: type, text and the innermost line of code."""
    text = f"{type(error).__name__}: {one_line(error)}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return text
    return f"{text} ({Path(frames[-1].filename).name}:{frames[-1].lineno})"
