import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

from datasets.errors import UserError
from models.files.errors import ModelFileError
from tasks.registry.tracking import quiet
from tasks.registry.versions import (
    CANDIDATE,
    EVALUATION_TAG,
    Registry,
    record_evaluation,
    register,
    resolve,
    set_alias,
)
from tests.support.fake_bundle import (
    ABOUT,
    evaluation,
    make_bundle,
    registered,
    store_uri,
    whole_evaluation,
)

__all__ = ["store_uri"]


def test_a_registered_bundle_comes_back_as_it_was(store_uri: str, tmp_path: Path) -> None:
    version = registered(store_uri, "roundtrip", tmp_path / "bundle", b"these")
    assert Registry(store_uri).alias("roundtrip", CANDIDATE) == version
    set_alias("roundtrip", "champion", version, store_uri)
    for reference in ("models:/roundtrip@champion", f"models:/roundtrip/{version}"):
        folder = resolve(reference, store_uri)
        assert (folder / "weights.bin").read_bytes() == b"these"
        assert folder != tmp_path / "bundle"
    tags = Registry(store_uri).version("roundtrip", version).tags
    assert tags["resolution"] == "64"
    assert tags["dataset_digest"] == ABOUT["dataset_digest"]


def test_a_version_in_a_remote_store_is_fetched_whole_and_once(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = registered(store_uri, "remote", tmp_path / "bundle", b"far")
    version = Registry(store_uri).version("remote", number)
    there = Path(version.source.removeprefix("file://")) / "artifacts"
    version = replace(version, source="s3://bucket/model")
    asked: list[str] = []

    def bring(artifact_uri: str, dst_path: str, tracking_uri: str) -> str:
        asked.append(artifact_uri)
        came = shutil.copytree(there, Path(dst_path) / "artifacts")
        if len(asked) == 1:
            raise KeyboardInterrupt
        return str(came)

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", bring)
    cache = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        Registry(store_uri).fetch(version, cache)
    assert not [path for path in tmp_path.glob("cache/*") if path.suffix != ".lock"]
    for _ in range(2):
        folder = Registry(store_uri).fetch(version, cache)
        assert (folder / "weights.bin").read_bytes() == b"far"
        assert folder.parent.parent == cache
    assert asked == ["s3://bucket/model/artifacts"] * 2


def test_a_training_that_goes_on_leaves_its_earlier_version_as_it_was(
    store_uri: str, tmp_path: Path
) -> None:
    """Both are registered under the one run of the training."""
    first = registered(store_uri, "further", tmp_path / "one", b"first")
    run_id = Registry(store_uri).version("further", first).run_id
    second = register(make_bundle(tmp_path / "two", b"second"), "further", store_uri, run_id)
    assert second == first + 1
    for number, content in ((first, b"first"), (second, b"second")):
        bundle = resolve(f"models:/further/{number}", store_uri)
        assert (bundle / "weights.bin").read_bytes() == content


def test_the_same_bundle_of_the_same_run_is_one_version(store_uri: str, tmp_path: Path) -> None:
    version = registered(store_uri, "once", tmp_path / "bundle", b"x")
    run_id = Registry(store_uri).version("once", version).run_id
    assert register(tmp_path / "bundle", "once", store_uri, run_id) == version
    assert registered(store_uri, "once", tmp_path / "other", b"x") == version + 1


def test_mlflow_loads_the_model_from_code_and_notices_other_files(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with quiet():
        import mlflow.pyfunc

    version = registered(store_uri, "loads", tmp_path / "bundle", b"x")
    registry = Registry(store_uri)
    source = registry.version("loads", version).source
    with quiet():
        loaded = mlflow.pyfunc.load_model(source)
    assert type(loaded.unwrap_python_model()).__name__ == "LipSyncModel"
    assert loaded.metadata.metadata["bundle"]["resolution"] == 64
    given: list[dict[str, Any]] = []
    model = loaded.unwrap_python_model()

    def predict(_: Any, __: Any, table: Any, params: dict[str, Any]) -> Any:
        given.append(params)
        return table

    monkeypatch.setattr(type(model), "predict", predict)
    paths = {"video": ["a.mp4"], "audio": ["a.wav"], "output": ["b.mp4"]}
    loaded.predict(pandas.DataFrame(paths), params={"steps": 3, "fps": 25.0})
    assert given[0]["steps"] == 3
    assert given[0]["fps"] == 25.0
    assert given[0]["seed"] == 1247
    folder = resolve(f"models:/loads/{version}", store_uri)
    (folder / "weights.bin").write_bytes(b"y")
    with pytest.raises(ModelFileError, match="not those that were registered"):
        resolve(f"models:/loads/{version}", store_uri)
    with pytest.raises(Exception, match="not those that were registered"):
        mlflow.pyfunc.load_model(source)


def test_unknown_models_are_answered_with_what_exists(store_uri: str, tmp_path: Path) -> None:
    registered(store_uri, "known", tmp_path / "bundle", b"x")
    with pytest.raises(UserError, match=r"there is no .*known has versions 1"):
        resolve("models:/unknown@champion", store_uri)
    with pytest.raises(UserError, match="there is no known version 7"):
        resolve("models:/known/7", store_uri)
    with pytest.raises(UserError, match="is not a model address"):
        resolve("models:/known@a@b", store_uri)
    with pytest.raises(UserError, match="there is no model folder"):
        resolve(str(tmp_path / "absent"), store_uri)
    with pytest.raises(UserError, match="there is no registry at"):
        resolve("models:/known@champion", f"sqlite:///{tmp_path}/absent.db")


def test_bundles_that_contradict_themselves_are_refused(store_uri: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "config.json").write_text(json.dumps({"resolution": 128, "audio": "mel"}))
    with pytest.raises(ModelFileError, match=r"resolution 64, config\.json says 128"):
        resolve(str(folder), store_uri)
    (folder / "bundle.json").write_text("{")
    with pytest.raises(ModelFileError, match="is not a model bundle"):
        resolve(str(folder), store_uri)
    (folder / "bundle.json").write_text(json.dumps({"recipe": "tiny"}))
    with pytest.raises(ModelFileError, match="does not have resolution"):
        resolve(str(folder), store_uri)


def test_an_evaluation_is_kept_with_its_protocol_and_judge(store_uri: str, tmp_path: Path) -> None:
    version = registered(store_uri, "measured", tmp_path / "bundle", b"m")
    metrics = evaluation(fid=1234567.0, ssim=0.5)["metrics"]
    content = whole_evaluation(metrics, protocol_digest="clips")
    content["metrics"]["lmd"] = {"value": None, "label": "x", "n": 0, "reason": "no face"}
    record_evaluation("measured", version, store_uri, content, "models:/measured/1")
    kept = Registry(store_uri).version("measured", version)
    assert kept.json_tag(EVALUATION_TAG) == {
        "protocol_digest": "clips",
        "metrics": content["metrics"],
        "judge": "models:/measured/1",
    }
    measured = {name: text for name, text in kept.tags.items() if name.startswith("metric.")}
    assert measured == {"metric.fid": "1.23457e+06", "metric.ssim": "0.5"}
    # Measured again without a judge of another model: nothing of before is left.
    record_evaluation("measured", version, store_uri, content)
    again = Registry(store_uri).version("measured", version).json_tag(EVALUATION_TAG)
    assert again is not None
    assert "judge" not in again
