"""Addresses are quoted, and refused with a sentence where they cannot be fetched from."""

from pathlib import Path

import pytest

from models.files.errors import ModelFileError
from tasks.weights.addresses import checked_address, mirrored, on_the_hub
from tasks.weights.table import WEIGHTS

URL = "https://example.org/w.pt"


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (URL, URL),
        ("http://h:8765/a%20b/c?x=%2F&y=1", "http://h:8765/a%20b/c?x=%2F&y=1"),
        ("http://h/modèles/a b", "http://h/mod%C3%A8les/a%20b"),
        ("http://h/caf\udce9", "http://h/caf%E9"),
        ("file:///some/folder", "file:///some/folder"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
    ],
)
def test_what_http_cannot_carry_is_quoted(given: str, asked: str) -> None:
    assert checked_address(given) == asked


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("http://[bad", "is a malformed address"),
        ("http://h:port/x", "is a malformed address"),
        ("http://h:99999/x", "is a malformed address"),
        ("s3://bucket/x", "its scheme is 's3', but expected is http, https, file"),
        ("bogus://x", "its scheme is 'bogus'"),
        ("http:///x", "does not name a host"),
        ("file://models/x", "names the machine 'models': write three slashes"),
    ],
)
def test_what_cannot_be_fetched_from(given: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        checked_address(given)
    with pytest.raises(ModelFileError, match=f"WEIGHTS_MIRROR does not work: .*{message}"):
        mirrored(URL, "a/w.pt", given)


def test_mirrors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mirrored(URL, "a/w.pt", None) == URL
    assert mirrored(URL, "a/w x.pt", "http://mirror/base/") == "http://mirror/base/a/w%20x.pt"
    assert mirrored(URL, "a/w.pt", "/some/folder") == "file:///some/folder/a/w.pt"
    assert mirrored(URL, "a/w.pt", "file:/some/folder") == "file:///some/folder/a/w.pt"
    monkeypatch.chdir(tmp_path)
    assert mirrored(URL, "w.pt", "sub") == (tmp_path / "sub" / "w.pt").as_uri()
    assert mirrored(URL, "w.pt", "~nobody-has-this-name/x").startswith("file:///")


@pytest.mark.parametrize("mirror", ["127.0.0.1:8765/ok", "localhost:80", "[::1]:80/ok"])
def test_an_address_without_its_scheme(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError) as caught:
        mirrored(URL, "w.pt", mirror)
    assert f"write http://{mirror} or" in str(caught.value)
    # It may be the name of a folder, though.
    (tmp_path / mirror).mkdir(parents=True)
    assert mirrored(URL, "w.pt", mirror).startswith("file:///")


FILE = "https://huggingface.co/some/model/resolve/main/deep/w%20x.pt"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login of this machine's."""
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.mark.usefixtures("nobody")
def test_the_hub_is_where_its_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_the_hub(FILE) == (FILE, {})
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:8000/hub/")
    monkeypatch.setenv("HF_TOKEN", "secret")
    address = "http://127.0.0.1:8000/hub/some/model/resolve/main/deep/w%20x.pt"
    assert on_the_hub(FILE) == (address, {"Authorization": "Bearer secret"})
    # Other servers learn nothing.
    for other in (URL, "https://huggingface.co.example.org/some/model/resolve/main/w.pt"):
        assert on_the_hub(other) == (other, None)
    monkeypatch.setenv("HF_ENDPOINT", "s3://hub")
    with pytest.raises(ModelFileError, match=r"HF_ENDPOINT does not work: .*scheme is 's3'"):
        on_the_hub(FILE)


@pytest.mark.usefixtures("nobody")
def test_every_file_of_the_hub_is_known_as_one() -> None:
    hub = [row.url for row in WEIGHTS if "huggingface" in row.url]
    assert hub
    assert all(on_the_hub(url) == (url, {}) for url in hub)
