"""Runs, curves and files in MLflow, without its global state.

The driver starts runs; a worker elsewhere only needs `RunTracker.attach(uri, run_id)`. Points
of curves are sent many at a time. Locally everything is one SQLite file with
a folder of artifacts next to it; MLflow's file store no longer works and is refused.
"""

import contextlib
import io
import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.errors import UserError
from datasets.redact import redact, redact_all

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"
BATCH = 500
"""Points in one request; MLflow takes at most 1000."""
SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
PARAM_LIMIT = 6000
"""Longest value of a parameter that MLflow stores."""


def default_uri(home: Path | str | None = None) -> str:
    """The default store for runs: `MLFLOW_TRACKING_URI`, otherwise SQLite in a folder.

    Args:
        home: folder of the SQLite file. If given, it wins over the environment, so that a
            run with its own folder stays within it; None means `runs`.
    """
    from_environment = os.environ.get("MLFLOW_TRACKING_URI", "")
    if home is None and from_environment:
        return from_environment
    return f"sqlite:///{Path(home or 'runs').resolve() / DATABASE}"


def check_uri(uri: str) -> str:
    """`uri` with an absolute path, if it is one that MLflow can serve a registry from.

    Raises:
        UserError: it is a folder or an unknown kind of address.
    """
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme not in SCHEMES or ("://" not in uri and scheme != "databricks"):
        raise UserError(
            f"{uri!r} cannot keep runs and models: give sqlite:///FILE.db or the address of an "
            "MLflow server"
        )
    path = sqlite_path(uri)
    return f"sqlite:///{path.resolve()}" if path else uri


def sqlite_path(uri: str) -> Path | None:
    """The file behind a SQLite address; None for every other address."""
    prefix = "sqlite:///"
    return Path(uri[len(prefix) :]) if uri.startswith(prefix) else None


def client(uri: str) -> "MlflowClient":
    """A client of the store, without MLflow's chatter. Creates a missing SQLite file.

    Raises:
        UserError: the address is of an unknown kind, or the store cannot be written to.
    """
    uri = check_uri(uri)
    path = sqlite_path(uri)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # An unreachable server is reported within seconds instead of after minutes of silent retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    with quiet():
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
        from sqlalchemy.exc import SQLAlchemyError

        try:
            found = MlflowClient(tracking_uri=uri, registry_uri=uri)
            found.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise UserError(
                f"the MLflow store {uri} cannot be used ({first_line}): check the address"
            ) from error
        except ImportError as error:
            raise UserError(
                f"the MLflow store {uri} needs a library that is not installed: {error}"
            ) from error
    return found


def has_run(uri: str, run_id: str) -> bool:
    """Whether a store has a run that was not deleted.

    Raises:
        UserError: the store cannot be used.
    """
    from mlflow.exceptions import MlflowException

    try:
        return str(client(uri).get_run(run_id).info.lifecycle_stage) == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence notes and warnings of MLflow, its database migrations and retries in the block."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3.connectionpool")]
    levels = [logger.level for logger in loggers]
    with contextlib.ExitStack() as stack:
        # Output and filters of warnings belong to the whole process: in another thread this would
        # swallow what the main one says.
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


class RunTracker:
    """One MLflow run at a time.

    Args:
        uri: the store, see `default_uri`.
        experiment: its name; created if it is missing. One per model is the convention.

    Raises:
        UserError: the store cannot be used.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = check_uri(uri)
        self.experiment = experiment
        self.run_id = ""
        self._client = client(self.uri)
        self._experiment_id = self._find_or_make(experiment)

    @classmethod
    def attach(cls, uri: str, run_id: str) -> "RunTracker":
        """A tracker for a run that somebody else started, on any machine."""
        tracker = cls.__new__(cls)
        tracker.uri = check_uri(uri)
        tracker.run_id = run_id
        tracker._client = client(tracker.uri)
        run = tracker._client.get_run(run_id)
        tracker._experiment_id = run.info.experiment_id
        tracker.experiment = tracker._client.get_experiment(run.info.experiment_id).name
        return tracker

    def _find_or_make(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            path = sqlite_path(self.uri)
            location = (path.parent / ARTIFACTS / name).as_uri() if path else None
            try:
                return str(self._client.create_experiment(name, artifact_location=location))
            except MlflowException:
                # Another process has created it meanwhile.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def start_run(
        self, name: str, parent: str | None = None, tags: dict[str, str] | None = None
    ) -> str:
        """Start a run and make it this tracker's.

        Args:
            name: shown in lists.
            parent: id of the run that this one is a part of.
            tags: further texts for finding it.

        Returns:
            The run's id.
        """
        all_tags = {"mlflow.runName": name, **redact_all(tags or {})}
        if parent:
            all_tags["mlflow.parentRunId"] = parent
        run = self._client.create_run(self._experiment_id, run_name=name, tags=all_tags)
        self.run_id = str(run.info.run_id)
        return self.run_id

    def end_run(self, status: str = "FINISHED") -> None:
        """Close the run: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status=status)

    def log(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Send one point of each of these curves."""
        self.log_points([(name, float(value), step) for name, value in metrics.items()])

    def log_points(self, points: Sequence[tuple[str, float, int]]) -> None:
        """Send points (name, value, step), many at a time."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for start in range(0, len(points), BATCH):
            part = points[start : start + BATCH]
            metrics = [Metric(name, value, now, step) for name, value, step in part]
            self._client.log_batch(self.run_id, metrics=metrics)

    def points(self) -> set[tuple[str, int]]:
        """Name and step of every point that the run has."""
        names = self._client.get_run(self.run_id).data.metrics
        return {
            (name, int(point.step))
            for name in names
            for point in self._client.get_metric_history(self.run_id, name)
        }

    def status(self) -> str:
        """RUNNING, FINISHED, FAILED or KILLED."""
        return str(self._client.get_run(self.run_id).info.status)

    def resume(self) -> None:
        """Let a run that was closed go on."""
        self._client.update_run(self.run_id, status="RUNNING")

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record the configuration of the run."""
        from mlflow.entities import Param

        entries = [Param(name, redact(str(value))[:PARAM_LIMIT]) for name, value in params.items()]
        for start in range(0, len(entries), 100):
            self._client.log_batch(self.run_id, params=entries[start : start + 100])

    def log_dataset(
        self, name: str, digest: str, source: str, profile: Mapping[str, object]
    ) -> None:
        """Record which dataset the run learns from; a second time changes nothing.

        Args:
            name: shown in lists.
            digest: of its content.
            source: folder or address.
            profile: counts that describe it.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            # MLflow keeps at most 36 characters of a digest.
            name=name,
            digest=digest[:36],
            source_type="local" if "://" not in source else source.partition("://")[0],
            source=json.dumps({"uri": redact(source)}),
            profile=json.dumps(dict(profile)),
        )
        context = InputTag("mlflow.data.context", "training")
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, [context])])

    def set_tags(self, tags: dict[str, str]) -> None:
        """Set tags of the run."""
        for name, value in tags.items():
            self._client.set_tag(self.run_id, name, redact(str(value)))

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or all files of a folder, to the run's artifacts."""
        if Path(path).is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def log_json(self, content: Any, name: str) -> None:
        """Store a JSON document among the run's artifacts."""
        self._client.log_text(
            self.run_id,
            json.dumps(redact_all(content), indent=2, ensure_ascii=False) + "\n",
            name,
        )

    def log_table(self, rows: Sequence[Mapping[str, object]], name: str) -> None:
        """Store rows as a table that MLflow's page shows; `name` ends in .json."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        data = {column: [redact_all(row.get(column)) for row in rows] for column in columns}
        with quiet():
            self._client.log_table(self.run_id, data=data, artifact_file=name)

    def artifact_uri(self) -> str:
        """Where the run's artifacts are."""
        return str(self._client.get_run(self.run_id).info.artifact_uri)
