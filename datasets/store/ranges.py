"""Files that are somewhere else and are read by ranges: what `io` wants of them besides reading."""

import errno
import io


class RangedFile(io.RawIOBase):
    """A read-only file with a position; who inherits reads `_size` bytes from `_position` on."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "a position before the start of the file")
        if base + offset != self._position:
            self._jumps()
        self._position = base + offset
        return self._position

    def _jumps(self) -> None:
        """The next read begins elsewhere than where the last one ended."""
