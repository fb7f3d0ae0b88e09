"""Weights are fetched once, checked always, and never from the network when offline."""

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from models.files.errors import ModelFileError
from tasks.weights import store
from tasks.weights.lock import LOCK_FILE
from tasks.weights.store import fetch, find, status, verified
from tasks.weights.table import Weight
from tests.support.file_server import Files, file_server
from tests.support.raw_server import answer, raw_server

BODY = bytes(range(256)) * 100
DIGEST = hashlib.sha256(BODY).hexdigest()


def safetensors(seed: int = 0) -> bytes:
    """A whole file, other bytes for another seed."""
    header = b'{"a": {"dtype": "U8", "shape": [2000], "data_offsets": [0, 2000]}}'
    return len(header).to_bytes(8, "little") + header + bytes([seed]) * 2000


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEIGHTS_OFFLINE", "HF_HUB_OFFLINE", "WEIGHTS_MIRROR", "WEIGHTS_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server() as files:
        files.content["far/w.pt"] = BODY
        files.content["far/w.safetensors"] = safetensors()
        yield files


@pytest.fixture
def weight(server: Files) -> Weight:
    return Weight(
        name="small",
        url=f"{server.address}/far/w.pt",
        file="kind/w.pt",
        licence="MIT",
        needed_by="tests",
        size=len(BODY),
        sha256=DIGEST,
    )


@pytest.fixture
def unpublished(weight: Weight) -> Weight:
    """Neither size nor sha256 is known beforehand."""
    url = weight.url.replace(".pt", ".safetensors")
    return replace(weight, url=url, file="kind/w.safetensors", size=None, sha256=None)


def get(weight: Weight, folder: Path) -> Path:
    return fetch(weight.name, folder, table=[weight], attempts=2, backoff_s=0.0)


def lock_of(folder: Path) -> dict[str, dict[str, object]]:
    return json.loads((folder / LOCK_FILE).read_text())


def test_fetched_once_and_recorded(weight: Weight, server: Files, tmp_path: Path) -> None:
    path = get(weight, tmp_path)
    assert path == tmp_path / "kind" / "w.pt"
    assert path.read_bytes() == BODY
    assert get(weight, tmp_path) == path
    assert len(server.requests) == 1
    assert lock_of(tmp_path)["small"]["sha256"] == DIGEST


@pytest.mark.parametrize("keep", [10, 20_000, len(BODY)])
def test_an_interrupted_download_goes_on(
    keep: int, weight: Weight, server: Files, tmp_path: Path
) -> None:
    (tmp_path / "kind").mkdir()
    (tmp_path / "kind" / "w.pt.part").write_bytes(BODY[:keep])
    assert get(weight, tmp_path).read_bytes() == BODY
    expected = [("far/w.pt", f"bytes={keep}-")] if keep < len(BODY) else []
    assert server.requests == expected


@pytest.mark.parametrize("known", [True, False])
def test_a_corrupt_download_is_not_kept(
    known: bool, weight: Weight, server: Files, tmp_path: Path
) -> None:
    server.content["far/w.pt"] = BODY[:-1] + b"x" if known else BODY[:-1]
    with pytest.raises(ModelFileError, match="arrived damaged"):
        get(weight if known else replace(weight, sha256=None), tmp_path)
    assert not [p for p in (tmp_path / "kind").iterdir() if p.suffix in (".pt", ".part")]
    server.content["far/w.pt"] = BODY
    assert get(weight, tmp_path).read_bytes() == BODY


def test_an_unknown_digest_is_recorded_then_held(unpublished: Weight, tmp_path: Path) -> None:
    path = get(unpublished, tmp_path)
    assert lock_of(tmp_path)["small"]["sha256"] == hashlib.sha256(safetensors()).hexdigest()
    path.write_bytes(safetensors(1))
    with pytest.raises(ModelFileError, match="have changed"):
        get(unpublished, tmp_path)
    path.unlink()
    assert get(unpublished, tmp_path).read_bytes() == safetensors()


def test_deleting_a_file_forgets_what_was_recorded_but_not_what_is_published(
    weight: Weight,
    unpublished: Weight,
    server: Files,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    get(unpublished, tmp_path).unlink()
    server.content["far/w.safetensors"] = safetensors(1)
    assert get(unpublished, tmp_path).read_bytes() == safetensors(1)
    assert "small are different from before" in caplog.text
    digest = hashlib.sha256(safetensors(1)).hexdigest()
    assert lock_of(tmp_path)["small"]["sha256"] == digest
    assert verified("small", tmp_path, table=[unpublished]).read_bytes() == safetensors(1)
    weight = replace(weight, name="published")
    get(weight, tmp_path).unlink()
    server.content["far/w.pt"] = BODY[::-1]
    with pytest.raises(ModelFileError, match="arrived damaged"):
        get(weight, tmp_path)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "LFS pointer"),
        (b"<html>Please sign in</html>", "web page"),
        (b'{"error": "rate limit"}', "rate limit"),
        (safetensors()[:-7], "bytes, but its header promises"),
        (gzip.compress(safetensors()), "compressed with gzip"),
    ],
    ids=["empty", "pointer", "page", "error", "cut", "gzip"],
)
def test_what_is_no_whole_file_is_never_recorded(
    body: bytes, fault: str, unpublished: Weight, tmp_path: Path
) -> None:
    with raw_server(answer(body, length=False), answer(safetensors())) as server:
        row = replace(unpublished, url=f"{server.address}/w.safetensors")
        with pytest.raises(ModelFileError, match=f"arrived damaged from .*{fault}"):
            get(row, tmp_path)
        assert not (tmp_path / LOCK_FILE).exists()
        assert get(row, tmp_path).read_bytes() == safetensors()
    path = tmp_path / "hand" / row.file
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    (listed,) = status(tmp_path / "hand", [row])
    assert fault in listed.problem
    with pytest.raises(ModelFileError, match=f"cannot be used: .*{fault}.*delete the file"):
        get(row, tmp_path / "hand")
    assert not (tmp_path / "hand" / LOCK_FILE).exists()


def test_a_file_put_there_by_hand_is_checked(weight: Weight, server: Files, tmp_path: Path) -> None:
    path = tmp_path / "kind" / "w.pt"
    path.parent.mkdir()
    path.write_bytes(BODY)
    assert get(weight, tmp_path) == path
    assert not server.requests
    path.write_bytes(BODY[:100])
    with pytest.raises(ModelFileError, match=r"100 bytes, but 25600 were expected"):
        get(weight, tmp_path)


@pytest.mark.parametrize("variable", ["WEIGHTS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_uses_what_is_there_and_says_what_is_not(
    variable: str, weight: Weight, server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelFileError, match="switched off") as caught:
        get(weight, tmp_path)
    assert "copy w.pt from" in str(caught.value)
    assert not server.requests
    monkeypatch.setenv(variable, "0")
    path = get(weight, tmp_path)
    monkeypatch.setenv(variable, "1")
    assert get(weight, tmp_path) == path


def test_mirrors_take_the_place_of_the_source(
    weight: Weight, server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content["mirror/kind/w.pt"] = BODY
    monkeypatch.setenv("WEIGHTS_MIRROR", f"{server.address}/mirror")
    get(weight, tmp_path / "first")
    assert server.requests == [("mirror/kind/w.pt", None)]
    monkeypatch.setenv("WEIGHTS_MIRROR", str(tmp_path / "first"))
    monkeypatch.setenv("WEIGHTS_OFFLINE", "1")
    assert get(weight, tmp_path / "second").read_bytes() == BODY
    assert len(server.requests) == 1


HUB = "https://huggingface.co/some/model/resolve/main/w.pt"


def test_the_hub_goes_on_after_a_cut_and_a_killed_run(
    weight: Weight, server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    server.content["some/model/resolve/main/w.pt"] = BODY
    server.break_after = [1_000, 2_000, 0, 0]
    row = replace(weight, url=HUB)
    with pytest.raises(ModelFileError, match=r"ended after 3,000 of 25,600 bytes"):
        get(row, tmp_path)
    server.break_after = []
    assert get(row, tmp_path).read_bytes() == BODY
    assert [asked for _, asked in server.requests][-1] == "bytes=3000-"
    assert sorted(each.name for each in (tmp_path / "kind").iterdir()) == ["w.pt", "w.pt.lock"]


@pytest.mark.parametrize("status", [401, 403])
def test_what_the_hub_shows_not_to_everybody(
    status: int,
    weight: Weight,
    server: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    server.statuses = [status]
    with pytest.raises(ModelFileError, match=f"HTTP {status} .*`hf auth login` or set HF_TOKEN"):
        get(replace(weight, url=HUB), tmp_path)
    assert len(server.requests) == 1


def test_a_mirror_comes_before_the_hub_and_is_told_no_token(
    weight: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    with raw_server(answer(BODY)) as mirror:
        monkeypatch.setenv("WEIGHTS_MIRROR", mirror.address)
        get(replace(weight, url=HUB), tmp_path)
    assert b"secret" not in mirror.requests[0]


def test_two_at_once_fetch_once(weight: Weight, server: Files, tmp_path: Path) -> None:
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(get(weight, tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == BODY for path in paths] == [True] * 4
    assert len(server.requests) == 1


def test_a_disk_too_small_is_seen_before(
    weight: Weight, server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "free_bytes", lambda folder: 100)
    with pytest.raises(OSError, match="No space left"):
        get(weight, tmp_path)
    assert not server.requests


def test_a_verified_file_is_read_once_and_never_fetched(
    weight: Weight, server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def watched(path: Path) -> str:
        read.append(path)
        return DIGEST

    monkeypatch.setattr(store, "content_digest", watched)
    for row in (weight, replace(weight, name="other", file="kind/o.pt", size=None, sha256=None)):
        path = tmp_path / row.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(BODY)
        for _ in range(2):
            assert verified(row.name, tmp_path, table=[row]) == path
        assert lock_of(tmp_path)[row.name]["sha256"] == DIGEST
        assert read == [path]
        read.clear()
    with pytest.raises(FileNotFoundError):
        verified("small", tmp_path / "empty", table=[weight])
    assert not server.requests


def test_a_folder_that_cannot_be_written_to_is_verified_too(
    weight: Weight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / weight.file
    path.parent.mkdir()
    path.write_bytes(BODY)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert verified("small", tmp_path, table=[weight]) == path
    assert get(weight, tmp_path) == path
    assert [each.name for each in path.parent.iterdir()] == ["w.pt"]
    path.write_bytes(b"x" * len(BODY))
    with pytest.raises(ModelFileError, match="its sha256 is"):
        verified("small", tmp_path, table=[weight])


def test_status(weight: Weight, tmp_path: Path) -> None:
    (row,) = status(tmp_path, [weight])
    assert (row.present, row.size, row.problem) == (False, len(BODY), "")
    path = get(weight, tmp_path)
    (row,) = status(tmp_path, [weight])
    assert (row.present, row.problem) == (True, "")
    path.write_bytes(b"x" * len(BODY))
    (row,) = status(tmp_path, [weight])
    assert "sha256" in row.problem


def test_a_dangling_link_or_a_folder_in_its_place_is_left_alone(
    weight: Weight, server: Files, tmp_path: Path
) -> None:
    path = tmp_path / weight.file
    path.parent.mkdir()
    path.symlink_to(tmp_path / "unmounted" / "w.pt")
    with pytest.raises(ModelFileError, match=r"a link to .*unmounted/w\.pt, which does not exist"):
        get(weight, tmp_path)
    assert path.is_symlink()
    (row,) = status(tmp_path, [weight])
    assert (row.present, "a link to" in row.problem) == (False, True)
    path.unlink()
    path.mkdir()
    with pytest.raises(ModelFileError, match="something that is not a file"):
        get(weight, tmp_path)
    assert not server.requests


def test_a_folder_that_is_a_file(weight: Weight, server: Files, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    for folder in (file, file / "below"):
        for use in (lambda f: get(weight, f), lambda f: status(f, [weight])):
            with pytest.raises(ModelFileError, match=r"cannot be in .*file is not a folder"):
                use(folder)
    assert not server.requests
    (row,) = status(tmp_path / "to come", [weight])
    assert not row.problem


def test_names_and_files_of_the_table_are_unique_and_digests_plausible() -> None:
    table = store.WEIGHTS
    assert len({row.name for row in table}) == len({row.file for row in table}) == len(table)
    for row in table:
        assert find(row.name) is row
        assert row.url.startswith("https://")
        assert row.licence
        assert row.sha256 is None or len(bytes.fromhex(row.sha256)) == 32
