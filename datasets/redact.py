"""Removing secrets from texts that are printed, logged, recorded or published.

Addresses lose credentials: user and password, query and fragment. Tokens are removed
wherever they are, recognised by their form, by the name before them, or because this process has
them in its environment. `datasets.errors` passes every message through here.
"""

import os
import re
from typing import Any
from urllib.parse import unquote

REMOVED = "[removed]"
DATABASES = (
    *("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "clickhouse"),
    *("redis", "rediss", "mongodb", "amqp", "amqps"),
)
"""Addresses in which everything up to the last @ is user and password, whatever characters they
hold."""
SECRET_NAMES = (
    r"x-amz-[a-z-]+|x-goog-[a-z-]+|aws_?access_?key_?id|googleaccessid|(?:x-)?signature|sig|hmac|"
    r"hdnts|hdnea|hdntl|jwt|auth|session_?id|"
    r"(?:[a-z0-9]+[_-])*(?:token|secret|password|passwd|pwd|passphrase|credentials?|apikey|authkey)|"
    r"(?:[a-z0-9]+[_-])*(?:api|access|secret|private|auth|subscription|shared|account)[_-]?key"
)
"""Names of values that are secret."""
PARAMETER = re.compile(rf"(?:{SECRET_NAMES}|expires|key-pair-id)", re.IGNORECASE)
"""Names of parameters that hold a secret or belong to a signature."""
STORES = re.compile(r"(?:x-amz-|x-goog-)|(?:key-pair-id|googleaccessid|awsaccesskeyid)$", re.I)
"""Names that show that a whole query is an object store's signature."""
AZURE = ({"sig", "sv"}, {"sig", "se"})
"""Names that show it together."""
TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{8,}|(?:AKIA|ASIA)[A-Z0-9]{12,}|gh[pousr]_[A-Za-z0-9]{16,}|"
    r"github_pat_[A-Za-z0-9_]{16,}|glpat-[A-Za-z0-9_-]{12,}|xox[abprs]-[A-Za-z0-9-]{8,}|"
    r"AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{16,}|dapi[0-9a-f]{24,}|"
    r"sk-(?:proj-)?[A-Za-z0-9]{20,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?)"
)
"""Prefixes of such names."""
HEADER = re.compile(
    r"""(?i)(\b(?:proxy-)?authorization['"]?\s*[:=]\s*['"]?)(?:(?:bearer|basic|token|digest|"""
    r"""aws4-hmac-sha256)\s+)?[^\s'"]+(?:,\s*\w+=[^\s'"]+)*"""
)
BEARER = re.compile(r"(?i)\b(bearer|basic)\s+(?=[^\s]*[0-9_.=+/-])[A-Za-z0-9._~+/=-]{12,}")
COOKIE = re.compile(r"(?i)(\b(?:set-)?cookie['\"]?\s*:\s*['\"]?)[^'\"\n]+")
NAMED = re.compile(
    rf"""(?i)(?<![A-Za-z0-9])((?:{SECRET_NAMES})(?:['"]?\s*=\s*['"]?|['"]\s*:\s*['"]))"""
    r"""(?!\[removed\])[^\s&'",;)\]}}]{4,}"""
)
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`|]+")
PRIVATE_KEY = re.compile(
    r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL
)
"""A key in PEM form, with or without its end."""
END = ").,;:!?]}"
"""Characters after an address that belong to the sentence."""
ENVIRONMENT = re.compile(r"(?i)(token|secret|password|passwd|api_?key|access_?key|credential)")
NO_SECRETS = re.compile(r"(?i)(_FILE|_PATH|_DIR|_URL|_URI|_CREDENTIALS)$")
PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/:@\s]*:([^@\s]+)@")
"""The secret part of an address in the environment."""
SHORTEST = 8
"""Characters; shorter values from the environment may occur in a text by chance."""


def redact(text: str) -> str:
    """The text without secrets. A text that has none is returned unchanged."""
    for value, name in _environment():
        text = text.replace(value, f"[{name}]")
    text = PRIVATE_KEY.sub(REMOVED, text)
    text = ADDRESS.sub(lambda found: _address(found[0]), text)
    text = HEADER.sub(rf"\1{REMOVED}", text)
    text = COOKIE.sub(rf"\1{REMOVED}", text)
    text = BEARER.sub(rf"\1 {REMOVED}", text)
    text = NAMED.sub(rf"\1{REMOVED}", text)
    return TOKENS.sub(REMOVED, text)


def redact_all(value: Any) -> Any:
    """The same for every text in JSON lists and objects."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: redact_all(each) for name, each in value.items()}
    if isinstance(value, list):
        return [redact_all(each) for each in value]
    return value


def without_signature(address: str) -> str:
    """The identity of an address: without the parts that only permit its bearer to read the file.

    A query signed by an object store is left out entirely. From any other, and from a
    fragment, only parameters with secrets are removed, since the rest may say which file is meant.
    An address without secrets is returned as it is, to the byte.
    """
    head, _, fragment = address.partition("#")
    path, _, query = head.partition("?")
    names = {_name(part) for part in re.split("[&;]", query)}
    signed = any(STORES.match(name) for name in names) or any(names >= both for both in AZURE)
    kept = TOKENS.sub(REMOVED, path), "" if signed else _harmless(query), _harmless(fragment)
    if kept == (path, query, fragment):
        return address
    return kept[0] + (f"?{kept[1]}" if kept[1] else "") + (f"#{kept[2]}" if kept[2] else "")


def _harmless(query: str) -> str:
    parts = re.split("[&;]", query)
    kept = [part for part in parts if not _is_secret(part)]
    return query if len(kept) == len(parts) else "&".join(kept)


def _name(part: str) -> str:
    return unquote(part.partition("=")[0]).strip().lower()


def _is_secret(part: str) -> bool:
    return bool(PARAMETER.fullmatch(_name(part)) or TOKENS.search(unquote(part)))


def _address(found: str) -> str:
    """An address without user, password, query and fragment."""
    address = found.rstrip(END)
    rest = found[len(address) :]
    scheme, _, place = address.partition("://")
    kind = scheme.partition("+")[0].lower()
    if kind in DATABASES:
        place = place.rpartition("@")[2]
    else:
        # A password may hold the characters that end a host; a port is not followed by any of them.
        place = re.sub(r"^[^/?#@:]*:(?!\d{1,5}(?:[/?#]|$))[^@]*@", "", place)
        place = re.sub(r"^[^/?#]*@", "", place)
    # Libraries that take a query for a part of the name quote its question mark.
    return f"{scheme}://{re.split('[?#]|%3[fF]|%23', place)[0]}{rest}"


def _environment() -> list[tuple[str, str]]:
    """Secrets in this process's environment, the longest first, and their names."""
    found: dict[str, str] = {}
    for name, value in os.environ.items():
        password = PASSWORD.match(value)
        if password:
            found[unquote(password[1])] = found[password[1]] = name
        elif PRIVATE_KEY.search(value):
            lines = value.replace("\\n", "\n").splitlines()
            found |= {line.strip(): name for line in lines if not line.startswith("-----")}
        elif ENVIRONMENT.search(name) and not NO_SECRETS.search(name):
            found[value] = name
    long = [each for each in found.items() if len(each[0]) >= SHORTEST]
    return sorted(long, key=lambda each: -len(each[0]))
