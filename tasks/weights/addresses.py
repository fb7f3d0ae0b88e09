"""Addresses to fetch from: which are accepted, how they are quoted, and how a mirror changes
them."""

import os
import re
import string
import urllib.parse
from pathlib import Path

from models.files.errors import ModelFileError

HUB = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
SCHEMES = ("http", "https", "file")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^/:\s]+):\d+(/|$)")


def checked_address(url: str) -> str:
    """A requestable address: characters that HTTP cannot carry are quoted.

    Args:
        url: http, https or file, absolute. Quoted parts stay as they are.

    Raises:
        ModelFileError: it is malformed, or has another scheme.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        # Reading the port is what checks it.
        _ = parts.port
    except ValueError as problem:
        raise ModelFileError(
            f"{url} is a malformed address ({problem}): write http://host/folder, or the path of "
            "a folder"
        ) from problem
    if parts.scheme not in SCHEMES:
        raise ModelFileError(
            f"{url} cannot be fetched: its scheme is {parts.scheme!r}, but expected is "
            f"{', '.join(SCHEMES)}, or the path of a folder"
        )
    if parts.scheme == "file" and host not in ("", "localhost"):
        raise ModelFileError(
            f"{url} names the machine {host!r}: write three slashes before a path on this "
            "machine, as in file:///folder"
        )
    if parts.scheme != "file" and not host:
        raise ModelFileError(f"{url} does not name a host: write {parts.scheme}://host/folder")
    path, query = (
        urllib.parse.quote(part, safe=string.punctuation, errors="surrogateescape")
        for part in (parts.path, parts.query)
    )
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def on_the_hub(url: str) -> tuple[str, dict[str, str] | None]:
    """The address of a file on the model hub, and the headers that identify the user.

    `HF_ENDPOINT` gives the hub's address; `HF_TOKEN` or `hf auth login` identifies the user.
    The library's own download is not used: a partial file is lost when it fails or is
    interrupted, and files of the table have several gigabytes.

    Returns:
        Address and headers; the given address and None if it is not on the hub.

    Raises:
        ModelFileError: HF_ENDPOINT is not an address to fetch from.
    """
    from huggingface_hub import get_token, hf_hub_url

    found = HUB.fullmatch(url)
    if not found:
        return url, None
    repository, revision, file = (urllib.parse.unquote(part) for part in found.groups())
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    try:
        checked_address(endpoint)
    except ModelFileError as problem:
        raise ModelFileError(f"HF_ENDPOINT does not work: {problem}") from problem
    token = get_token()
    secrets = {"Authorization": f"Bearer {token}"} if token else {}
    return hf_hub_url(repository, file, revision=revision, endpoint=endpoint), secrets


def mirrored(url: str, file: str, mirror: str | None) -> str:
    """The address to fetch from: below the mirror (an address or a folder) if there is one.

    Args:
        url: address of the file without a mirror.
        file: its path below the mirror.
        mirror: the value of WEIGHTS_MIRROR.

    Raises:
        ModelFileError: the mirror is not an address to fetch from.
    """
    if not mirror:
        return url
    if _ADDRESS.match(mirror):
        try:
            mirror = checked_address(mirror)
        except ModelFileError as problem:
            raise ModelFileError(f"WEIGHTS_MIRROR does not work: {problem}") from problem
        return f"{mirror.rstrip('/')}/{urllib.parse.quote(file)}"
    if _HOST_AND_PORT.match(mirror) and not Path(mirror).exists():
        raise ModelFileError(
            f"WEIGHTS_MIRROR does not work: {mirror} is neither a folder nor an address with a "
            f"scheme: write http://{mirror} or https://{mirror}"
        )
    return (Path(os.path.abspath(os.path.expanduser(mirror))) / file).as_uri()
