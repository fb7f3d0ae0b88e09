"""TorchScript files that are trusted, each run in a process of its own.

A TorchScript file is a program, so one runs only if its sha256 is known beforehand, and then
without network, with limits, in a folder of its own (`models.judges.script_child`). Tensors travel
over a pipe, as arrays and never as pickles: what comes back cannot run anything here.
"""

import hashlib
import io
import logging
import os
import select
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch

from models.files.errors import ModelFileError
from models.judges.script_child import Message, receive, send

log = logging.getLogger(__name__)

CALL_S = 600.0
"""Seconds that loading, or a call, may take."""
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "SYSTEMROOT")
"""Variables of the environment that the process sees; others may be secrets."""


@dataclass(frozen=True)
class NotTensor:
    """Stands for a result that is not a tensor."""

    kind: str
    """Name of its type."""


class ScriptProcess:
    """A TorchScript file in its own process, called like the network it holds.

    Args:
        path: the file.
        device: where it runs.
        trusted: sha256 of the files that may run.
        call_s: seconds that loading, or a call, may take.

    Raises:
        ModelFileError: the file is missing, is not trusted or is not TorchScript.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device | str,
        trusted: Collection[str],
        call_s: float = CALL_S,
    ) -> None:
        self.path, self.call_s = Path(path), call_s
        if not self.path.is_file():
            raise ModelFileError(f"model file {path} is not there: fetch it or give another path")
        folder = Path(tempfile.mkdtemp(prefix="latentsync-script-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        # The copy is what is checked and what runs: the file may change in between.
        copy = Path(shutil.copyfile(self.path, folder / "network.pt"))
        with copy.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest not in trusted:
            raise ModelFileError(
                f"model file {path} is a program (TorchScript), and its sha256 {digest} is not "
                "known: if you trust whoever made it, allow it with --trust or "
                "`python -m tasks.weights trust FILE`; otherwise give a file of the weights table"
            )
        self._start(copy, str(device))
        answer, _ = self._receive()
        if "error" in answer:
            raise ModelFileError(
                f"model file {path} is truncated or not a TorchScript file: fetch it again"
            )
        self.network = str(answer.get("network", ""))
        """How it was cut off from the network; empty if only Python's sockets are blocked."""
        if not self.network:
            log.warning("%s runs in a process that this system does not cut off", self.path)

    def _start(self, copy: Path, device: str) -> None:
        there, asks = os.pipe()
        answers, here = os.pipe()
        child = Path(__file__).with_name("script_child.py")
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own = {"HOME": str(copy.parent), "TMPDIR": str(copy.parent)}
        command = [sys.executable, "-I", "-W", "ignore", str(child), str(copy), device]
        try:
            self._process = subprocess.Popen(
                [*command, str(there), str(here)],
                cwd=copy.parent,
                env=environment | own,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(there, here),
            )
        finally:
            os.close(there)
            os.close(here)
        self._asks, self._answers = os.fdopen(asks, "wb"), os.fdopen(answers, "rb", 0)
        weakref.finalize(self, _end, self._process, self._asks, self._answers)

    def __call__(self, x: torch.Tensor, **options: bool) -> torch.Tensor:
        """The network's result, differentiable in `x`; a `NotTensor` where it gives none.

        Raises:
            RuntimeError: the network refuses the input.
            ModelFileError: its process ended or took too long.
        """
        return cast(torch.Tensor, _Call.apply(x, self, options))

    def ask(self, about: dict[str, Any], x: torch.Tensor) -> tuple[dict[str, Any], torch.Tensor]:
        """Send a tensor and get one back, on the same device."""
        array = x.detach().cpu()
        array = array.float() if array.dtype in (torch.bfloat16, torch.float16) else array
        file = io.BytesIO()
        np.save(file, array.numpy(), allow_pickle=False)
        try:
            send(self._asks, about, file.getvalue())
        except OSError as problem:
            raise self._ended() from problem
        answer, found = self._receive()
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        if not found:
            return answer, torch.empty(0)
        return answer, torch.from_numpy(np.load(io.BytesIO(found), allow_pickle=False)).to(x.device)

    def _receive(self) -> Message:
        try:
            return receive(cast(IO[bytes], _Patient(self._answers, self.call_s)))
        except (EOFError, ValueError) as problem:
            raise self._ended() from problem
        except TimeoutError as problem:
            self._process.kill()
            raise ModelFileError(
                f"model file {self.path} did not answer within {self.call_s:g} s and was ended: "
                "give another file"
            ) from problem

    def _ended(self) -> ModelFileError:
        self._process.kill()
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return ModelFileError(
            f"model file {self.path} ended its process ({how}): it did something that is not "
            "allowed there, such as writing a large file, or memory was short; give another file"
        )


class _Patient:
    """Reads from a pipe, but not for ever."""

    def __init__(self, file: IO[bytes], seconds: float) -> None:
        self.file, self.seconds = file, seconds

    def read(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            if not select.select([self.file], [], [], self.seconds)[0]:
                raise TimeoutError
            part = self.file.read(min(count, 1 << 20))
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


class _Call(torch.autograd.Function):
    """A call whose gradient is computed in the other process."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, script: ScriptProcess, options: dict[str, bool]) -> Any:
        about = {"do": "call", "options": options, "gradient": bool(ctx.needs_input_grad[0])}
        answer, found = script.ask(about, x)
        if "kind" in answer:
            return NotTensor(str(answer["kind"]))
        ctx.script, ctx.call, ctx.dtype = script, answer["call"], x.dtype
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        _, found = ctx.script.ask({"do": "backward", "call": ctx.call}, gradients[0])
        return found.to(ctx.dtype), None, None


def _end(process: "subprocess.Popen[bytes]", *pipes: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in pipes:
        try:
            pipe.close()
        except OSError:
            continue
