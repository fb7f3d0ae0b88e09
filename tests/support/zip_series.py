"""Small zip archives, whole or cut into parts as VoxCeleb2's are."""

import io
import zipfile
from collections.abc import Mapping


def make_zip(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def cut(archive: bytes, size: int) -> dict[str, bytes]:
    """Parts of `size` bytes by suffix: aa, ab and so on."""
    pieces = [archive[start : start + size] for start in range(0, len(archive), size)]
    return {f"{chr(97 + n // 26)}{chr(97 + n % 26)}": piece for n, piece in enumerate(pieces)}
