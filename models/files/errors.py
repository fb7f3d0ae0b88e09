"""The only error that reading a model file may raise, and how to recognise a full disk."""

import errno
import re

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_TEXT = re.compile(
    "No space left on device"
    "|Disk quota exceeded"
    "|database or disk is full"  # SQLite
    "|requested and [0-9]+ written"  # numpy
    "|PytorchStreamWriter failed writing file|unexpected pos [0-9]+ vs"  # torch
)


class ModelFileError(ValueError):
    """A model file is missing, truncated, hostile, or not of the expected kind.

    The text is one sentence for the user: which file, what was found, what was
    expected, what to do next.
    """


def is_disk_full(error: BaseException) -> bool:
    """Whether this error itself says that no space is left."""
    if getattr(error, "errno", None) in DISK_FULL:
        return True
    # Not every library preserves the system's error number.
    return not isinstance(error, ModelFileError) and bool(FULL_TEXT.search(str(error)))
