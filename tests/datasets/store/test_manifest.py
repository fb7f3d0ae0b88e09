"""Atomic files and the memory of finished work."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from datasets.store.atomic import content_digest, write_atomic
from datasets.store.manifest import Manifest, config_digest
from datasets.store.open import open_store
from datasets.store.remote import RemoteStore
from tests.support.s3_server import S3Server, failing_proxy

ROOT = Path(__file__).resolve().parents[3]


def test_values_come_back(tmp_path: Path) -> None:
    manifest: Manifest[dict[str, Any]] = Manifest(tmp_path / "m")
    assert manifest.get("a/ü.mp4") is None
    manifest.put("a/ü.mp4", {"x": [1, 2.5, None]})
    manifest.put("b", {})
    assert Manifest(tmp_path / "m").get("a/ü.mp4") == {"x": [1, 2.5, None]}
    assert list(manifest.keys()) == ["a/ü.mp4", "b"]
    manifest.put("b", {"y": 1})
    assert manifest.get("b") == {"y": 1}


def test_foreign_and_half_written_files_are_no_entries(tmp_path: Path) -> None:
    manifest: Manifest[dict[str, Any]] = Manifest(tmp_path)
    manifest.put("a", {"x": 1})
    path = next(tmp_path.glob("*.json"))
    path.write_text(path.read_text()[:10])
    (tmp_path / "other.json").write_text("[1]")
    assert manifest.get("a") is None
    assert list(manifest.keys()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    with pytest.raises(TypeError):
        write_atomic(path, 5)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_digests(tmp_path: Path) -> None:
    assert config_digest({"a": 1, "b": [2]}) == config_digest({"b": [2], "a": 1})
    assert config_digest({"a": 1}) != config_digest({"a": 2})
    (tmp_path / "x").write_bytes(b"abc")
    assert content_digest(tmp_path / "x").startswith("ba7816bf")


def test_many_processes_may_write_the_same_entry(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from datasets.store.manifest import Manifest\n"
        "for turn in range(60): Manifest(Path(sys.argv[1])).put('k', {'v': sys.argv[2] * 9000})"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), letter], cwd=ROOT)
        for letter in "ab"
    ]
    manifest: Manifest[dict[str, Any]] = Manifest(tmp_path)
    while any(writer.poll() is None for writer in writers):
        value = manifest.get("k")
        assert value is None or value["v"] in ("a" * 9000, "b" * 9000)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_a_manifest_in_object_storage(s3_server: S3Server) -> None:
    bucket = s3_server.bucket()
    manifest: Manifest[dict[str, Any]] = Manifest(open_store(f"s3://{bucket}/data"), "journal/v1/")
    assert list(manifest.keys()) == []
    assert manifest.get("absent") is None
    keys = [f"speaker/{number:04d}.mp4" for number in range(60)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: manifest.put(key, {"key": key}), keys))
    assert manifest.get(keys[7]) == {"key": keys[7]}
    assert list(manifest.keys()) == keys
    assert dict(manifest.items())[keys[8]] == {"key": keys[8]}
    assert all(name.startswith("data/journal/v1/") for name in s3_server.objects(bucket))
    assert list(Manifest(open_store(f"s3://{bucket}/data"), "journal").keys()) == []


def test_an_entry_that_cannot_be_read_is_not_taken_for_missing(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{s3_server.bucket()}/data"
    first: Manifest[dict[str, Any]] = Manifest(open_store(url))
    first.put("a", {})
    with failing_proxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        manifest: Manifest[dict[str, Any]] = Manifest(RemoteStore(url, attempts=1))
        proxy.matches = lambda method, path: ".json" in path
        proxy.always = "500"
        with pytest.raises(OSError, match="could not be read"):
            manifest.get("a")
        with pytest.raises(OSError, match="could not be read"):
            list(manifest.keys())
