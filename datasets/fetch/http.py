"""One file over HTTP, one connection at a time, going on where the last one stopped."""

import http.client
import re
import ssl
import urllib.error
import urllib.request
from typing import Any

from datasets.errors import Reason, SourceError
from datasets.fetch.policy import (
    DISK_FULL,
    Deadline,
    DownloadSettings,
    PassingError,
    Throttle,
    http_problem,
)
from datasets.fetch.slot import Slot
from datasets.sources.locations import AGENT, content_version

CHUNK = 1 << 18


def fetch_http(
    url: str, slot: Slot, settings: DownloadSettings, deadline: Deadline, throttle: Throttle
) -> str:
    """Bring the rest of `url` into `slot.part`; returns what the server calls this content.

    A partial file is gone on with only when the server says, by its ETag or time of change,
    that it still is the same file; otherwise it is begun anew.

    Raises:
        PassingError: another attempt may help; what came so far is kept.
        SourceError: no attempt will.
        OSError: the disk is full.
    """
    have, known = slot.part_bytes(), slot.part_state()
    if have and have == known.get("total"):
        return str(known.get("version", ""))
    if have and not known.get("version"):
        # Nothing would tell whether the rest belongs to the same file.
        slot.forget_part()
        have = 0
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["version"]}
    try:
        request = urllib.request.Request(url, headers=headers)
        timeout = max(min(settings.timeout_s, deadline.left_s), 0.001)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return _receive(answer, have, slot, settings, deadline, throttle)
    except urllib.error.HTTPError as problem:
        with problem:
            if problem.code == 416:
                slot.forget_part()
                raise PassingError("the file has become shorter since it was begun") from problem
            wait = problem.headers.get("Retry-After")
            raise http_problem(problem.code, wait, problem.reason) from problem
    except http.client.InvalidURL as problem:
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
) -> str:
    headers = answer.headers
    if "text/html" in (headers.get("Content-Type") or ""):
        raise SourceError(Reason.DOWNLOAD_FAILED, "a web page came instead of a file")
    if headers.get("Content-Encoding", "identity") != "identity":
        raise PassingError(f"came packed as {headers['Content-Encoding']}, unasked")
    version = content_version(headers)
    total = _total(headers, answer.status)
    known = slot.part_state()
    if answer.status == 206:
        same = version == known.get("version") and total == known.get("total", total)
        if not same or _begin(headers) != have:
            slot.forget_part()
            raise PassingError("the file has changed since it was begun")
    start = have if answer.status == 206 else 0
    slot.need((total or 0) - start, settings.keep_free_bytes)
    slot.set_part_state(version=version, total=total)
    count = start
    with slot.part.open("ab" if start else "wb") as file:
        while chunk := answer.read1(CHUNK):
            file.write(chunk)
            count += len(chunk)
            throttle.took(len(chunk))
            deadline.check()
    if total is not None and count < total:
        text = f"the connection ended after {count:,} of {total:,} bytes"
        raise PassingError(text, progress=count > have)
    return version


def _total(headers: Any, status: int) -> int | None:
    """Size of the whole file, as far as the answer says."""
    if status == 206:
        found = re.fullmatch(r"bytes \d+-(\d+)/(\d+|\*)", headers.get("Content-Range") or "")
        if not found:
            return None
        return int(found[1]) + 1 if found[2] == "*" else int(found[2])
    length = headers.get("Content-Length")
    return int(length) if length and length.isdigit() else None


def _begin(headers: Any) -> int | None:
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range") or "")
    return int(found[1]) if found else None
