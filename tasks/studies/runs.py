"""A study in MLflow: a run of its own, with the run of each training as its child."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.store.atomic import write_atomic
from tasks.registry.tracking import RunTracker, has_run
from tasks.studies.arms import Training
from tasks.studies.page import CLAIMS, CURVES, NUMBERS, PAGE, PLOT, TABLE
from tasks.studies.study import Study

RUN = "run.json"


@dataclass(frozen=True)
class StudyRun:
    """The study's run; the same one after an interruption."""

    uri: str
    run_id: str

    @classmethod
    def open(cls, folder: Path, uri: str, study: Study) -> "StudyRun":
        """Begin the run, or go on in the one of before."""
        path = folder / RUN
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        if known.get("uri") == uri and has_run(uri, known["run_id"]):
            RunTracker.attach(uri, known["run_id"]).resume()
            return cls(uri, known["run_id"])
        tracker = RunTracker(uri, f"study-{study.name}")
        run_id = tracker.start_run(f"study {study.name}", tags={"study": study.name})
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"uri": uri, "run_id": run_id}))
        return cls(uri, run_id)

    def adopt(self, run_id: str, training: Training) -> None:
        """Make the run of a training a child of the study's."""
        tags = {
            "mlflow.parentRunId": self.run_id,
            "mlflow.runName": f"{training.arm.name}, seed {training.seed}",
            "arm": training.arm.name,
            "seed": str(training.seed),
        }
        RunTracker.attach(self.uri, run_id).set_tags(tags)

    def finish(self, folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
        """Store table, page and plots, and close the run."""
        tracker = RunTracker.attach(self.uri, self.run_id)
        tracker.log_table(rows, "arms.json")
        for name in (PAGE, TABLE, CLAIMS, NUMBERS, PLOT, CURVES):
            if (folder / name).is_file():
                tracker.log_artifact(folder / name)
        tracker.end_run()

    def close(self, status: str) -> None:
        """Close the run before its end."""
        RunTracker.attach(self.uri, self.run_id).end_run(status)
