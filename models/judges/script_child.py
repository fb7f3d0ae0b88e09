"""The process in which a TorchScript file runs, started by `models.judges.script_process`.

A TorchScript file is a program: it can write files and more. Here it has no network, limits, a
folder of its own to work in, and none of the secrets in its parent's environment. Run by its path,
not as a module: nothing of this project is imported.
"""

import ctypes
import io
import json
import os
import platform
import resource
import struct
import sys
from typing import IO, Any

NEW_USER, NEW_NET = 0x10000000, 0x40000000
SOCKET = {"x86_64": 41, "aarch64": 198}
"""Numbers of the system call that opens a socket."""
MOST_FILE_BYTES = 64 << 20
"""Size of a file that it may write."""
MOST_FILES = 256
"""Files that may be open."""
OWN_NETWORK = "a network of its own, without connections"
NO_SOCKETS = "opening sockets is forbidden"
KEPT = 64
"""Results that wait for their gradients."""
MOST_MESSAGE_BYTES = 4 << 30

Message = tuple[dict[str, Any], bytes]
"""What is said, and an array as an npy file; empty for none."""


def send(file: IO[bytes], about: dict[str, Any], array: bytes = b"") -> None:
    """Write a message: two lengths, JSON, an array."""
    head = json.dumps(about).encode()
    file.write(struct.pack("<QQ", len(head), len(array)) + head)
    file.write(array)
    file.flush()


def receive(file: IO[bytes]) -> Message:
    """Read a message.

    Raises:
        EOFError: the other side has ended.
        ValueError: it is longer than any message.
    """
    lengths = struct.unpack("<QQ", _exactly(file, 16))
    if max(lengths) > MOST_MESSAGE_BYTES:
        raise ValueError(f"a message of {max(lengths)} bytes")
    return json.loads(_exactly(file, lengths[0])), _exactly(file, lengths[1])


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


def limit() -> None:
    """Limit what this process may write and open."""
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, MOST_FILE_BYTES),
        (resource.RLIMIT_NOFILE, MOST_FILES),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def leave_network() -> str:
    """Give up the network for good; a phrase that says how, empty if that was not possible.

    Only a process with a single thread can, so this comes before torch is imported.
    """
    if sys.platform != "linux":
        return ""
    libc = ctypes.CDLL(None, use_errno=True)
    for spaces in (NEW_NET, NEW_USER | NEW_NET):
        if libc.unshare(spaces) == 0:
            return OWN_NETWORK
    return NO_SOCKETS if _forbid_sockets(libc) else ""


def _forbid_sockets(libc: Any) -> bool:
    """Let the kernel refuse to open sockets (seccomp), which needs no rights."""
    number = SOCKET.get(platform.machine())
    if number is None:
        return False
    # Load the call's number; refuse it, and those of the 32-bit interface; allow the rest.
    steps = [(0x20, 0, 0, 0), (0x15, 1, 0, number), (0x35, 0, 1, 0x40000000)]
    steps += [(0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("<HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(steps), ctypes.addressof(buffer))
    no_new_rights = libc.prctl(38, 1, 0, 0, 0) == 0
    return no_new_rights and libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0


class Script:
    """A loaded TorchScript file.

    Args:
        path: the file.
        device: where it runs.
    """

    def __init__(self, path: str, device: str) -> None:
        import torch

        self.torch, self.device = torch, device
        self.network = torch.jit.load(path, map_location=device).eval()
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        self._waiting: dict[int, tuple[Any, Any]] = {}
        self._calls = 0

    def call(self, about: dict[str, Any], array: bytes) -> Message:
        """The result for an input; kept for `backward` if its gradient will be wanted."""
        x = self._tensor(array).requires_grad_(about["gradient"])
        with self.torch.set_grad_enabled(about["gradient"]):
            found = self.network(x, **about["options"])
        if not isinstance(found, self.torch.Tensor):
            return {"kind": type(found).__name__}, b""
        self._calls += 1
        if about["gradient"]:
            self._waiting[self._calls] = (x, found)
            self._waiting.pop(self._calls - KEPT, None)
        return {"call": self._calls}, self._array(found)

    def backward(self, about: dict[str, Any], array: bytes) -> Message:
        """The gradient of an earlier call's input, from that of its result."""
        x, found = self._waiting.pop(about["call"])
        found.backward(self._tensor(array))
        return {}, self._array(x.grad)

    def _tensor(self, array: bytes) -> Any:
        import numpy as np

        return self.torch.from_numpy(np.load(io.BytesIO(array), allow_pickle=False)).to(self.device)

    def _array(self, tensor: Any) -> bytes:
        import numpy as np

        file = io.BytesIO()
        np.save(file, tensor.detach().cpu().numpy(), allow_pickle=False)
        return file.getvalue()


def main(path: str, device: str, asked: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the parent ends."""
    limit()
    network = leave_network()
    if not network:
        import socket

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError("this process has no network")

        socket.socket = refuse  # type: ignore[assignment, misc]
    try:
        script = Script(path, device)
    except (RuntimeError, ValueError) as problem:
        send(answers, {"error": str(problem), "network": network})
        return
    send(answers, {"network": network})
    while True:
        try:
            about, array = receive(asked)
        except EOFError:
            return
        try:
            answer = (script.call if about["do"] == "call" else script.backward)(about, array)
        except Exception as problem:
            answer = {"error": f"{type(problem).__name__}: {problem}"}, b""
        send(answers, *answer)


if __name__ == "__main__":
    main(
        sys.argv[1],
        sys.argv[2],
        os.fdopen(int(sys.argv[3]), "rb"),
        os.fdopen(int(sys.argv[4]), "wb"),
    )
