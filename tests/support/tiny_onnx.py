"""A face embedding in ONNX that is written by hand: the mean colour of the picture."""

from pathlib import Path


def _key(number: int, kind: int) -> bytes:
    return _size(number << 3 | kind)


def _size(count: int) -> bytes:
    found = b""
    while count > 127:
        found += bytes([count & 127 | 128])
        count >>= 7
    return found + bytes([count])


def _text(number: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return _key(number, 2) + _size(len(data)) + data


def _whole(number: int, value: int) -> bytes:
    return _key(number, 0) + _size(value)


def _shape(name: str, sides: tuple[int, ...]) -> bytes:
    """A ValueInfoProto of floats."""
    dims = b"".join(_text(1, _whole(1, side)) for side in sides)
    tensor = _whole(1, 1) + _text(2, dims)
    return _text(1, name) + _text(2, _text(1, tensor))


def _node(kind: str, before: str, after: str, attributes: bytes = b"") -> bytes:
    return _text(1, before) + _text(2, after) + _text(3, after) + _text(4, kind) + attributes


def write_embedding(path: Path, flat: bool = True) -> Path:
    """Write (1, 3, 112, 112) -> (1, 3), or (1, 3, 1, 1) where it is not `flat`."""
    axis = _text(5, _text(1, "axis") + _whole(3, 1) + _whole(20, 2))
    last = "colour" if flat else "mean"
    graph = _text(1, _node("GlobalAveragePool", "face", "mean"))
    graph += _text(1, _node("Flatten", "mean", "colour", axis)) if flat else b""
    graph += _text(2, "mean colour") + _text(11, _shape("face", (1, 3, 112, 112)))
    graph += _text(12, _shape(last, (1, 3) if flat else (1, 3, 1, 1)))
    opset = _text(1, "") + _whole(2, 11)
    path.write_bytes(_whole(1, 7) + _text(7, graph) + _text(8, opset))
    return path
