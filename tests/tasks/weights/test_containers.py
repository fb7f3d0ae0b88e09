"""A file of weights without a published sha256 is known to be whole from its container."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tasks.weights.containers import container_fault

TENSORS = {
    "a": torch.arange(50.0),
    "b": torch.ones(7, dtype=torch.float16),
    "c": torch.arange(9),
}


def saved(kind: str, path: Path) -> Path:
    if kind == "safetensors":
        save_file(TENSORS, path.with_suffix(".safetensors"))
        return path.with_suffix(".safetensors")
    content: Any = {"state_dict": TENSORS, "epoch": 3, "other": torch.nn.Linear(2, 2).state_dict()}
    if kind == "script":
        torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(2)), str(path))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["safetensors", "zip", "script", "legacy"])
def test_whole_files_pass_and_no_shorter_or_longer_one_does(kind: str, tmp_path: Path) -> None:
    path = saved(kind, tmp_path / "w.pt")
    assert container_fault(path) is None
    body = path.read_bytes()
    name = path.name
    part = tmp_path / "part"
    for keep in (*range(0, len(body), 37), len(body) - 1):
        part.write_bytes(body[:keep])
        assert container_fault(part, name), f"cut at {keep} of {len(body)}"
    # A resumed download that was joined in the wrong place.
    for joined in (body[:100] + body[90:], body[:100] + body[110:], body + body[-10:]):
        part.write_bytes(joined)
        if not (kind in ("zip", "script") and joined.startswith(body)):
            assert container_fault(part, name)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".json", ".xyz"])
@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "LFS pointer"),
        (b"\n <!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "web page"),
        (b"\x1f\x8b\x08\x00" + bytes(40), "gzip"),
    ],
)
def test_what_servers_send_instead(suffix: str, body: bytes, fault: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(body)
    assert fault in (container_fault(path) or "")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".json"])
def test_an_error_message_in_json_is_no_weights(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b'{"error": "quota exceeded"}')
    assert "quota exceeded" in (container_fault(path) or "")


def test_a_config_is_a_json_object_that_describes_a_model(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    text = json.dumps({"model_type": "videomae", "hidden_size": 768})
    path.write_text(text)
    assert container_fault(path) is None
    path.write_text(text[:-4])
    assert "not JSON" in (container_fault(path) or "")
    path.write_text("[1]")
    assert "does not describe a model" in (container_fault(path) or "")


def test_a_damaged_header_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for header in (b'{"a": [1]}', b'{"a": {"data_offsets": [0]}}', b"{" * 20):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        assert "header is damaged" in (container_fault(path) or "")


def test_archives_of_others(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("table.xml", "x")
    assert "not torch's" in (container_fault(path) or "")


def test_nothing_in_a_pickle_is_executed(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps(Touch()))
    assert container_fault(path) is None
    torch.save({"x": Touch(), "a": TENSORS["a"]}, path, _use_new_zipfile_serialization=False)
    assert container_fault(path) is None
    assert not (tmp_path / "touched").exists()
