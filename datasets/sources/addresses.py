"""Which addresses may be fetched from: the policy, and connections that follow it.

Lists come from anywhere, and a worker of a cluster reaches what the author of a list does not:
other services in its network, the cloud's metadata, files on the machine. So names are resolved
here, the results are checked, and the connection goes to exactly the address that was
checked, again for each hop of a redirect.
"""

import http.client
import ipaddress
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from datasets.errors import Reason, SourceError

SCHEMES = ("http", "https", "s3", "gs")
LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
OPAQUE = re.compile(r"(?i)(about|blob|data|file|ftp|ftps|gopher|http|https|jar|javascript):")
"""Addresses that need no two slashes."""
NAMELESS = re.compile(r"(?i)(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+))*\.?")
"""Hosts that the resolver takes for numeric addresses, in one of their many forms."""
SHARED = ipaddress.ip_network("100.64.0.0/10")
"""Between a provider and its customers (RFC 6598): not private by name, but not public."""
TUNNELS = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""IPv4 addresses as IPv6 ones (RFC 6052, RFC 8215)."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class AddressPolicy:
    """What lists may name."""

    allow_private: bool = False
    """Whether also hosts on this machine and in its own network."""
    schemes: tuple[str, ...] = SCHEMES
    allow_outside: bool = False
    """Whether also files on this machine outside the folder of the list."""

    def check(self, address: str) -> None:
        """Check that an address may be fetched from, as far as its text shows.

        Raises:
            SourceError: NOT_ALLOWED, with what is wrong with it.
        """
        kind, slashes, rest = address.partition("://")
        if not slashes or kind.lower() not in self.schemes:
            kind = kind.partition(":")[0].lower()[:40]
            raise _refused(
                f"addresses with {kind}: are not allowed, only {', '.join(self.schemes)}"
            )
        if kind.lower() not in ("http", "https"):
            # fsspec would open one file system within another.
            if "::" in rest:
                raise _refused("an address within an address is not allowed")
            return
        try:
            parts = urlsplit(address)
            host = parts.hostname or ""
            _ = parts.port
        except ValueError as error:
            raise _refused(f"not an address: {error}") from error
        if parts.username is not None or parts.password is not None:
            raise _refused("it comes with a user's name")
        if not host or re.search(r"[\s\\\x00-\x1f]", address):
            raise _refused("not an address")
        if not self.allow_private:
            _check_host(host)

    def resolve(self, host: str, port: int) -> list[tuple[Any, ...]]:
        """The present addresses of a host, as returned by `socket.getaddrinfo`.

        Raises:
            SourceError: NOT_ALLOWED if any of them is not a public address.
            OSError: the host has no address.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if not self.allow_private:
            for *_, place in found:
                check_number(str(place[0]), host)
        return found

    def check_name(self, name: str) -> None:
        """Check that an address named by a list is in the list's folder.

        Raises:
            SourceError: NOT_ALLOWED if it leads out of the folder of the list.
        """
        if ".." in re.split(r"[/\\]", unquote(unquote(name))) or "::" in name:
            raise _refused("it leads out of the folder of the list")

    def check_path(self, path: str, folder: Path) -> Path:
        """A file named by a list, after checking that it is in `folder`.

        Raises:
            SourceError: NOT_ALLOWED if it leads out of the folder.
        """
        base = os.path.abspath(folder)
        full = os.path.abspath(os.path.join(base, path))
        if not self.allow_outside and os.path.commonpath([base, full]) != base:
            raise _refused("it leads out of the folder of the list")
        return Path(full)


def _refused(text: str) -> SourceError:
    return SourceError(Reason.NOT_ALLOWED, text)


def _check_host(host: str) -> None:
    """Refuse by its text what would be refused after resolving, and odd forms of numbers."""
    name = unquote(host).rstrip(".").lower().split("%")[0]
    if name in LOCAL_NAMES or name.endswith((".localhost", ".local", ".internal")):
        raise _refused(f"{name} is a host on this machine or in its own network")
    if ":" in name:
        check_number(name, name)
    elif NAMELESS.fullmatch(name):
        try:
            ipaddress.IPv4Address(name)
        except ValueError:
            raise _refused(f"{name} is a number in an odd form: write 4 decimal ones") from None
        check_number(name, name)


def check_number(number: str, host: str) -> None:
    """Refuse an IP address that is not of the public internet.

    Args:
        number: IPv4 or IPv6 address, perhaps with a zone.
        host: the name that it was resolved from.

    Raises:
        SourceError: NOT_ALLOWED.
    """
    try:
        address: Address = ipaddress.ip_address(number.split("%")[0])
    except ValueError:
        raise _refused(f"{host} is not an internet address") from None
    for each in (*_inside(address), address):
        kind = _kind(each)
        if kind:
            at = "" if number == host else f" is at {number}, which"
            raise _refused(f"{host}{at} is {kind}: --allow-private takes such addresses")


def _inside(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address embeds."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo:
        found += address.teredo
    if any(address in network for network in TUNNELS) or 0xFFFF < int(address) <= 0xFFFFFFFF:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]


def _kind(address: Address) -> str:
    """The kind of an address that is not public; empty if it is public."""
    kinds = {
        "unspecified": address.is_unspecified,
        "loopback": address.is_loopback,
        "link-local": address.is_link_local,
        "multicast": address.is_multicast,
        "private": address.is_private or (address.version == 4 and address in SHARED),
        "reserved": address.is_reserved or not address.is_global,
    }
    if getattr(address, "is_site_local", False):
        return "private"
    return next((kind for kind, so in kinds.items() if so), "")


def open_address(request: urllib.request.Request, timeout: float, policy: AddressPolicy) -> Any:
    """`urllib.request.urlopen`, with every hop checked by the policy.

    Raises:
        SourceError: NOT_ALLOWED, here or after a redirect.
        OSError, http.client.HTTPException: as `urlopen` does.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(policy),
        _Plain(policy),
        _Secure(policy),
    ):
        opener.add_handler(handler)
    policy.check(request.full_url)
    return opener.open(request, timeout=timeout)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        target = headers.get("location") or headers.get("uri")
        if target:
            try:
                on = urljoin(req.full_url, target)
            except ValueError as error:
                raise http.client.InvalidURL(str(error)) from error
            try:
                replace(self._policy, schemes=("http", "https")).check(on)
            except SourceError as error:
                raise _refused(f"it leads on to another address: {error.detail}") from error
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, policy: AddressPolicy) -> None:
        super().__init__()
        self._policy = policy

    def http_open(self, req: Any) -> Any:
        if _proxied(req, self._policy):
            return super().http_open(req)
        made: Any = partial(_PlainConnection, policy=self._policy)
        return self.do_open(made, req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, policy: AddressPolicy) -> None:
        super().__init__()
        self._policy = policy

    def https_open(self, req: Any) -> Any:
        if _proxied(req, self._policy):
            return super().https_open(req)
        made: Any = partial(_SecureConnection, policy=self._policy)
        return self.do_open(made, req, context=self._context)  # type: ignore[attr-defined]


def _proxied(request: Any, policy: AddressPolicy) -> bool:
    """Whether a request goes to the user's own proxy, which may be anywhere and resolves names
    itself; names that can be resolved here are still checked."""
    if not (request.has_proxy() or request._tunnel_host):
        return False
    with suppress(OSError):
        policy.resolve(urlsplit(request.full_url).hostname or "", 0)
    return True


class _PlainConnection(http.client.HTTPConnection):
    def __init__(self, host: str, *, policy: AddressPolicy, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._create_connection = partial(_connect, policy)


class _SecureConnection(http.client.HTTPSConnection):
    def __init__(self, host: str, *, policy: AddressPolicy, **settings: Any) -> None:
        super().__init__(host, **settings)
        self._create_connection = partial(_connect, policy)


def _connect(
    policy: AddressPolicy, place: tuple[str, int], timeout: Any = None, source: Any = None
) -> socket.socket:
    """A connection to one of the checked addresses; no name is resolved again."""
    problem: OSError | None = None
    for *_, found in policy.resolve(*place):
        try:
            return socket.create_connection((str(found[0]), place[1]), timeout, source)
        except OSError as error:
            problem = error
    raise problem or OSError(f"{place[0]} has no address")


@contextmanager
def checked_names(policy: AddressPolicy) -> Iterator[list[SourceError]]:
    """Within this block, names that other libraries resolve in this thread are checked, and so are
    the addresses they connect to: they use exactly the checked answer. Hosts of the user's own
    proxies are exempt.

    Yields:
        The refusals so far. The library sees an unknown name, and may go on to other
        names or report a different error.
    """
    refused: list[SourceError] = []
    before = socket.getaddrinfo
    mine = threading.get_ident()
    proxies = {urlsplit(each).hostname for each in urllib.request.getproxies().values()}

    def checked(host: Any, port: Any, *rest: Any, **settings: Any) -> Any:
        found = before(host, port, *rest, **settings)
        name = host.decode() if isinstance(host, bytes) else str(host or "")
        if threading.get_ident() == mine and name not in proxies and not policy.allow_private:
            try:
                for *_, place in found:
                    check_number(str(place[0]), name)
            except SourceError as error:
                refused.append(error)
                raise socket.gaierror(socket.EAI_NONAME, error.detail) from error
        return found

    socket.getaddrinfo = checked
    try:
        yield refused
    finally:
        socket.getaddrinfo = before
