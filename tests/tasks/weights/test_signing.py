"""Signatures of folders: what was changed, added or removed since is named."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from datasets.errors import UserError
from models.files.errors import ModelFileError
from tasks.weights.bundle import bundle_digest
from tasks.weights.signing import (
    PUBLIC_KEY,
    SIGNATURE,
    SIGNING_KEY,
    check,
    check_folder,
    public_keys,
    sign,
    sign_folder,
)
from tests.support.fake_bundle import make_bundle
from tests.support.signing_keys import Keys, private_text, public_text


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Keys:
    return Keys(monkeypatch, tmp_path / "keys")


@pytest.fixture
def signed(keys: Keys, tmp_path: Path) -> Path:
    """A signed bundle, whose signature is asked for."""
    keys.use("ours", signing=True, public=True)
    folder = make_bundle(tmp_path / "bundle")
    (folder / "syncnet").mkdir()
    (folder / "syncnet" / "net.bin").write_bytes(b"net")
    assert sign_folder(folder)
    return folder


def test_what_was_signed_is_accepted_and_is_the_same_bundle(signed: Path) -> None:
    check_folder(signed)
    with_signature = bundle_digest(signed)
    (signed / SIGNATURE).unlink()
    assert bundle_digest(signed) == with_signature


def test_a_changed_an_added_and_a_removed_file_is_named(signed: Path) -> None:
    net = signed / "syncnet" / "net.bin"
    net.write_bytes(b"ten")
    with pytest.raises(ModelFileError, match=r"syncnet/net\.bin was changed after"):
        check_folder(signed)
    net.write_bytes(b"net")
    (signed / "evil.bin").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"evil\.bin was added after"):
        check_folder(signed)
    (signed / "evil.bin").unlink()
    net.unlink()
    with pytest.raises(ModelFileError, match=r"syncnet/net\.bin was removed after"):
        check_folder(signed)


def test_a_list_of_files_that_somebody_rewrote_is_refused(signed: Path) -> None:
    path = signed / SIGNATURE
    text = path.read_text()
    (signed / "weights.bin").write_bytes(b"other")
    # Whoever changes a file can change its sha256 in the list, but not sign the list.
    with pytest.raises(ModelFileError) as error:
        check_folder(signed)
    assert "weights.bin was changed" in str(error.value)
    old, new = (hashlib.sha256(each).hexdigest() for each in (b"weights", b"other"))
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ModelFileError, match=r"the list of files of .* is not as it was signed"):
        check_folder(signed)
    path.write_text("{")
    with pytest.raises(ModelFileError, match="is damaged: sign the folder again"):
        check_folder(signed)


def test_what_is_not_signed_or_by_somebody_else_is_refused(keys: Keys, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    assert not sign_folder(folder)
    assert not (folder / SIGNATURE).exists()
    check_folder(folder)
    keys.use("ours", public=True)
    with pytest.raises(ModelFileError, match="not signed, and LATENTSYNC_PUBLIC_KEY asks"):
        check_folder(folder)
    keys.use("theirs", signing=True)
    sign_folder(folder)
    with pytest.raises(ModelFileError, match="by a key that is not in LATENTSYNC_PUBLIC_KEY"):
        check_folder(folder)
    keys.use("ours", "theirs", public=True)
    check_folder(folder)


def test_only_the_named_files_of_a_folder_can_be_meant(signed: Path) -> None:
    sign_folder(signed, ("weights.bin",))
    (signed / "checkpoint.bin").write_bytes(b"later")
    check_folder(signed, ("weights.bin",))
    (signed / "weights.bin").write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"weights\.bin was changed"):
        check_folder(signed, ("weights.bin",))


def test_keys_may_be_texts_also_in_one_line(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_KEY, private_text("a"))
    monkeypatch.setenv(PUBLIC_KEY, public_text("a").replace("\n", "\\n"))
    check({"a": 1}, sign({"a": 1}), "it")
    with pytest.raises(ModelFileError, match="it is not as it was signed"):
        check({"a": 2}, sign({"a": 1}), "it")
    with pytest.raises(ModelFileError, match="it is not as it was signed"):
        check({"a": 1}, "not base64", "it")


def test_a_wrong_key_is_one_sentence_without_the_key(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SIGNING_KEY, str(tmp_path / "none.pem"))
    with pytest.raises(UserError, match=r"names .*none\.pem, which cannot be read"):
        sign({})
    monkeypatch.setenv(SIGNING_KEY, public_text("a"))
    with pytest.raises(UserError, match="does not hold an Ed25519 private key in PEM form"):
        sign({})
    monkeypatch.setenv(PUBLIC_KEY, private_text("a"))
    with pytest.raises(UserError, match="does not hold an Ed25519 public key") as error:
        public_keys()
    assert private_text("a").split("\n")[1] not in str(error.value)
    monkeypatch.setenv(SIGNING_KEY, private_text("a", generate_private_key(SECP256R1())))
    with pytest.raises(UserError, match="does not hold an Ed25519 private key"):
        sign({})
    (tmp_path / "empty.pem").write_text("nothing")
    monkeypatch.setenv(PUBLIC_KEY, str(tmp_path / "empty.pem"))
    with pytest.raises(UserError, match="does not hold an Ed25519 public key"):
        public_keys()


def test_keys_are_what_openssl_makes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret, public = tmp_path / "signing.pem", tmp_path / "public.pem"
    make = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(secret)]
    subprocess.run(make, check=True, capture_output=True)
    show = ["openssl", "pkey", "-in", str(secret), "-pubout", "-out", str(public)]
    subprocess.run(show, check=True, capture_output=True)
    monkeypatch.setenv(SIGNING_KEY, str(secret))
    monkeypatch.setenv(PUBLIC_KEY, str(public))
    check({"é": [1]}, sign({"é": [1]}), "it")
