"""Signatures of what a registry says about a version: its files, its evaluation, its decision.

Tags can be changed by anybody who can write to the store. Each statement names the model, and
what it belongs to, so that it cannot be moved to another version either.
"""

from collections.abc import Mapping

from tasks.weights.signing import check, public_keys, sign

REGISTERED = "bundle_digest"
"""The tag that stands for the files."""
SUFFIX = ".signature"
"""What the name of a tag's signature adds to that of the tag."""


def registration_tags(name: str, run_id: str, digest: str) -> dict[str, str]:
    """The tag that signs which files a version has; none without a key to sign with."""
    return _tag(REGISTERED, _registration(name, run_id, digest))


def statement_tags(name: str, tag: str, text: str, digest: str) -> dict[str, str]:
    """A tag of a version with its signature, if there is a key to sign with.

    Args:
        name: the model's.
        tag: the tag's.
        text: its value.
        digest: of the files that it is about.
    """
    return {tag: text, **_tag(tag, _statement(name, tag, text, digest))}


def check_registration(name: str, version: int, run_id: str, tags: Mapping[str, str]) -> None:
    """Check which files a version has, if signatures are asked for.

    Raises:
        ModelFileError: that is not signed by one of the keys.
    """
    statement = _registration(name, run_id, tags.get(REGISTERED, ""))
    _check(REGISTERED, statement, name, version, tags)


def check_statement(name: str, version: int, tag: str, tags: Mapping[str, str]) -> None:
    """Check a tag, if it is set and signatures are asked for.

    Raises:
        ModelFileError: it is not signed by one of the keys.
    """
    if tag in tags:
        statement = _statement(name, tag, tags[tag], tags.get(REGISTERED, ""))
        _check(tag, statement, name, version, tags)


def _check(
    tag: str, statement: dict[str, str], name: str, version: int, tags: Mapping[str, str]
) -> None:
    if public_keys():
        check(statement, tags.get(tag + SUFFIX, ""), f"the tag {tag} of {name} version {version}")


def _tag(tag: str, statement: dict[str, str]) -> dict[str, str]:
    signature = sign(statement)
    return {tag + SUFFIX: signature} if signature else {}


def _registration(name: str, run_id: str, digest: str) -> dict[str, str]:
    return {"model": name, "run": run_id, REGISTERED: digest}


def _statement(name: str, tag: str, text: str, digest: str) -> dict[str, str]:
    return {"model": name, "tag": tag, "value": text, REGISTERED: digest}
