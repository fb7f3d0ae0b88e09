"""What may be seen of addresses and of what libraries say."""

import pickle

import pytest

from datasets.errors import Reason, SourceError, StoreError, UserError
from datasets.redact import redact, redact_all, without_signature

S = "c4n4ry/S3cret+x="
"""A secret, with signs that addresses use otherwise."""
PLAIN = "c4n4ryS3cret9"
TEXTS = [
    f"postgresql://ann:{PLAIN}@db:5432/runs",
    f"(psycopg2.OperationalError) postgresql+psycopg2://ann:{S}@db/runs failed",
    f"mysql://ann:p@{PLAIN}@db/x",
    f"redis://:{PLAIN}@cache/0",
    f"https://ann:{PLAIN}@host:80/a.mp4",
    f"https://{PLAIN}@host/a",
    f"https://ann:a/{PLAIN}@host/a",
    f"GET https://host/a.mp4?X-Amz-Signature={PLAIN}&x=1: 403",
    f"'https://host/a.mp4?anything={PLAIN}'",
    f"https://host/a#access_token={PLAIN}.",
    f'no connection to "http://host/b.mp4%3FX-Amz-Signature%3D{PLAIN}"; given up',
    f"Authorization: Bearer {PLAIN}",
    f"{{'Authorization': 'Basic {PLAIN}'}}",
    f"proxy-authorization: {PLAIN}",
    f"Authorization: AWS4-HMAC-SHA256 Credential=A/{PLAIN}, Signature={PLAIN}",
    f"sent bearer {PLAIN}.{PLAIN}",
    f"Cookie: session={PLAIN}; other={PLAIN}",
    f"/a.mp4?sv=1&sig={PLAIN}",
    f"X-Amz-Security-Token={PLAIN}",
    f"access_token={PLAIN}&b",
    f"password='{PLAIN}'",
    f'{{"aws_secret_access_key": "{PLAIN}"}}',
    f"hf_{PLAIN}{PLAIN}",
    "AKIAC4N4RYS3CRET9XYZ",
    "eyJhbGciOiJIUzI1c4n4ryS3cret9.eyJzdWIiOiIx.sig",
]


@pytest.mark.parametrize("text", TEXTS)
def test_secrets_are_taken_out(text: str) -> None:
    seen = redact(text)
    assert "c4n4ry" not in seen.lower()
    assert redact(seen) == seen, "and what is left stays as it is"


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8080/@ann/talk.mp4 is missing",
        "s3://bucket/a b.mp4, and gs://bucket/c",
        "sqlite:////home/ann/mlflow.db",
        "hf_hub and sk-learn, tokens=25, a token of 16 samples",
        "password: give one",
        "cannot be read: no basic authentication",
        "C:/a/b?c#d, talk?id=7 and www.youtube.com/watch?v=dQw4w9WgXcQ",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_addresses_keep_their_place_and_the_sentence_its_end() -> None:
    text = redact("(see https://ann:pw@host/a.mp4?b=1#c), or ftp://u:p@h.")
    assert text == "(see https://host/a.mp4), or ftp://h."


def test_what_the_environment_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "correct horse battery")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:pa%20per@/db:stapler@host/db")
    monkeypatch.setenv("A_TOKEN_FILE", "/home/ann/token")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    seen = redact("correct horse battery, correct horse, at /home/ann/token, abc")
    assert seen == "[AWS_SECRET_ACCESS_KEY], [MLFLOW_TRACKING_PASSWORD], at /home/ann/token, abc"


def test_private_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF"
    key = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"
    assert redact(f"read {key} now") == "read [removed] now"
    assert body not in redact(f"cut short: {key[:60]}")
    # Once it is known, no line of it gets out alone.
    monkeypatch.setenv("ANY_NAME", key.replace("\n", "\\n"))
    assert redact(f"cannot decode {body}") == "cannot decode [ANY_NAME]"
    public = key.replace("PRIVATE", "PUBLIC")
    monkeypatch.setenv("ANY_NAME", public)
    assert redact(public) == public


def test_errors_hold_no_secret_and_travel_between_processes() -> None:
    text = f"https://ann:{PLAIN}@host/a?b={PLAIN} cannot be read"
    told = "https://host/a cannot be read"
    for error in (UserError(text), StoreError(text), SourceError(Reason.UNREADABLE, text)):
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
        assert str(again).endswith(told)
        assert not any(PLAIN in str(each) for each in (*error.args, *vars(error).values()))


def test_tables_and_lists() -> None:
    value = {"a": ["sig=abcdefgh", 1, None], "b": {"c": "x"}}
    assert redact_all(value) == {"a": ["sig=[removed]", 1, None], "b": {"c": "x"}}


@pytest.mark.parametrize(
    ("address", "known"),
    [
        (
            "https://h/a.mp4?X-Amz-Date=1&X-Amz-Signature=2&response-content-type=v",
            "https://h/a.mp4",
        ),
        ("https://h/a?x-goog-signature=1&userProject=2", "https://h/a"),
        ("https://h/a?Expires=1&Signature=2&Key-Pair-Id=3", "https://h/a"),
        ("https://h/a?Policy=1&Signature=2&Key-Pair-Id=3", "https://h/a"),
        ("https://h/a?AWSAccessKeyId=1&Signature=2&Expires=3", "https://h/a"),
        ("https://h/a?sv=2&st=3&se=4&sr=b&sp=r&sig=5", "https://h/a"),
        ("https://h/get?id=7&token=2", "https://h/get?id=7"),
        ("https://h/get?token=2&id=7#t=3", "https://h/get?id=7#t=3"),
        ("https://h/a?access_token=1", "https://h/a"),
        ("https://h/a?key=hf_abcdefghijk&v=1", "https://h/a?v=1"),
        ("https://h/a?v=1#access_token=2", "https://h/a?v=1"),
    ],
)
def test_a_signature_is_no_part_of_what_an_address_is_known_by(address: str, known: str) -> None:
    assert without_signature(address) == known


@pytest.mark.parametrize(
    "address",
    [
        "https://www.youtube.com/watch?v=dQw4w9WgXcQ&t=7s",
        "https://h/get?id=7&&b#c",
        "https://h/get?",
        "https://h/a?se=1&sv=2",
        "s3://bucket/a?b.mp4",
    ],
)
def test_what_is_not_signed_stays_to_the_byte(address: str) -> None:
    assert without_signature(address) == address
