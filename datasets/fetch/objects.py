"""Fetch one object from s3, gs, or anything else that fsspec opens, going on where it stopped."""

from typing import Any

from datasets.errors import Reason, SourceError, UserError
from datasets.fetch.policy import DISK_FULL, Deadline, DownloadSettings, PassingError, Throttle
from datasets.fetch.slot import Slot
from datasets.sources.locations import file_system, object_version

CHUNK = 1 << 22


def fetch_object(
    address: str, slot: Slot, settings: DownloadSettings, deadline: Deadline, throttle: Throttle
) -> str:
    """Fetch the rest of an object into `slot.part`; returns its version.

    Raises:
        PassingError: another attempt may help; what has been fetched is kept.
        SourceError: the object does not exist or may not be read.
        UserError: a library for such addresses is missing.
        OSError: the disk is full.
    """
    files, path = file_system(address)
    have = slot.part_bytes()
    try:
        return _receive(files, path, slot, settings, deadline, throttle)
    except (PassingError, SourceError, UserError):
        raise
    except FileNotFoundError as problem:
        raise SourceError(Reason.UNAVAILABLE, "the object is not there") from problem
    except PermissionError as problem:
        raise SourceError(Reason.DOWNLOAD_FAILED, f"may not be read: {problem}") from problem
    except Exception as problem:
        # Each file system has its own errors for network failures.
        if getattr(problem, "errno", None) in DISK_FULL:
            raise
        text = str(problem) or type(problem).__name__
        raise PassingError(text, progress=slot.part_bytes() > have) from problem


def _receive(
    files: Any,
    path: str,
    slot: Slot,
    settings: DownloadSettings,
    deadline: Deadline,
    throttle: Throttle,
) -> str:
    info = _info(files, path)
    version, total = object_version(info), int(info["size"])
    settings.check_size(total)
    if not version or slot.part_state() != {"version": version, "total": total}:
        slot.forget_part()
    have = slot.part_bytes()
    slot.need(total - have, settings.keep_free_bytes)
    slot.set_part_state(version=version, total=total)
    count = have
    with slot.part.open("ab") as part, files.open(path, "rb") as file:
        file.seek(have)
        while chunk := file.read(CHUNK):
            part.write(chunk)
            count += len(chunk)
            throttle.took(len(chunk))
            deadline.check()
    if count != total:
        raise PassingError(f"{count:,} of {total:,} bytes came", progress=count > have)
    if object_version(_info(files, path)) != version:
        slot.forget_part()
        raise PassingError("the object has changed while it was fetched")
    return version


def _info(files: Any, path: str) -> dict[str, Any]:
    """What the store currently says about an object."""
    files.invalidate_cache()
    info: dict[str, Any] = files.info(path)
    if info.get("type") == "directory":
        raise SourceError(Reason.UNAVAILABLE, "the address is a folder")
    return info
