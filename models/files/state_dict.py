"""Reading other people's weight files safely: pickles only with `weights_only`.

Every problem ends in one `ModelFileError` sentence: which file, what was found, what was
expected.
"""

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.files.errors import ModelFileError

_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    AttributeError,
    IndexError,
    TypeError,
    AssertionError,
    UnicodeDecodeError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
)
"""What torch's readers raise, depending on where a file is damaged."""
_PICKLE = b"\x80"
"""First byte of a pickle of any current protocol."""
MOST_NAMES = 3
"""Names of what a file holds besides tensors that a message shows."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training scripts put the weights."""
WHOLE_NUMBERS = ("num_batches_tracked", "position_ids")
"""Suffixes of the names of entries that are not weights."""


def read_checkpoint(path: Path, stand_ins: Sequence[Any] = ()) -> Any:
    """Read a .pt, .pth, .pkl, .model or .safetensors file, on the CPU.

    Nothing in the file is executed. Large files are mapped, not read.

    Args:
        path: the file.
        stand_ins: what may be in it besides tensors and plain values, as
            `torch.serialization.safe_globals` takes it: harmless classes and functions, or pairs of
            one of ours and the name for which it stands.

    Raises:
        ModelFileError: it is missing, truncated, not a weight file, or a pickle of more than
            tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"model file {path} is not there: fetch it or give another path")
    if path.stat().st_size == 0:
        raise ModelFileError(f"model file {path} is empty: fetch it again")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(stand_ins)):
            # Whatever the pickle's protocol is, what cannot be read safely is refused.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except _UNREADABLE as problem:
        raise ModelFileError(f"model file {path} {_diagnosis(path, problem)}") from problem


def unsafe_names(path: Path) -> list[str]:
    """The classes and functions that a .pt file names and that a safe reader refuses, without
    loading it; empty for a file of another kind or a damaged one."""
    if not (path.is_file() and _is_zip(path)):
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except _UNREADABLE:
        return []


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except (zipfile.BadZipFile, struct.error):
        return False


def _diagnosis(path: Path, problem: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"version https://git-lfs"):
        return "is only a Git LFS pointer: fetch the file itself"
    if head.lstrip()[:1] == b"<":
        return "is a web page, not weights: the download was answered by an error page"
    if "TorchScript" in str(problem):
        return "is a TorchScript program where plain weights were expected"
    if isinstance(problem, pickle.UnpicklingError) and (head[:1] == _PICKLE or _is_zip(path)):
        names = unsafe_names(path)
        what = f" ({', '.join(names[:MOST_NAMES])})" if names else ""
        return f"holds more than tensors{what} and was refused, since a pickle can run any code"
    return f"is truncated or not a weight file ({type(problem).__name__}): fetch it again"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as problem:
        raise ModelFileError(
            f"model file {path} is truncated or not a safetensors file: fetch it again"
        ) from problem


def unwrap(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The weights inside a checkpoint, whatever key they are under.

    Raises:
        ModelFileError: it has no weights.
    """
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ModelFileError(
            f"model file {path} holds {type(content).__name__} where named weights were expected"
        )
    seen: set[int] = set()
    return {
        str(key).removeprefix("module."): _plain(str(key), value, path, seen)
        for key, value in content.items()
    }


def _plain(key: str, value: Any, path: Path, seen: set[int]) -> torch.Tensor:
    """An entry in a form that every reader accepts, with memory of its own."""
    if not isinstance(value, torch.Tensor):
        raise ModelFileError(
            f"model file {path} holds no weights under {key!r}: expected tensors by name"
        )
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        kind = "values elsewhere" if value.is_meta else f"a {value.layout} tensor"
        if value.is_quantized:
            kind = "quantized values"
        raise ModelFileError(
            f"model file {path} holds {kind} under {key!r}: expected dense floating-point weights"
        )
    counts = key.endswith(WHOLE_NUMBERS) or value.numel() <= 1
    if not (value.is_floating_point() or counts):
        raise ModelFileError(
            f"model file {path} holds {value.dtype} under {key!r}: expected floating-point "
            "weights, not quantized or complex ones"
        )
    memory = value.untyped_storage()
    if memory.nbytes() < value.numel() * value.element_size():
        raise ModelFileError(
            f"model file {path} claims {value.numel()} values for {key!r} and holds "
            f"{memory.nbytes() // value.element_size()}: it was made to deceive or is damaged"
        )
    shared = value.numel() > 0 and memory.data_ptr() in seen
    seen.add(memory.data_ptr())
    return value.clone() if shared else value


def check_finite(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Check that all weights are finite numbers.

    Raises:
        ModelFileError: one is infinite or not a number.
    """
    for key, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelFileError(
                f"model file {path} holds values that are not numbers under {key!r}: its training "
                "diverged or it is damaged, give another checkpoint"
            )


def check_archive(path: Path) -> None:
    """Check the parts of a .pt file against its checksums, which torch does not do.

    Raises:
        ModelFileError: a checksum is wrong.
    """
    if not _is_zip(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except _UNREADABLE as problem:
        raise ModelFileError(f"model file {path} {_diagnosis(path, problem)}") from problem
    if damaged:
        raise ModelFileError(
            f"model file {path} is damaged: the checksum of its part {damaged} is wrong; fetch it "
            "again"
        )


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """`read_checkpoint` and `unwrap` in one."""
    return unwrap(read_checkpoint(path), path)


def _with_counters(
    network: nn.Module, weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The weights, with BatchNorm's step counters added if they are missing."""
    counters = {
        key: torch.zeros((), dtype=torch.int64)
        for key in network.state_dict()
        if key.endswith("num_batches_tracked")
    }
    return {**counters, **weights}


def check_fit(network: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Check that `load_weights` would accept these weights, without reading a single value.

    Raises:
        ModelFileError: a key or shape differs.
    """
    own, weights = network.state_dict(), _with_counters(network, weights)
    missing = [key for key in own if key not in weights]
    extra = [key for key in weights if key not in own]
    wrong = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if not (missing or extra or wrong):
        return
    if wrong and not missing and not extra:
        key = wrong[0]
        found, expected = tuple(weights[key].shape), tuple(own[key].shape)
        what = f"{key} has shape {found} where {expected} was expected"
    else:
        first = (missing or extra)[0]
        what = f"{len(missing)} weights are missing and {len(extra)} are unknown, first {first}"
    raise ModelFileError(f"model file {path} does not fit {type(network).__name__}: {what}")


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load weights into a network (which may be on the meta device) without leftovers.

    Tensors become float32. Every key must match, except BatchNorm's step counters, which
    some files lack and inference does not need.

    Raises:
        ModelFileError: a key or shape differs, or a value is not a number.
    """
    check_fit(network, weights, path)
    own = network.state_dict()
    for key, value in weights.items():
        if own[key].is_floating_point() and not value.is_floating_point():
            raise ModelFileError(
                f"model file {path} holds {value.dtype} under {key!r}: expected floating-point "
                "weights"
            )
    check_finite(weights, path)
    network.load_state_dict(
        {
            key: value.float() if value.is_floating_point() else value
            for key, value in _with_counters(network, weights).items()
        },
        assign=True,
    )
