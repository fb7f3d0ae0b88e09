"""Ask servers for the present versions of their files, without fetching them.

A refresh that runs every night should fetch what is new or changed and nothing else. A list
of addresses does not show that; a HEAD request (or a store's own `info`) does, in a few
milliseconds each: size, and the ETag or time of change that a fetch would be recorded with.
"""

import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from datasets.progress import Progress
from datasets.sources.addresses import AddressPolicy, open_address
from datasets.sources.items import How, SourceItem
from datasets.sources.locations import (
    AGENT,
    HTTP,
    content_version,
    file_system,
    object_version,
    scheme,
)

CONNECTIONS = 16
TIMEOUT_S = 10.0


def with_versions(
    items: list[SourceItem],
    progress: Progress | None = None,
    timeout_s: float = TIMEOUT_S,
    policy: AddressPolicy | None = None,
) -> list[SourceItem]:
    """The items; those at an address get the size and version that their servers report now.

    A server that does not answer, or not to this question, changes nothing: the fetch itself
    will report what is wrong. Items with a given sha256 are identified by that, and pages are not
    asked.
    """
    policy = policy or AddressPolicy()
    asked = [
        index
        for index, item in enumerate(items)
        if item.how is How.FILE and item.wanted and not item.sha256
    ]
    found = list(items)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        answers = pool.map(lambda index: _ask(items[index], timeout_s, policy), asked)
        for done, (index, item) in enumerate(zip(asked, answers, strict=True), start=1):
            found[index] = item
            if progress:
                progress(done, len(asked))
    return found


def _ask(item: SourceItem, timeout_s: float, policy: AddressPolicy) -> SourceItem:
    try:
        if scheme(item.location) in HTTP:
            version, size = _head(item.location, timeout_s, policy)
        else:
            files, path = file_system(item.location)
            info = files.info(path)
            version, size = object_version(info), int(info.get("size") or 0)
    except Exception:
        # Stores and servers fail in many ways, none of which matters here.
        return item
    return replace(item, version=version, expected_bytes=size)


def _head(url: str, timeout_s: float, policy: AddressPolicy) -> tuple[str, int]:
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers, method="HEAD")
    with open_address(request, timeout_s, policy) as answer:
        length = answer.headers.get("Content-Length") or "0"
        return content_version(answer.headers), int(length) if length.isdigit() else 0
