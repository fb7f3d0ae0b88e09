"""Check by its container whether a file of weights is complete; nothing in it is executed.

For files whose sha256 nobody published. What states the length of the file is read: the header
of safetensors, the directory at the end of a zip, the storages behind a legacy pickle of torch.
torch itself is not needed.
"""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

_MAX_HEADER = 100_000_000
"""Bytes of the longest header that the safetensors library accepts."""
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""What torch's format before zip begins with (torch.serialization.MAGIC_NUMBER)."""
_ITEM_SIZES = {
    "BoolStorage": 1,
    "ByteStorage": 1,
    "CharStorage": 1,
    "UntypedStorage": 1,
    "BFloat16Storage": 2,
    "HalfStorage": 2,
    "ShortStorage": 2,
    "FloatStorage": 4,
    "IntStorage": 4,
    "ComplexFloatStorage": 8,
    "DoubleStorage": 8,
    "LongStorage": 8,
    "ComplexDoubleStorage": 16,
}
"""Bytes per element of torch's storages."""
_DESCRIBES_A_MODEL = ("model_type", "architectures", "_class_name")
"""At least one is in every config.json of transformers and diffusers, none in error messages."""


def container_fault(path: Path, name: str | None = None) -> str | None:
    """Evidence that a file is incomplete or of the wrong kind; None if there is none.

    Args:
        path: the file.
        name: its final name, if that differs. The suffix gives the kind:
            .safetensors, .json (a model's config.json), .pt, .pth, .pkl and .model (torch).

    Returns:
        The rest of a sentence that begins with the file, such as "it is empty".

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
        if fault := _foreign(head):
            return fault
        file.seek(0)
        check = _CHECKS.get(Path(name or path.name).suffix)
        return check(file, path.stat().st_size) if check else None


def _foreign(head: bytes) -> str | None:
    """What servers send in place of a file of any kind."""
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is only a Git LFS pointer"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<":
        return "it is a web page"
    if head.startswith(b"\x1f\x8b"):
        return "it is compressed with gzip"
    return None


def _beginning(head: bytes) -> str:
    """The first characters of a text, for a message: they often say what went wrong."""
    text = head[:60].decode("latin-1")
    return f" but begins with {text!r}" if text.isprintable() else ""


def _safetensors_fault(file: IO[bytes], size: int) -> str | None:
    head = file.read(60)
    length = int.from_bytes(head[:8], "little")
    if not 2 <= length <= _MAX_HEADER or head[8:9] != b"{":
        return f"it is not a safetensors file{_beginning(head)}"
    if size < 8 + length:
        return f"it is cut short: it has {size} bytes, but its header alone takes {8 + length}"
    file.seek(8)
    try:
        header = json.loads(file.read(length))
        ends = [row["data_offsets"][1] for key, row in header.items() if key != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as problem:
        return f"its safetensors header is damaged ({problem})"
    if size != expected:
        return f"it has {size} bytes, but its header promises {expected}"
    return None


def _json_fault(file: IO[bytes], size: int) -> str | None:
    try:
        content = json.load(file)
    except (ValueError, RecursionError) as problem:
        return f"it is not JSON ({problem})"
    if not isinstance(content, dict) or not any(key in content for key in _DESCRIBES_A_MODEL):
        known = ", ".join(_DESCRIBES_A_MODEL)
        return f"it does not describe a model (none of {known}): {json.dumps(content)[:80]}"
    return None


def _torch_fault(file: IO[bytes], size: int) -> str | None:
    head = file.read(60)
    file.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return _zip_fault(file)
    if head.startswith(b"\x80"):
        return _pickle_fault(file, size)
    return f"it is not a torch file{_beginning(head)}"


def _zip_fault(file: IO[bytes]) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, struct.error, ValueError, OSError, NotImplementedError) as problem:
        return f"its zip archive is cut short or damaged ({problem})"
    # zipfile tolerates missing or additional bytes before the directory: offsets are then shifted.
    if min((entry.header_offset for entry in entries), default=0) != 0:
        return "its zip archive has missing or repeated bytes"
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        return "it is a zip archive, but not torch's (it has no data.pkl)"
    return None


class _Inert:
    """Replaces every object of a pickle: accepts any arguments, does nothing and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> "_Inert":
        return _Inert()

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...

    def add(self, item: Any) -> None: ...


class _StorageReader(pickle.Unpickler):
    """Reads which storages a pickle of torch refers to. No class or function is looked up."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin-1")
        self.item_sizes: dict[str, int | None] = {}
        """Bytes per element of each storage, None for an unknown kind."""

    def find_class(self, module: str, name: str) -> Any:
        return type(name, (_Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        # ("storage", type, key, device, number of elements, view): torch.serialization.
        if isinstance(pid, tuple) and len(pid) > 2 and pid[0] == "storage":
            kind = getattr(pid[1], "__name__", "")
            self.item_sizes[str(pid[2])] = _ITEM_SIZES.get(kind)
        return _Inert()


def _pickle_fault(file: IO[bytes], size: int) -> str | None:
    """Check torch's format before zip: magic, version, system, objects, keys; then the storages.

    A storage is its number of elements (int64) followed by the elements.
    """
    try:
        if _StorageReader(file).load() != _TORCH_MAGIC:
            return None
        for _ in range(2):
            _StorageReader(file).load()
        objects = _StorageReader(file)
        objects.load()
        for key in _StorageReader(file).load():
            item_size = objects.item_sizes.get(str(key))
            if item_size is None:
                return None
            (elements,) = struct.unpack("<q", file.read(8))
            file.seek(elements * item_size, 1)
    # Depending on where it is damaged, a pickle may raise any exception.
    except Exception as problem:
        return f"its pickle is cut short or damaged ({problem})"
    if (expected := file.tell()) != size:
        return f"it has {size} bytes, but its tensors promise {expected}"
    return None


_CHECKS: dict[str, Callable[[IO[bytes], int], str | None]] = {
    ".safetensors": _safetensors_fault,
    ".json": _json_fault,
    **dict.fromkeys((".pt", ".pth", ".pkl", ".model"), _torch_fault),
}
