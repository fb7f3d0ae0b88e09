"""Hostile addresses in lists: none is fetched, each is reported, and nothing else is lost."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import Reason, SourceError
from datasets.fetch.item import fetch
from datasets.fetch.policy import DownloadSettings
from datasets.sources import addresses
from datasets.sources.addresses import AddressPolicy
from datasets.sources.items import How, SourceItem
from datasets.sources.lists import ListOptions, list_source
from datasets.sources.versions import with_versions
from tests.support.fake_clock import FakeClock
from tests.support.file_server import Files, file_server

SETTINGS = DownloadSettings(attempts=2, keep_free_bytes=0)
PUBLIC = "front.example"
"""A host that counts as public, though it is served here."""
NAMES = {
    "ten.example": "10.1.2.3",
    "loop.example": "127.0.0.1",
    "meta.example": "169.254.169.254",
    "six.example": "::1",
    "mapped.example": "::ffff:192.168.0.1",
    "unique.example": "fd00::1",
    "shared.example": "100.64.0.1",
    "none.example": "0.0.0.0",
    PUBLIC: "127.0.0.1",
}
HOSTILE = {
    "http://127.0.0.1/a.mp4": "loopback",
    "http://127.0.0.1:PORT/a.mp4": "loopback",
    "http://127.8.9.1/": "loopback",
    "http://localhost:PORT/a.mp4": "this machine",
    "http://LOCALHOST./a.mp4": "this machine",
    "http://app.localhost/a.mp4": "this machine",
    "http://2130706433/": "odd form",
    "http://2130706433:PORT/a.mp4": "odd form",
    "http://0x7f.1/": "odd form",
    "http://0x7f000001/a.mp4": "odd form",
    "http://0177.0.0.1/a.mp4": "odd form",
    "http://127.1/a.mp4": "odd form",
    "http://0/a.mp4": "odd form",
    "http://0.0.0.0:PORT/a.mp4": "unspecified",
    "http://10.0.0.1/a.mp4": "private",
    "http://172.16.5.4/a.mp4": "private",
    "https://192.168.1.1/a.mp4": "private",
    "http://100.64.0.1/a.mp4": "private",
    "http://169.254.169.254/latest/meta-data/": "link-local",
    "http://metadata.google.internal/a.mp4": "its own network",
    "http://224.0.0.1/a.mp4": "multicast",
    "http://255.255.255.255/a.mp4": "private",
    "http://[::1]:PORT/a.mp4": "loopback",
    "http://[::]/a.mp4": "unspecified",
    "http://[::ffff:127.0.0.1]/": "loopback",
    "http://[::ffff:7f00:1]/a.mp4": "loopback",
    "http://[::127.0.0.1]/a.mp4": "loopback",
    "http://[64:ff9b::7f00:1]/a.mp4": "loopback",
    "http://[2002:7f00:1::]/a.mp4": "loopback",
    "http://[fe80::1%25eth0]/a.mp4": "link-local",
    "http://[fd00::1]/a.mp4": "private",
    "http://[ff02::1]/a.mp4": "multicast",
    "http://ten.example/a.mp4": "private",
    "http://loop.example:PORT/a.mp4": "loopback",
    "http://meta.example/latest": "link-local",
    "http://six.example:PORT/a.mp4": "loopback",
    "http://mapped.example/a.mp4": "private",
    "http://unique.example/watch?v=1": "private",
    "http://shared.example/a.mp4": "private",
    "http://none.example:PORT/a.mp4": "unspecified",
    "http://front.example:PORT/to-meta.mp4": "link-local",
    "http://front.example:PORT/to-loop.mp4": "loopback",
    "http://front.example:PORT/to-name.mp4": "private",
    "http://front.example:PORT/to-odd.mp4": "odd form",
    "http://front.example:PORT/to-file.mp4": "not allowed",
    "http://front.example:PORT/to-ftp.mp4": "not allowed",
    "http://front.example:PORT/twice.mp4": "link-local",
    "http://front.example:PORT/page-to-loop": "loopback",
    "http://ann:pass@front.example:PORT/a.mp4": "user's name",
    "http:///a.mp4": "not an address",
    "http://[::1/a.mp4": "not an address",
    "http://front.example:port/a.mp4": "not an address",
    "file:///etc/passwd": "folder of the list",
    "file:/etc/passwd": "not allowed",
    "FILE:///etc/passwd": "folder of the list",
    "file://host/etc/passwd": "not allowed",
    "/etc/passwd": "folder of the list",
    "../secret.mp4": "folder of the list",
    "a/../../secret.mp4": "folder of the list",
    "ftp://front.example/a.mp4": "not allowed",
    "gopher://front.example/a": "not allowed",
    "data:video/mp4;base64,AAAA": "not allowed",
    "dict://127.0.0.1:11211/stat": "not allowed",
    "simplecache::file:///etc/passwd": "not allowed",
    "s3://bucket/a::file:///etc/passwd": "within an address",
    "local:///etc/passwd": "not allowed",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    resolve, check = socket.getaddrinfo, addresses.check_number

    def resolved(host: Any, *rest: Any, **settings: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return resolve(NAMES.get(name, name), *rest, **settings)

    def checked(number: str, host: str) -> None:
        if host != PUBLIC:
            check(number, host)

    with file_server() as files:
        port = files.address.rpartition(":")[2]
        files.content = {"a.mp4": b"secret", "good.mp4": b"good"}
        files.redirects = {
            "to-meta.mp4": "http://169.254.169.254/latest/meta-data/",
            "to-loop.mp4": f"http://127.0.0.1:{port}/a.mp4",
            "to-name.mp4": "http://ten.example/a.mp4",
            "to-odd.mp4": f"http://2130706433:{port}/a.mp4",
            "to-file.mp4": "file:///etc/passwd",
            "to-ftp.mp4": "ftp://front.example/a.mp4",
            "twice.mp4": f"http://{PUBLIC}:{port}/to-meta.mp4",
            "page-to-loop": f"http://127.0.0.1:{port}/a.mp4",
        }
        monkeypatch.setattr(socket, "getaddrinfo", resolved)
        monkeypatch.setattr(addresses, "check_number", checked)
        yield files


def listed(
    server: Files, folder: Path, lines: list[str], policy: AddressPolicy | None = None
) -> list[SourceItem]:
    port = server.address.rpartition(":")[2]
    place = folder / "lists" / "list.txt"
    place.parent.mkdir(exist_ok=True)
    place.write_text("\n".join(line.replace("PORT", port) for line in lines))
    options = ListOptions(ask_servers=True, addresses=policy or AddressPolicy())
    return list_source("urls", str(place), options=options)


@pytest.mark.parametrize(("address", "why"), HOSTILE.items())
def test_a_hostile_address_is_refused_by_name(
    server: Files, tmp_path: Path, address: str, why: str
) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    good, item = listed(server, tmp_path, [f"http://{PUBLIC}:PORT/good.mp4", address])
    assert not good.reason
    if not item.reason:
        with pytest.raises(SourceError) as caught:
            fetch(item, tmp_path / "cache", SETTINGS, FakeClock().clock)
        item = replace(item, reason=caught.value.reason, detail=caught.value.detail)
    assert item.reason is Reason.NOT_ALLOWED, item.detail
    assert why in item.detail
    assert not any(path == "a.mp4" for path, _ in server.requests), "nothing was asked for"
    # The one next to it is still fetched.
    assert fetch(good, tmp_path / "cache", SETTINGS).path.read_bytes() == b"good"


def test_the_flags_let_them_in(server: Files, tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"mine")
    policy = AddressPolicy(True, ("http", "memory"), allow_outside=True)
    lines = ["http://127.0.0.1:PORT/a.mp4", "../secret.mp4", "http://loop.example:PORT/good.mp4"]
    lines += [f"http://{PUBLIC}:PORT/to-loop.mp4", (tmp_path / "secret.mp4").as_uri()]
    items = listed(server, tmp_path, lines, policy)
    settings = replace(SETTINGS, addresses=policy)
    found = [fetch(item, tmp_path / "cache", settings).path.read_bytes() for item in items]
    assert found == [b"secret", b"mine", b"good", b"secret", b"mine"]
    (item,) = listed(server, tmp_path, ["memory://bucket/a.mp4"], policy)
    assert not item.reason


def test_a_file_address_within_the_folder_of_the_list(server: Files, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    inside = tmp_path / "lists" / "a b.mp4"
    inside.write_bytes(b"1")
    (item,) = listed(server, tmp_path, [inside.as_uri()])
    assert (item.how, item.reason) == (How.LOCAL, Reason.NONE)
    assert item.path == inside


def test_the_connection_goes_to_what_was_checked(
    server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is asked for first, and this machine from then on."""
    answers = iter(["93.184.216.34"])
    asked: list[str] = []
    tried: list[str] = []
    resolve = socket.getaddrinfo

    def rebinding(host: Any, *rest: Any, **settings: Any) -> Any:
        if host == "rebind.example":
            asked.append(host)
            return resolve(next(answers, "127.0.0.1"), *rest, **settings)
        return resolve(host, *rest, **settings)

    def connect(place: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        tried.append(place[0])
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    port = server.address.rpartition(":")[2]
    location = f"http://rebind.example:{port}/a.mp4"
    item = SourceItem("a", location, "a", "a", How.FILE)
    with pytest.raises(SourceError) as caught:
        fetch(item, tmp_path, SETTINGS, FakeClock().clock)
    assert tried == ["93.184.216.34"], "and the second attempt is refused"
    assert len(asked) == 2
    assert caught.value.reason is Reason.NOT_ALLOWED
    assert with_versions([item]) == [item], "no more is a server asked for its version"
    assert tried == ["93.184.216.34"]


def test_the_users_own_proxy_may_be_private(
    server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.delenv("no_proxy", raising=False)
    server.content[f"http://{PUBLIC}/good.mp4"] = b"by proxy"
    item = SourceItem("a", f"http://{PUBLIC}/good.mp4", "a", "a", How.FILE)
    assert fetch(item, tmp_path, SETTINGS).path.read_bytes() == b"by proxy"
    with pytest.raises(SourceError, match="private"):
        fetch(replace(item, location="http://ten.example/a.mp4"), tmp_path, SETTINGS)


def test_files_that_are_too_large_are_refused(server: Files, tmp_path: Path) -> None:
    server.content["big.mp4"] = bytes(5000)
    small = replace(SETTINGS, max_bytes=4999)
    (item,) = listed(server, tmp_path, [f"http://{PUBLIC}:PORT/big.mp4"])
    with pytest.raises(SourceError, match="5,000 bytes or more, at most 4,999") as caught:
        fetch(item, tmp_path / "cache", small)
    assert caught.value.reason is Reason.NOT_ALLOWED
    assert fetch(item, tmp_path / "cache", replace(small, max_bytes=5000)).bytes == 5000


def test_a_new_signature_is_the_same_item_and_the_same_download(
    server: Files, tmp_path: Path
) -> None:
    def signed(mark: str) -> list[SourceItem]:
        lines = [
            f"http://{PUBLIC}:PORT/good.mp4?X-Amz-Date={mark}&X-Amz-Signature={mark}",
            f"http://{PUBLIC}:PORT/get?id=7&token={mark}",
            f"http://{PUBLIC}:PORT/get?id=8&token={mark}",
            f"http://{PUBLIC}:PORT/good?sv=1&sig={mark}",
        ]
        return listed(server, tmp_path, lines)

    first, second = signed("11111111"), signed("22222222")
    assert [item.key for item in first] == [item.key for item in second]
    assert [item.speaker for item in first] == [item.speaker for item in second]
    assert len({item.key for item in first}) == 4
    for item in (*first, *second):
        assert not any(mark in f"{item.key}{item.speaker}" for mark in ("1111", "2222"))
    server.content["good.mp4?X-Amz-Date=11111111&X-Amz-Signature=11111111"] = b"good"
    fetched = fetch(first[0], tmp_path / "cache", SETTINGS)
    assert fetch(second[0], tmp_path / "cache", SETTINGS) == fetched
