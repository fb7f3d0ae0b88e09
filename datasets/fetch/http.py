"""Fetch one file over HTTP, one connection at a time, going on where the last one stopped."""

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from datasets.errors import Reason, SourceError
from datasets.fetch.policy import (
    DISK_FULL,
    Deadline,
    DiskError,
    DownloadSettings,
    PassingError,
    Throttle,
    http_problem,
)
from datasets.fetch.slot import Slot
from datasets.sources.addresses import open_address
from datasets.sources.locations import AGENT, content_version

CHUNK = 1 << 18
Progress = Callable[[int, int | None], None]
"""Called with bytes so far and bytes in all (None if not known)."""


def fetch_http(
    url: str,
    slot: Slot,
    settings: DownloadSettings,
    deadline: Deadline,
    throttle: Throttle,
    *,
    checked: bool = False,
    secrets: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> str:
    """Fetch the rest of `url` into `slot.part`; returns the server's name for this content.

    A partial file is continued only if the server says, by its ETag or time of change,
    that it is still the same file; otherwise it is fetched from scratch.

    Args:
        url: http or https.
        slot: the place of the file.
        settings: how patient to be.
        deadline: deadline of all attempts.
        throttle: limits the rate.
        checked: whether the complete file is compared with a published digest afterwards. Then a
            partial file of unknown version is continued as well.
        secrets: headers for this server only, not for those it redirects to.
        progress: called with the bytes so far.

    Raises:
        PassingError: another attempt may help; what has been fetched is kept.
        DiskError: the partial file cannot be written.
        SourceError: no attempt will help.
        OSError: the disk is full.
    """
    have, known = slot.part_bytes(), slot.part_state()
    if have and have == known.get("total"):
        return str(known.get("version", ""))
    if have and not known.get("version") and not checked:
        # Nothing would show whether the rest belongs to the same file.
        slot.forget_part()
        have = 0
    # Bytes compressed in transit could be neither continued nor checked as the file's.
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if known.get("version"):
            headers["If-Range"] = known["version"]
    try:
        request = urllib.request.Request(url, headers=headers)
        for name, value in (secrets or {}).items():
            request.add_unredirected_header(name, value)
        timeout = max(min(settings.timeout_s, deadline.left_s), 0.001)
        with open_address(request, timeout, settings.addresses) as answer:
            return _receive(answer, have, slot, settings, deadline, throttle, progress)
    except urllib.error.HTTPError as problem:
        with problem:
            if problem.code == 416:
                slot.forget_part()
                raise PassingError("the file has become shorter since it was begun") from problem
            wait = problem.headers.get("Retry-After")
            raise http_problem(problem.code, wait, problem.reason) from problem
    # Also of a redirect; urllib has several errors for what is not an address.
    except (http.client.InvalidURL, ValueError) as problem:
        raise SourceError(Reason.DOWNLOAD_FAILED, f"not an address: {problem}") from problem
    except (http.client.HTTPException, OSError) as problem:
        cause = getattr(problem, "reason", problem)
        if getattr(cause, "errno", None) in DISK_FULL:
            raise
        if isinstance(cause, ssl.SSLCertVerificationError):
            text = f"the server's certificate is not valid: {cause.verify_message}"
            raise SourceError(Reason.DOWNLOAD_FAILED, text) from problem
        text = str(cause) or type(cause).__name__
        raise PassingError(text, progress=slot.part_bytes() > have) from problem


def _receive(
    answer: Any,
    have: int,
    slot: Slot,
    settings: DownloadSettings,
    deadline: Deadline,
    throttle: Throttle,
    progress: Progress | None,
) -> str:
    headers = answer.headers
    if fault := _no_file(answer, have):
        raise SourceError(Reason.DOWNLOAD_FAILED, fault)
    version = content_version(headers)
    total = _total(headers, answer.status)
    known = slot.part_state()
    if have and answer.status == 206:
        same = known.get("version") in (version, "", None)
        same = same and known.get("total") in (total, None)
        if not same or _begin(headers) != have:
            slot.forget_part()
            raise PassingError("the file has changed since it was begun")
    start = have if answer.status == 206 else 0
    settings.check_size(total or 0)
    slot.need((total or 0) - start, settings.keep_free_bytes)
    count = start
    with _disk(slot):
        slot.set_part_state(version=version, total=total)
        file: Any = slot.part.open("ab" if start else "wb")
    with file:
        while chunk := answer.read1(CHUNK):
            with _disk(slot):
                file.write(chunk)
                file.flush()
            count += len(chunk)
            settings.check_size(count)
            if progress:
                progress(count, total)
            throttle.took(len(chunk))
            deadline.check()
    if total is not None and count < total:
        text = f"the connection ended after {count:,} of {total:,} bytes"
        raise PassingError(text, progress=count > have)
    return version


@contextmanager
def _disk(slot: Slot) -> Iterator[None]:
    """Tell faults of this machine's disk from those of the connection."""
    try:
        yield
    except OSError as problem:
        if problem.errno in DISK_FULL:
            raise
        text = f"{slot.part} could not be written ({problem.strerror or problem})"
        raise DiskError(Reason.DOWNLOAD_FAILED, text) from problem


def _no_file(answer: Any, have: int) -> str:
    """Why a successful HTTP answer does not have the file's bytes; empty if it does."""
    headers = answer.headers
    if answer.status not in (200, 206):
        return f"HTTP {answer.status} and no file came"
    if "text/html" in (headers.get("Content-Type") or ""):
        return "a web page came instead of a file"
    encoding = (headers.get("Content-Encoding") or "identity").strip()
    if encoding.lower() != "identity":
        return f"it came with Content-Encoding {encoding!r}, although asked for as it is"
    length = headers.get("Content-Length")
    if length is not None and not re.fullmatch(r"\s*[0-9]{1,18}\s*", length):
        return f"Content-Length {length!r} came where a number of bytes was expected"
    if answer.status == 206 and not have and _begin(headers) != 0:
        came = headers.get("Content-Range")
        return f"asked for all bytes, it answered with Content-Range {came!r}"
    return ""


def _total(headers: Any, status: int) -> int | None:
    """Size of the whole file, if the answer gives it."""
    if status == 206:
        found = re.fullmatch(r"bytes \d+-(\d+)/(\d+|\*)", headers.get("Content-Range") or "")
        if not found:
            return None
        return int(found[1]) + 1 if found[2] == "*" else int(found[2])
    length = headers.get("Content-Length")
    return int(length) if length else None


def _begin(headers: Any) -> int | None:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range") or "")
    return int(found[1]) if found else None
