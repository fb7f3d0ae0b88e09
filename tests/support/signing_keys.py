"""Ed25519 keys by name, made from nothing but the name, and the environment that holds them."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tasks.weights.signing import PUBLIC_KEY, SIGNING_KEY


def _key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def private_text(name: str, key: Any = None) -> str:
    """A private key as PEM."""
    private = key or _key(name)
    return str(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
    )


def public_text(name: str) -> str:
    """Its public key as PEM."""
    public = _key(name).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


class Keys:
    """Sets the two variables, which are unset at first, to files in a folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._set, self._folder = monkeypatch, folder
        folder.mkdir(parents=True)
        for name in (SIGNING_KEY, PUBLIC_KEY):
            monkeypatch.delenv(name, raising=False)

    def use(self, *names: str, signing: bool = False, public: bool = False) -> None:
        """Sign with the first of these keys, or accept all of them, or both."""
        for variable, wanted, texts in (
            (SIGNING_KEY, signing, [private_text(names[0])]),
            (PUBLIC_KEY, public, [public_text(name) for name in names]),
        ):
            if wanted:
                path = self._folder / variable
                path.write_text("".join(texts))
                self._set.setenv(variable, str(path))

    def sign_no_more(self) -> None:
        self._set.delenv(SIGNING_KEY)
