"""A TorchScript file runs only when it is trusted, and then where it can do little."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from datasets.store.atomic import content_digest
from models.files.errors import ModelFileError
from models.judges import script_child, script_process
from models.judges.script_process import ScriptProcess
from tests.support.file_server import file_server

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.timeout(240),
]


class Hostile(nn.Module):
    """Writes a file to a place of its choice, and one beside itself."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.place)
        torch.save(x, "beside.pt")
        return x


class Square(nn.Module):
    """Something with a gradient, and a result that is not a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: torch.Tensor, deep: bool = False) -> torch.Tensor:
        assert x.shape[-1] == 3
        y = x * x * self.weight
        return y * x if deep else y


class Endless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while bool(x.sum() > -1):
            x = x + 1
        return x


def script(module: nn.Module, folder: Path) -> Path:
    path = folder / "network.pt"
    torch.jit.script(module).save(str(path))
    return path


def run(path: Path) -> ScriptProcess:
    return ScriptProcess(path, "cpu", {content_digest(path)})


def test_a_hostile_file_writes_and_runs_nothing_without_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "written"
    path = script(Hostile(str(written)), tmp_path)
    started: list[object] = []
    with monkeypatch.context() as watched:
        watched.setattr(subprocess, "Popen", lambda *args, **_: started.append(args))
        watched.setattr(torch.jit, "load", lambda *args, **_: started.append(args))
        with pytest.raises(
            ModelFileError, match=r"is a program .* sha256 [0-9a-f]{64} is not"
        ) as no:
            ScriptProcess(path, "cpu", {"0" * 64})
    assert "--trust" in str(no.value)
    assert "\n" not in str(no.value)
    assert not started
    assert not written.exists()


def test_what_is_trusted_works_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script_process.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    network = run(script(Hostile("here.pt"), tmp_path))
    (own,) = (tmp_path / "tmp").iterdir()
    assert torch.equal(network(torch.ones(2, 3)), torch.ones(2, 3))
    assert {path.name for path in own.iterdir()} == {"network.pt", "here.pt", "beside.pt"}
    assert {path.name for path in tmp_path.iterdir()} == {"network.pt", "tmp"}
    del network
    assert not own.exists()


def test_its_surroundings_are_bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    network = run(script(Square(), tmp_path))
    about = Path(f"/proc/{network._process.pid}")
    if not about.is_dir():
        pytest.skip("this system does not show processes in /proc")
    assert b"secret" not in (about / "environ").read_bytes()
    assert "Max core file size        0" in (about / "limits").read_text()
    assert (
        f"Max file size             {script_child.MOST_FILE_BYTES}"
        in (about / "limits").read_text()
    )
    assert network.network in (script_child.OWN_NETWORK, script_child.NO_SOCKETS)
    if network.network == script_child.OWN_NETWORK:
        assert os.readlink(about / "ns/net") != os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize("way", ["leave_network()", "_forbid_sockets(ctypes.CDLL(None))"])
def test_no_connection_can_be_made(way: str) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux can take the network from a process without rights")
    program = """
        import ctypes, runpy, socket, sys
        child = runpy.run_path(sys.argv[1])
        assert eval(sys.argv[2], child), "nothing was done"
        try:
            socket.create_connection(("127.0.0.1", int(sys.argv[3])), 5)
        except OSError as problem:
            print("refused", type(problem).__name__)
    """
    with file_server() as files:
        port = files.address.rpartition(":")[2]
        arguments = [str(script_child.__file__), way, port]
        done = subprocess.run(
            [sys.executable, "-I", "-c", textwrap.dedent(program), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.startswith("refused"), done.stdout + done.stderr


def test_results_and_gradients_are_those_of_the_network(tmp_path: Path) -> None:
    path = script(Square(), tmp_path)
    network, here = run(path), Square()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x, deep=True), here(x, deep=True))
    first, second = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    (network(first).sum() + (network(first, deep=True) * 3).sum()).backward()
    (here(second).sum() + (here(second, deep=True) * 3).sum()).backward()
    assert first.grad is not None
    assert second.grad is not None
    assert torch.allclose(first.grad, second.grad)
    with pytest.raises(RuntimeError, match="AssertionError"):
        network(torch.ones(2, 2))
    assert torch.equal(network(x), here(x)), "it is still there"


def _hang(network: ScriptProcess) -> None:
    network.call_s = 1.0
    network(torch.ones(1))


def _die(network: ScriptProcess) -> None:
    network._process.kill()
    network(torch.ones(1))


@pytest.mark.parametrize(
    ("end", "match"),
    [(_hang, "did not answer within 1 s and was ended"), (_die, r"ended its process \(signal 9\)")],
)
def test_a_process_that_ends_or_hangs_is_one_sentence(
    end: Callable[[ScriptProcess], None], match: str, tmp_path: Path
) -> None:
    network = run(script(Endless(), tmp_path))
    with pytest.raises(ModelFileError, match=match) as caught:
        end(network)
    assert "\n" not in str(caught.value)
