"""What nobody asks to change stays as the dataset's receipt says."""

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import UserError
from datasets.store.local import LocalStore
from flows.refresh_dataset import refresh_dataset
from flows.relabel_dataset import relabel_dataset
from tasks.ingest.config import IngestConfig
from tasks.ingest.verdicts import Thresholds
from tasks.publish.pack import PackConfig
from tasks.publish.receipt import RECEIPT
from tasks.publish.settings import Settings, differences, next_settings, settings_before
from tasks.sync.scorers import scorer_weights_digest
from tasks.sync.signals import SYNCNET_V2
from tasks.weights import by_name
from tasks.weights.store import find, weights_folder

BEFORE = Settings(
    IngestConfig(quality=True),
    Thresholds(min_confidence=4.5, max_yaw_deg=30.0),
    PackConfig(256, 0.4),
    "folder",
)


def following(
    before: Settings | None = BEFORE,
    ingest: IngestConfig | None = None,
    asked: dict[str, Any] | None = None,
    test_fraction: float | None = None,
    quality: bool | None = None,
    duplicates: str | None = None,
) -> Settings:
    config = ingest or IngestConfig()
    return next_settings(before, config, asked or {}, test_fraction, duplicates, quality, "folder")


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder with nothing in it, and where a few bytes pass for the real files."""
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setattr(by_name, "verified", lambda name: weights_folder() / find(name).file)
    return tmp_path / "weights"


@pytest.mark.parametrize("flow", [refresh_dataset, relabel_dataset])
def test_every_threshold_is_a_parameter_that_stays_as_it_was(flow: Any) -> None:
    parameters = inspect.signature(flow.fn).parameters
    for name in [*(each.name for each in fields(Thresholds)), "test_fraction"]:
        assert parameters[name].default is None


def test_what_is_not_asked_for_stays() -> None:
    assert following() == BEFORE
    asked = {"min_confidence": 5.0, "max_yaw_deg": None, "output": "elsewhere"}
    after = following(asked=asked, test_fraction=0.1, quality=False)
    assert after.thresholds == Thresholds(min_confidence=5.0, max_yaw_deg=30.0)
    assert (after.packing.test_fraction, after.ingest.quality) == (0.1, False)
    assert differences(BEFORE.thresholds, after.thresholds) == ["min_confidence 4.5 -> 5.0"]
    with pytest.raises(UserError, match="test fraction of 2"):
        following(test_fraction=2.0)


def test_a_new_dataset_has_the_defaults() -> None:
    after = following(None)
    assert (after.thresholds, after.packing) == (Thresholds(), PackConfig(256))


def test_another_scorer_has_other_units() -> None:
    after = following(ingest=IngestConfig(scorer="syncnet-v2"))
    assert after.thresholds == Thresholds(max_yaw_deg=30.0)


def test_weights_that_are_fetched_later_change_no_dataset(weights: Path) -> None:
    assert not following(None).ingest.quality
    file = weights / find("hyperiqa").file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert following(None).ingest.quality
    without = Settings(IngestConfig(), Thresholds(), PackConfig(256))
    assert not following(without).ingest.quality


def test_the_receipt_says_them(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert settings_before(store) is None
    receipt: dict[str, Any] = {
        "ingest": asdict(BEFORE.ingest),
        "thresholds": asdict(BEFORE.thresholds),
        "packing": asdict(BEFORE.packing),
        "source": BEFORE.source,
    }
    store.write(RECEIPT, json.dumps(receipt))
    assert settings_before(store) == BEFORE
    store.write(RECEIPT, json.dumps({"thresholds": {}}))
    assert settings_before(store) is None


def test_a_receipt_that_cannot_be_read_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: LocalStore, name: str) -> bytes:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(LocalStore, "read", broken)
    with pytest.raises(PermissionError):
        settings_before(LocalStore(tmp_path))


@pytest.fixture
def key(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def of(scorer: str, weights: str = "") -> dict[str, Any]:
        digest = scorer_weights_digest(scorer, weights)
        return IngestConfig(scorer=scorer, scorer_weights=weights, weights_digest=digest).key()

    return of


def test_weights_count_by_their_content(
    tmp_path: Path, weights: Path, key: Callable[..., dict[str, Any]]
) -> None:
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    before = key(SYNCNET_V2, str(first))
    assert key(SYNCNET_V2, str(second)) == before, "the same file elsewhere"
    first.write_bytes(b"others")
    assert key(SYNCNET_V2, str(first)) != before, "another file in its place"
    file = weights / find(SYNCNET_V2).file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert key(SYNCNET_V2) == before, "the one of the weights table"
    assert key("mouth-audio") == IngestConfig().key()


def test_a_folder_of_weights_counts_by_all_its_files(
    tmp_path: Path, key: Callable[..., dict[str, Any]]
) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "syncnet").mkdir(parents=True)
        (tmp_path / name / "syncnet" / "model.safetensors").write_bytes(b"x")
    assert key("stable-syncnet", str(tmp_path / "one")) == key(
        "stable-syncnet", str(tmp_path / "two")
    )
    (tmp_path / "two" / "config.json").write_text("{}")
    assert key("stable-syncnet", str(tmp_path / "one")) != key(
        "stable-syncnet", str(tmp_path / "two")
    )
