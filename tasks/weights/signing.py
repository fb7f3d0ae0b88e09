"""Signatures of models: who made these files, proved by a key that the registry does not hold.

Two environment variables, each the path of a PEM file or its text, hold Ed25519 keys (RFC 8032):
with `LATENTSYNC_SIGNING_KEY` every model that is written or registered is signed; with
`LATENTSYNC_PUBLIC_KEY`, which may list several keys, none is used that is not.

    openssl genpkey -algorithm ed25519 -out signing.pem
    openssl pkey -in signing.pem -pubout -out public.pem
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from datasets.errors import UserError
from datasets.store.atomic import content_digest, write_atomic
from models.files.errors import ModelFileError

SIGNING_KEY = "LATENTSYNC_SIGNING_KEY"
PUBLIC_KEY = "LATENTSYNC_PUBLIC_KEY"
SIGNATURE = "signature.json"
"""The file of a folder that holds the sha256 of the others and their signature."""
BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", re.DOTALL)
"""One key of a PEM file."""


def signing_key() -> Ed25519PrivateKey | None:
    """The private key; None if none is set.

    Raises:
        UserError: what is set is not an Ed25519 key without a passphrase.
    """
    blocks = _blocks(SIGNING_KEY)
    if not blocks:
        return None
    try:
        key = load_pem_private_key(blocks[0].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The cause may quote the key.
        raise _not_a_key(SIGNING_KEY, "private") from error
    if len(blocks) > 1 or not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(SIGNING_KEY, "private")
    return key


def public_keys() -> list[Ed25519PublicKey]:
    """The keys whose signatures count; empty if signatures are not asked for.

    Raises:
        UserError: what is set does not hold Ed25519 public keys alone.
    """
    found = []
    for block in _blocks(PUBLIC_KEY):
        try:
            key = load_pem_public_key(block.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise _not_a_key(PUBLIC_KEY, "public") from error
        if not isinstance(key, Ed25519PublicKey):
            raise _not_a_key(PUBLIC_KEY, "public")
        found.append(key)
    return found


def sign(statement: Mapping[str, Any]) -> str:
    """The signature of a statement in base64; empty without a key to sign with.

    Args:
        statement: JSON data.
    """
    key = signing_key()
    return base64.b64encode(key.sign(_bytes(statement))).decode() if key else ""


def check(statement: Mapping[str, Any], signature: str, what: str) -> None:
    """Check a statement, if signatures are asked for.

    Args:
        statement: what must have been signed, to the letter.
        signature: what `sign` gave.
        what: the thing that is signed, for the message.

    Raises:
        ModelFileError: it is not signed, or by none of the keys, or something else was signed.
    """
    keys = public_keys()
    if not keys:
        return
    if not signature:
        raise ModelFileError(
            f"{what} is not signed, and {PUBLIC_KEY} asks for signatures: if you trust it, sign "
            "it with latentsync-flows sign-model"
        )
    try:
        proof = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        proof = b""
    if not any(_is_by(key, proof, _bytes(statement)) for key in keys):
        raise ModelFileError(
            f"{what} is not as it was signed, or was signed by a key that is not in {PUBLIC_KEY}: "
            "get it again from whoever made it"
        )


def sign_folder(folder: Path, names: Sequence[str] = ()) -> bool:
    """Write the signature of a folder's files, over one that is there.

    Args:
        folder: the folder.
        names: the files that are meant; empty: all.

    Returns:
        Whether there is a key to sign with; without one nothing is written.
    """
    if signing_key() is None:
        return False
    files = _digests(folder, names)
    content = {"files": files, "signature": sign({"files": files})}
    write_atomic(folder / SIGNATURE, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return True


def check_folder(folder: Path, names: Sequence[str] = ()) -> None:
    """Check the files of a folder against its signature, if signatures are asked for.

    Args:
        folder: the folder.
        names: the files that are meant; empty: all.

    Raises:
        ModelFileError: it is not signed by one of the keys; or, by name, a file was changed, added
            or removed since.
    """
    if not public_keys():
        return
    signed, signature = _read(folder)
    check({"files": signed}, signature, f"the list of files of {folder}")
    found = _digests(folder, names)
    for name in sorted(signed.keys() | found.keys()):
        if signed.get(name) != found.get(name):
            how = "was changed" if name in signed and name in found else "was removed"
            how = how if name in signed else "was added"
            raise ModelFileError(
                f"{folder / name} {how} after the folder was signed: get the model again from "
                "whoever made it"
            )


def _digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Path in a folder -> sha256, of these files or of all but the signature."""
    paths = [folder / name for name in names] or folder.rglob("*")
    files = sorted(path for path in paths if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: content_digest(path) for name, path in named.items() if name != SIGNATURE}


def _read(folder: Path) -> tuple[dict[str, str], str]:
    """What was signed, and the signature; both empty if there is none."""
    path = folder / SIGNATURE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["files"]), str(content["signature"])
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} is damaged: sign the folder again ({error})") from error


def _is_by(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _bytes(statement: Mapping[str, Any]) -> bytes:
    """A statement in the one form in which it is signed."""
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode("ascii")


def _blocks(variable: str) -> list[str]:
    """The keys of an environment variable, as PEM texts; empty if it is not set."""
    given = os.environ.get(variable, "").strip()
    if not given:
        return []
    text = given
    if "-----BEGIN" not in given:
        try:
            text = Path(given).expanduser().read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise UserError(
                f"{variable} names {given}, which cannot be read ({why}): give the path of a PEM "
                "file, or its text"
            ) from error
    # One line, as in many secret stores, has its line breaks written out.
    found = [match[0] for match in BLOCK.finditer(text.replace("\\n", "\n"))]
    if not found:
        raise _not_a_key(variable, "private" if variable == SIGNING_KEY else "public")
    return found


def _not_a_key(variable: str, kind: str) -> UserError:
    command = "openssl genpkey -algorithm ed25519 -out signing.pem"
    if kind == "public":
        command = "openssl pkey -in signing.pem -pubout -out public.pem"
    return UserError(
        f"{variable} does not hold an Ed25519 {kind} key in PEM form"
        f"{' without a passphrase' if kind == 'private' else ''}: make one with `{command}`"
    )
