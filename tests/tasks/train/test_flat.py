"""A sync network that does not learn is noticed, with what its data says about why."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.recipes.recipe import recipe
from tasks.train.context import Stores
from tasks.train.flat import CHANCE, FlatLoss, flat_note
from tests.support.talking_boxes import make_dataset


def said(losses: list[float], every: int = 10) -> list[int]:
    flat = FlatLoss()
    points = enumerate(losses, 1)
    return [number * every for number, loss in points if flat(number * every, loss, every)]


def test_chance_is_named_once_within_500_steps() -> None:
    assert said([CHANCE + 0.01] * 100) == [300]
    # Later, too, if it begins to learn and falls back, and only once.
    assert said([CHANCE] * 10 + [0.5] * 25 + [CHANCE] * 60) == [500]


def test_a_network_that_learns_is_left_alone() -> None:
    assert said([CHANCE * math.exp(-step / 200) for step in range(100)]) == []
    assert said([CHANCE] * 25 + [0.6] * 60) == []
    assert said([CHANCE] * 25) == []


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(make_dataset(tmp_path_factory.mktemp("data") / "d"))


def test_likely_causes_are_looked_up(stores: Stores) -> None:
    config = recipe("debug").syncnet
    note = flat_note(stores.train(64), replace(config, batch_size=48), 1)
    assert "ln 2 = 0.693" in note
    likely, others = note.split("not striking: ")
    assert "likely causes: batch: 48 samples per step" in likely
    assert "speech: in" in note
    assert "alignment: mouths spread by" in note
    # As many samples by several workers are not a small batch.
    of_four = flat_note(stores.train(64), replace(config, batch_size=64), 4)
    assert "batch: 256 samples" in of_four.split("not striking: ")[1]
    assert others


def test_silence_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Stores(make_dataset(tmp_path / "d")).train(64)
    real = store.audio

    def mostly_silent(clip: str) -> object:
        sound = real(clip).copy()
        sound[len(sound) // 5 :] = 0
        return sound

    monkeypatch.setattr(store, "audio", mostly_silent)
    note = flat_note(store, replace(recipe("debug").syncnet, batch_size=256), 1)
    likely = note.split("not striking")[0]
    assert "speech: in" in likely
