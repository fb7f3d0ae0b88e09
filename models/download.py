"""One file over HTTP: resumed, bounded, and in its place only when it is whole."""

import http.client
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from models.files import ModelFileError

CHUNK = 1 << 20
Progress = Callable[[int, int | None], None]
"""Called with bytes so far and bytes in all (None when not known)."""


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

    Args:
        url: http, https or file.
        part: grows in place and stays there when this fails, so that the next call resumes.
        attempts: connections that may break before it gives up; one that brought new bytes
            does not count.
        backoff_s: pause after the first failure, doubled each time.
        timeout_s: of each network operation.

    Raises:
        ModelFileError: the server refuses, answers with a web page, or keeps breaking off.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, timeout_s, progress)
            return
        except urllib.error.HTTPError as problem:
            if problem.code == 416 and before:
                # The rest that was asked for does not exist: what is there is another file's.
                part.unlink()
            elif problem.code < 500 and problem.code != 429:
                raise ModelFileError(
                    f"{url} was refused with HTTP {problem.code}: fetch the file by hand or "
                    "set WEIGHTS_MIRROR"
                ) from problem
            reason: Exception = problem
        except (urllib.error.URLError, http.client.HTTPException, OSError) as problem:
            if isinstance(problem, OSError) and problem.errno == 28:
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


def _transfer(url: str, part: Path, timeout_s: float, progress: Progress | None) -> None:
    """One connection. Raises OSError (IncompleteRead) when it ends before the file does."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "latentsync-flows"}
    stamp = part.with_name(part.name + ".etag")
    tag = stamp.read_text(encoding="utf-8") if have and stamp.exists() else ""
    if have and not url.startswith("file:"):
        headers["Range"] = f"bytes={have}-"
        if tag:
            headers["If-Range"] = tag
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        if "text/html" in (answer.headers.get("Content-Type") or ""):
            raise ModelFileError(f"{url} answered with a web page instead of a file")
        resumed = getattr(answer, "status", None) == 206
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        stamp.write_text(answer.headers.get("ETag") or "", encoding="utf-8")
        with part.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress:
                    progress(have, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)
    stamp.unlink(missing_ok=True)


def mirrored(url: str, file: str, mirror: str | None) -> str:
    """The address to fetch from: below the mirror (an address or a folder) when there is one."""
    if not mirror:
        return url
    if "://" in mirror:
        return f"{mirror.rstrip('/')}/{urllib.parse.quote(file)}"
    return (Path(mirror).expanduser().resolve() / file).as_uri()


def free_bytes(folder: Path) -> int:
    """Space left where `folder` is, or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
