"""Real lips close at p, b and m of what they say, and not at those of another sentence."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.closure import Sentence, measure, read_sentences, sentence_of
from tasks.evaluate.closure import CLOSED

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def sentences(shared: Path) -> list[Sentence]:
    return read_sentences(shared / "clips")


def test_names_spell_sentences() -> None:
    assert sentence_of("bbaf2n") == "bin blue at f two now"
    assert sentence_of("swizzs") == "set white in z zero soon"


def test_all_sounds_are_found(sentences: list[Sentence]) -> None:
    for sentence in sentences:
        assert not sentence.spoken.reason
        words = sentence_of(sentence.name).split()
        closing = sum(word[0] in "bpm" for word in words)
        assert len(sentence.spoken.closures) == closing, sentence.name
        assert 0.2 < sentence.spoken.begin_s < 1.0
        assert 1.5 < sentence.spoken.end_s < 3.0


def test_lips_close_at_their_own_sounds_alone(sentences: list[Sentence]) -> None:
    found = {kind: np.array(each) for kind, each in measure(sentences).items()}
    assert len(found["own"]) == 11
    assert found["own"].max() < 0.1 < CLOSED
    assert np.median(found["own"]) == pytest.approx(0.02, abs=0.01)
    assert (found["foreign"] < CLOSED).mean() < 0.4
    assert np.median(found["foreign"]) > 0.3
