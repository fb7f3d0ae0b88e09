"""A registry in which signatures are asked for: what somebody changed there is refused by name."""

import json
from pathlib import Path

import pytest

from models.files.errors import ModelFileError
from tasks.registry.history import read_moves
from tasks.registry.policy import Policy, Rule
from tasks.registry.promotion import promote
from tasks.registry.versions import (
    CHAMPION,
    DECISION_TAG,
    EVALUATION_TAG,
    Registry,
    record_evaluation,
    resolve,
)
from tests.support.fake_bundle import evaluation, make_bundle, registered, store_uri
from tests.support.signing_keys import Keys

__all__ = ["store_uri"]

RULES = Policy((Rule("sync_c", "higher", 0.1, relative=True, bar=1.0),))


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Keys:
    return Keys(monkeypatch, tmp_path / "keys")


def evaluated(uri: str, name: str, folder: Path, value: float) -> int:
    version = registered(uri, name, folder, str(value).encode())
    record_evaluation(name, version, uri, evaluation(sync_c=value))
    return version


def test_what_is_signed_is_promoted_and_used(tmp_path: Path, store_uri: str, keys: Keys) -> None:
    keys.use("ours", signing=True, public=True)
    evaluated(store_uri, "signed", tmp_path / "one", 3.0)
    assert promote("signed", store_uri, policy=RULES).promoted
    keys.sign_no_more()
    assert promote("signed", store_uri, policy=RULES).promoted
    with pytest.raises(ModelFileError, match="not signed"):
        resolve("models:/signed@champion", store_uri)
    # The bundle itself was written without a key; the registry's statement alone is not enough.
    keys.use("ours", signing=True)
    Registry(store_uri).sign(Registry(store_uri).version("signed", 1))
    resolve("models:/signed@champion", store_uri)


def test_changed_tags_are_refused_by_name(tmp_path: Path, store_uri: str, keys: Keys) -> None:
    keys.use("ours", signing=True, public=True)
    registry = Registry(store_uri)
    evaluated(store_uri, "tags", tmp_path / "one", 3.0)
    promote("tags", store_uri, policy=RULES)
    worse = evaluated(store_uri, "tags", tmp_path / "two", 2.0)
    assert not promote("tags", store_uri, policy=RULES).promoted
    honest = registry.version("tags", worse).tags

    better = json.dumps({"protocol_digest": "same" * 8, **evaluation(sync_c=9.0)})
    for tag, value in ((EVALUATION_TAG, better), (DECISION_TAG, honest[DECISION_TAG] + " ")):
        registry.set_tags("tags", worse, {tag: value})
        with pytest.raises(ModelFileError, match=f"the tag {tag} of tags version {worse} is not"):
            promote("tags", store_uri, policy=RULES)
        registry.set_tags("tags", worse, {tag: honest[tag]})
    # Neither do the good numbers of another version help, although they are signed.
    good = registry.version("tags", 1).tags
    moved = {name: good[name] for name in (EVALUATION_TAG, f"{EVALUATION_TAG}.signature")}
    registry.set_tags("tags", worse, moved)
    with pytest.raises(ModelFileError, match=f"the tag {EVALUATION_TAG} of tags version {worse}"):
        promote("tags", store_uri, policy=RULES)
    assert registry.alias("tags", CHAMPION) == 1
    assert [each.version for each in read_moves(registry, "tags")] == [1]


def test_files_of_another_model_are_refused(tmp_path: Path, store_uri: str, keys: Keys) -> None:
    keys.use("ours", signing=True, public=True)
    registry = Registry(store_uri)
    registered(store_uri, "files", tmp_path / "one", b"one")
    number = registered(store_uri, "files", tmp_path / "two", b"two")
    first = registry.version("files", 1)
    registry.sign(first)
    names = ("bundle_digest", "bundle_digest.signature")
    registry.set_tags("files", number, {name: first.tags[name] for name in names})
    with pytest.raises(ModelFileError, match="the tag bundle_digest of files version 2 is not as"):
        registry.fetch(registry.version("files", number))
    bundle = registry.fetch(registry.version("files", 1))
    (bundle / "weights.bin").write_bytes(b"evil")
    with pytest.raises(ModelFileError, match="not those that were registered"):
        registry.fetch(registry.version("files", 1))


def test_what_is_not_signed_can_be_signed_later(tmp_path: Path, store_uri: str, keys: Keys) -> None:
    evaluated(store_uri, "later", tmp_path / "one", 3.0)
    keys.use("ours", public=True)
    with pytest.raises(ModelFileError, match="bundle_digest of later version 1 is not signed"):
        promote("later", store_uri, policy=RULES)
    keys.use("ours", signing=True)
    Registry(store_uri).sign(Registry(store_uri).version("later", 1))
    assert promote("later", store_uri, policy=RULES).promoted


def test_a_folder_without_signature_is_refused(tmp_path: Path, store_uri: str, keys: Keys) -> None:
    folder = make_bundle(tmp_path / "bundle")
    assert resolve(str(folder), store_uri) == folder
    keys.use("ours", public=True)
    with pytest.raises(ModelFileError, match="not signed"):
        resolve(str(folder), store_uri)
