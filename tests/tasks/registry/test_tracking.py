import threading
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from datasets.errors import UserError
from tasks.registry.tracking import RunTracker, check_uri, default_uri, has_run, quiet
from tests.support.fake_bundle import store_uri

__all__ = ["store_uri"]


def test_no_secret_reaches_the_store(store_uri: str) -> None:
    secret = "c4n4ry-of-mlflow"
    address = f"postgresql://ann:{secret}@host/db and https://host/a?sig={secret}"
    tracker = RunTracker(store_uri, "secrets")
    tracker.start_run("run", tags={"from": address})
    tracker.log_params({"input": address, "model": {"at": address}})
    tracker.set_tags({"again": address})
    tracker.log_json({"in": [address, {"deep": address}]}, "about.json")
    tracker.log_table([{"where": address}], "table.json")
    tracker.end_run()
    folder = Path(store_uri.removeprefix("sqlite:///")).parent
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(b"postgresql://host/db" in path.read_bytes() for path in files)
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_an_address_that_does_not_work_is_told_without_its_password() -> None:
    for uri in ("postgresql://ann:s3cr3t@127.0.0.1:1/db", "redis://:s3cr3t@host/0"):
        with pytest.raises(UserError) as caught:
            RunTracker(uri, "secrets")
        assert "s3cr3t" not in str(caught.value)


def test_curves_arrive_complete_and_in_order(store_uri: str) -> None:
    tracker = RunTracker(store_uri, "curves")
    run = tracker.start_run("syncnet")
    tracker.log_points([("loss", 1.0 / (1 + step), step) for step in range(1200)])
    tracker.log({"loss": 0.0}, 1200)
    assert tracker.points() == {("loss", step) for step in range(1201)}
    assert tracker.status() == "RUNNING"
    tracker.end_run()
    client = MlflowClient(store_uri)
    history = client.get_metric_history(run, "loss")
    assert [point.step for point in sorted(history, key=lambda each: each.step)] == [*range(1201)]
    assert client.get_run(run).info.status == "FINISHED"


def test_a_run_is_there_until_it_is_deleted(store_uri: str) -> None:
    run = RunTracker(store_uri, "there").start_run("x")
    assert has_run(store_uri, run)
    assert not has_run(store_uri, "0" * 32)
    MlflowClient(store_uri).delete_run(run)
    assert not has_run(store_uri, run)


def test_a_worker_attaches_to_a_run_under_a_parent(store_uri: str, tmp_path: Path) -> None:
    driver = RunTracker(store_uri, "workers")
    parent = driver.start_run("parent", tags={"recipe": "tiny"})
    child = RunTracker(store_uri, "workers").start_run("child", parent)
    worker = RunTracker.attach(store_uri, child)
    worker.log({"psnr_db": 30.0}, 3)
    worker.log_params({"lr": 1e-4, "model": {"a": 1}})
    worker.log_table([{"metric": "fid", "value": 3.0}, {"metric": "fvd", "n": 4}], "table.json")
    worker.log_json({"a": 1}, "about.json")
    file = tmp_path / "file.txt"
    file.write_text("hello")
    worker.log_artifact(file, "folder")
    client = MlflowClient(store_uri)
    run = client.get_run(child)
    assert worker.experiment == "workers"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.metrics == {"psnr_db": 30.0}
    assert run.data.params["lr"] == "0.0001"
    names = {item.path for item in client.list_artifacts(child)}
    assert names == {"table.json", "about.json", "folder"}


def test_the_artifacts_of_a_sqlite_store_lie_beside_it(store_uri: str) -> None:
    tracker = RunTracker(store_uri, "beside")
    tracker.start_run("x")
    folder = Path(store_uri.removeprefix("sqlite:///")).parent
    assert tracker.artifact_uri().startswith(folder.as_uri())


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "/tmp/x", "sqlite"])
def test_stores_that_cannot_work_are_refused(uri: str) -> None:
    with pytest.raises(UserError, match="cannot keep runs and models"):
        check_uri(uri)


def test_a_broken_store_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "not-a.db"
    file.write_text("this is no database")
    with pytest.raises(UserError, match="cannot be used"):
        RunTracker(f"sqlite:///{file}", "x")


def test_the_default_is_sqlite_in_the_given_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert default_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert default_uri() == "http://127.0.0.1:1"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert default_uri() == f"sqlite:///{Path('runs/mlflow.db').resolve()}"


def test_what_the_main_thread_says_is_not_swallowed_by_another(
    store_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inside, done = threading.Event(), threading.Event()

    def work() -> None:
        with quiet():
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(30)
    print("step 5 of 10")
    done.set()
    thread.join()
    assert capsys.readouterr().out == "step 5 of 10\n"
    with quiet():
        print("a note of a library")
    assert capsys.readouterr().out == ""
