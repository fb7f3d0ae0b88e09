"""Paths and addresses: local files, http(s), and what fsspec opens (s3, gs, memory)."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import fsspec

from datasets.errors import UserError

HTTP = ("http", "https")
EXTRA_LIBRARIES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
"""Libraries that fsspec needs for an address."""
VERSIONS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified", "created")
"""Names that file systems use for what changes with a file's content."""
AGENT = "latentsync-flows"


def object_version(info: dict[str, Any]) -> str:
    """A value that changes with an object's content, from fsspec's `info`; empty if there is
    none."""
    return next((str(info[name]) for name in VERSIONS if info.get(name)), "")


def scheme(location: str) -> str:
    """`http`, `s3` and so on; empty for a path."""
    return location.split("://", 1)[0].lower() if "://" in location else ""


def file_system(location: str) -> tuple[Any, str]:
    """fsspec's file system for a path or address, and the path within it.

    Raises:
        UserError: fsspec does not know the address, or a library for it is missing.
    """
    kind = scheme(location)
    try:
        return fsspec.core.url_to_fs(location)
    except ImportError as error:
        library = EXTRA_LIBRARIES.get(kind, str(error))
        raise UserError(
            f"{kind}:// needs a library that is not installed: pip install {library}"
        ) from error
    except ValueError as error:
        raise UserError(f"{shown(location)} cannot be opened: {error}") from error


def join(folder: str, name: str) -> str:
    """`name` below a folder or address."""
    return f"{folder.rstrip('/')}/{name}" if scheme(folder) else os.path.join(folder, name)


def read_text(location: str, *, missing: str = "") -> str:
    """A small UTF-8 text, with or without a byte order mark.

    Args:
        location: path or address.
        missing: text to append to the message if it is missing.

    Raises:
        UserError: it is missing, cannot be read, or is not UTF-8.
    """
    try:
        files, path = file_system(location)
        with files.open(path, "rb") as file:
            data: bytes = file.read()
    except FileNotFoundError as error:
        raise UserError(f"{shown(location)} is missing{missing}") from error
    except OSError as error:
        raise UserError(f"{shown(location)} cannot be read: {error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(location)} is not a text in UTF-8: {error.reason}") from error


def exists(location: str) -> bool:
    """Whether a file (not a folder) exists.

    Raises:
        UserError: the address cannot be queried.
    """
    try:
        files, path = file_system(location)
        return bool(files.isfile(path))
    except OSError as error:
        raise UserError(f"{shown(location)} cannot be read: {error}") from error


def shown(location: str) -> str:
    """An address without what may be secret: user, password, and the signature in a query."""
    if not scheme(location):
        return location
    parts = urlsplit(location)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def cache_name(location: str, salt: str = "") -> str:
    """A readable file name (without suffix) that no other address has."""
    parts = urlsplit(location)
    # Page addresses such as watch?v=ID differ only in their query.
    ident = next(iter(parse_qs(parts.query).get("v", [])), "")
    readable = ident or Path(parts.path).stem or parts.netloc
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", readable).strip("-")[:60]
    exact = hashlib.sha256(f"{salt}|{location}".encode("utf-8", "surrogateescape")).hexdigest()
    return f"{plain}-{exact[:16]}" if plain else exact[:16]


def content_version(headers: Any) -> str:
    """A value for If-Range: a strong ETag, otherwise the time of change (RFC 9110,
    sections 8.8 and 13.1.5); empty if the server gives neither."""
    tag = headers.get("ETag") or ""
    if tag and not tag.startswith("W/"):
        return str(tag)
    return str(headers.get("Last-Modified") or "")
