"""The storage of a dataset's files: a local folder or object storage, behind one protocol.

Names are relative paths with forward slashes below the store's URL. Every write is atomic,
and durable when the call returns. `open_store` makes the right store for a URL.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from datasets.errors import UserError
from datasets.store.local import LocalStore
from datasets.store.protocol import Store
from datasets.store.remote import open_remote
from datasets.store.web import WebStore

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def open_store(url: str | Path) -> Store:
    """The store at a local path or a `file://`, `s3://`, `gs://` or `memory://` URL; of an `http://`
    or `https://` address one that can only be read.

    Raises:
        UserError: the scheme is unknown, its driver is not installed, the path is a file, or
            the bucket is missing, cannot be reached or may not be read.
    """
    match = SCHEME.fullmatch(str(url)) if isinstance(url, str) else None
    if match is None or match[1].lower() == "file":
        folder = Path(unquote(match[2]) if match else os.path.expanduser(url))
        if match and not folder.is_absolute():
            raise UserError(f"{url} names a host: write file:///PATH with three slashes")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: choose a folder")
        return LocalStore(folder)

    if match[1].lower() in ("http", "https"):
        return WebStore(str(url))
    return open_remote(str(url))
