"""Words of clips. Alignment with real speech is in `tests/real/test_closure_real.py`."""

from pathlib import Path

import numpy as np
import pytest

from datasets.errors import UserError
from tasks.evaluate.closure import Spoken
from tasks.evaluate.transcripts import NO_TRANSCRIPT, Transcripts, align, words_of

NOISE = (0.1 * np.random.default_rng(0).standard_normal(32000)).astype(np.float32)


def test_words_are_those_of_the_dictionary() -> None:
    assert words_of("Don\u2019t stop, BOB!\n(Please.)") == ["don't", "stop", "bob", "please"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (" ...\n", "the transcript is empty"),
        ("bin blue 2", "the aligner's dictionary has no word '2'"),
        ("bin blue qwrtzp", "the aligner's dictionary has no word 'qwrtzp'"),
    ],
)
def test_words_that_cannot_be_aligned_are_a_reason(text: str, why: str) -> None:
    assert align(text, NOISE) == Spoken(reason=why)


def test_words_that_were_not_said_are_a_reason() -> None:
    text = "a transcript of considerable length which nobody could pronounce in two seconds"
    assert align(text, NOISE).reason == "the transcript does not fit the speech"
    assert align("bin blue", NOISE[:100]).reason == "the transcript does not fit the speech"


def test_words_are_found_by_the_name_of_the_clip(tmp_path: Path) -> None:
    (tmp_path / "a-00.txt").write_text("bin blue", encoding="utf-8")
    (tmp_path / "b-00.txt").write_text("", encoding="utf-8")
    words = Transcripts(tmp_path)
    assert words.text("a-00") == "bin blue"
    assert words.text("a") is None
    assert words.spoken("a", NOISE) == Spoken(reason=NO_TRANSCRIPT)
    assert words.spoken("b-00", NOISE).reason == "the transcript is empty"
    assert Transcripts().spoken("a-00", NOISE) == Spoken(reason=NO_TRANSCRIPT)


def test_the_digest_is_of_what_is_said_in_the_clips(tmp_path: Path) -> None:
    words = Transcripts(tmp_path)
    assert words.digest(["a", "b"]) == Transcripts().digest(["a", "b"]) == ""
    (tmp_path / "a.txt").write_text("bin")
    first = words.digest(["a", "b"])
    assert first == words.digest(["b", "a", "a"]) != ""
    (tmp_path / "c.txt").write_text("of no clip")
    assert words.digest(["a", "b"]) == first
    (tmp_path / "b.txt").write_text("blue")
    assert words.digest(["a", "b"]) != first


def test_a_folder_or_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder of transcripts .*absent"):
        Transcripts(tmp_path / "absent")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"a\.txt cannot be read"):
        Transcripts(tmp_path).text("a")
