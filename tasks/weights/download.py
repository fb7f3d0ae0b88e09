"""One file over HTTP: resumed, bounded, and in its place only when it is whole."""

import errno
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.files.errors import ModelFileError
from tasks.weights.addresses import checked_address

CHUNK = 1 << 20
Progress = Callable[[int, int | None], None]
"""Called with bytes so far and bytes in all (None when not known)."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18}|\*)")
_BY_HAND = "fetch the file by hand or set WEIGHTS_MIRROR"


def download(
    url: str,
    part: Path,
    *,
    attempts: int = 5,
    backoff_s: float = 2.0,
    timeout_s: float = 30.0,
    progress: Progress | None = None,
) -> None:
    """Bring all bytes of `url` into `part`, going on where an earlier try stopped.

    Only what may pass is tried again: a network that breaks off, a server that is overloaded.

    Args:
        url: http, https or file. A file of this machine is copied from its beginning.
        part: grows in place and stays there when this fails, so that the next call resumes.
        attempts: connections that may break before it gives up; one that brought new bytes
            does not count.
        backoff_s: pause after the first failure, doubled each time.
        timeout_s: of each network operation.

    Raises:
        ModelFileError: the address cannot be fetched from, the server refuses, answers with
            something else than the file, or keeps breaking off; `part` cannot be written.
        OSError: the disk is full.
    """
    url = checked_address(url)
    with _disk(part, "written"):
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if url.startswith("file:"):
        _copy(url, part, progress)
        return
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, timeout_s, progress)
            return
        except urllib.error.HTTPError as problem:
            if problem.code == 416 and before:
                # The rest that was asked for does not exist: what is there is another file's.
                with _disk(part, "removed"):
                    part.unlink()
            elif problem.code < 500 and problem.code != 429:
                raise ModelFileError(
                    f"{url} was refused with HTTP {problem.code}: {_BY_HAND}"
                ) from problem
            reason: Exception = problem
        except ModelFileError:
            raise
        # Only a redirect is left to be malformed.
        except (http.client.InvalidURL, ValueError) as problem:
            raise ModelFileError(
                f"{url} leads to a malformed address ({problem}): {_BY_HAND}"
            ) from problem
        except (urllib.error.URLError, http.client.HTTPException, OSError) as problem:
            if isinstance(problem, OSError) and problem.errno == errno.ENOSPC:
                raise
            reason = problem
        grown = part.exists() and part.stat().st_size > before
        failures = 0 if grown else failures + 1
        if failures >= attempts:
            raise ModelFileError(
                f"{url} could not be fetched after {attempts} tries ({reason}): check the "
                "network, or set WEIGHTS_MIRROR to a copy"
            )
        time.sleep(backoff_s * 2 ** max(0, failures - 1))


@contextmanager
def _disk(path: Path, done: str) -> Iterator[None]:
    """What this machine's disk refuses ends in a sentence: no network cures it, nor a retry."""
    try:
        yield
    except OSError as problem:
        if problem.errno == errno.ENOSPC:
            raise
        raise ModelFileError(
            f"{path} could not be {done} ({problem.strerror or problem}): see to its permissions "
            "and to what lies in its place, or give another folder"
        ) from problem


def _copy(url: str, part: Path, progress: Progress | None) -> None:
    """From a folder of this machine."""
    source = Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
    if not source.is_file():
        found = "is no file" if source.exists() else "is not there"
        if not source.parent.is_dir():
            found += f", and {source.parent} is no folder"
        raise ModelFileError(
            f"{source} {found}: put the file there, or set WEIGHTS_MIRROR to a folder or an "
            "address (http://...) that has it"
        )
    with _disk(source, "read"):
        original = source.open("rb")
        total = source.stat().st_size
    have = 0
    with original, _written(part, "wb") as write:
        while True:
            with _disk(source, "read"):
                chunk = original.read(CHUNK)
            if not chunk:
                return
            write(chunk)
            have += len(chunk)
            if progress:
                progress(have, total)


@contextmanager
def _written(part: Path, mode: str) -> Iterator[Callable[[bytes], None]]:
    """How to write to `part`, which is on the disk at the end."""
    with _disk(part, "written"):
        file: Any = part.open(mode)

    def write(chunk: bytes) -> None:
        with _disk(part, "written"):
            file.write(chunk)
            file.flush()

    with file:
        yield write
        with _disk(part, "written"):
            os.fsync(file.fileno())


def _transfer(url: str, part: Path, timeout_s: float, progress: Progress | None) -> None:
    """One connection. Raises OSError or HTTPException when it ends before the file does."""
    have = part.stat().st_size if part.exists() else 0
    # Bytes that were compressed on the way would be neither resumed nor checked as the file's.
    headers = {"User-Agent": "latentsync-flows", "Accept-Encoding": "identity"}
    stamp = part.with_name(part.name + ".etag")
    if have:
        headers["Range"] = f"bytes={have}-"
        with _disk(stamp, "read"):
            tag = stamp.read_text(encoding="latin-1") if stamp.exists() else ""
        if tag:
            headers["If-Range"] = tag
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        _refuse_what_is_no_file(url, answer)
        resumed = answer.status == 206
        start, total = _content_range(answer) if resumed else (0, None)
        if resumed and start != have:
            sent = answer.headers.get("Content-Range")
            found = f"asked for bytes from {have} on, it answered with Content-Range {sent!r}"
            if not have:
                raise ModelFileError(f"{url} sends something else: {found}; {_BY_HAND}")
            with _disk(part, "removed"):
                part.unlink()
            raise http.client.HTTPException(found)
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        if total is None and length is not None:
            total = have + int(length)
        with _disk(stamp, "written"):
            stamp.write_text(answer.headers.get("ETag") or "", encoding="latin-1", errors="ignore")
        with _written(part, "ab" if resumed else "wb") as write:
            while chunk := answer.read(CHUNK):
                write(chunk)
                have += len(chunk)
                if progress:
                    progress(have, total)
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)
    with _disk(stamp, "removed"):
        stamp.unlink(missing_ok=True)


def _refuse_what_is_no_file(url: str, answer: Any) -> None:
    """Answers that are no error to HTTP, but are not the bytes of the file."""
    if answer.status not in (200, 206):
        raise ModelFileError(f"{url} answered with HTTP {answer.status} and no file: {_BY_HAND}")
    if "text/html" in (answer.headers.get("Content-Type") or ""):
        raise ModelFileError(f"{url} answered with a web page instead of a file: {_BY_HAND}")
    encoding = (answer.headers.get("Content-Encoding") or "identity").strip()
    if encoding.lower() != "identity":
        raise ModelFileError(
            f"{url} answered with Content-Encoding {encoding!r}, although the file was asked for "
            f"as it is: {_BY_HAND}"
        )
    length = answer.headers.get("Content-Length")
    if length is not None and not re.fullmatch(r"\s*[0-9]{1,18}\s*", length):
        raise ModelFileError(
            f"{url} answered with Content-Length {length!r} where a number of bytes was expected: "
            f"{_BY_HAND}"
        )


def _content_range(answer: Any) -> tuple[int | None, int | None]:
    """Where the bytes of an answer begin, and how many the whole file has; None: not said."""
    match = _CONTENT_RANGE.match(answer.headers.get("Content-Range") or "")
    if match is None:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def free_bytes(folder: Path) -> int:
    """Space left where `folder` is, or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
