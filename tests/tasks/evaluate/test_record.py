from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tasks.evaluate.clips import CLIP_LIST
from tasks.evaluate.record import find_judge, log_evaluation, make_table, with_judge
from tasks.evaluate.run import CONTACT_SHEET, DETAILS, EVALUATION, PLOTS
from tasks.evaluate.table import MEASUREMENTS
from tasks.recipes.evaluation import EvaluationConfig
from tasks.registry.versions import Registry, record_evaluation, resolve
from tests.support.fake_bundle import evaluation, registered, store_uri, whole_evaluation

__all__ = ["store_uri"]


def test_every_later_model_is_judged_by_the_first_champions_judge(
    store_uri: str, tmp_path: Path
) -> None:
    name, config = "judged", EvaluationConfig()
    registry = Registry(store_uri)
    first = registered(store_uri, name, tmp_path / "1", b"1")
    assert with_judge(config, name, store_uri) == (config, "")
    registry.set_alias(name, "champion", first)
    chosen, judge = with_judge(config, name, store_uri)
    assert judge == f"models:/{name}/{first}"
    assert chosen.judge_bundle == str(resolve(judge, store_uri))

    second = registered(store_uri, name, tmp_path / "2", b"2")
    record_evaluation(name, second, store_uri, evaluation(fid=1.0), judge)
    registry.set_alias(name, "champion", second)
    assert find_judge(registry, name) == judge
    weights = EvaluationConfig(syncnet_weights="syncnet_v2.model")
    assert with_judge(weights, name, store_uri) == (weights, "")


def test_a_champion_of_another_mask_is_no_judge(store_uri: str, tmp_path: Path) -> None:
    name, config = "outdated-judge", EvaluationConfig()
    registry = Registry(store_uri)
    first = registered(store_uri, name, tmp_path / "1", b"1")
    registry.set_alias(name, "champion", first)
    registry.set_tags(name, first, {"crop": "wider"})
    assert with_judge(config, name, store_uri) == (config, "")


def test_the_numbers_become_a_run_with_pictures(store_uri: str, tmp_path: Path) -> None:
    name = "logged"
    number = registered(store_uri, name, tmp_path / "1", b"1")
    version = Registry(store_uri).version(name, number)
    for file in (EVALUATION, DETAILS, CLIP_LIST, CONTACT_SHEET, PLOTS, MEASUREMENTS):
        (tmp_path / file).write_text("content")
    metrics = evaluation(fid=1.25, ssim=0.5)["metrics"]
    content = whole_evaluation(metrics, config={"steps": 4}, clips=["a", "b"])
    content["strata"] = {"speaker": {"somebody": metrics}}
    content["metrics"]["lmd"] = {"value": None, "label": "none", "n": 0}
    run_id = log_evaluation(content, tmp_path, store_uri, name, version)
    client = MlflowClient(store_uri)
    run = client.get_run(run_id)
    assert run.data.metrics == {"fid": 1.25, "ssim": 0.5}
    assert run.data.params == {"steps": "4", "clips_used": "2"}
    assert run.data.tags["mlflow.parentRunId"] == version.run_id
    names = {item.path for item in client.list_artifacts(run_id)}
    files = {EVALUATION, DETAILS, CLIP_LIST, CONTACT_SHEET, PLOTS, MEASUREMENTS}
    assert names == {*files, "metrics.json", "strata.json"}


def test_a_table_says_why_a_value_is_missing() -> None:
    metrics = evaluation(fid=1.0)["metrics"]
    metrics["lmd"] = {"value": None, "label": "x", "n": 0, "reason": "no face"}
    assert [row["no value because"] for row in make_table(metrics)] == ["", "no face"]


def test_a_table_has_a_row_per_metric() -> None:
    rows = make_table(evaluation(fid=1.23456)["metrics"])
    assert rows == [
        {
            "metric": "fid",
            "value": pytest.approx(1.2346),
            "low": None,
            "high": None,
            "n": 4,
            "measured by": "test",
        }
    ]
