"""Whether a training and a refresh outlive their servers: MLflow and Prefect are killed and come
back later.

    python -m benchmarks.servers_away [--rounds 5] [--seconds 60] [--mlflow-seconds 180]

In each round the recipe `debug` is trained on a generated dataset with servers of its own on this
machine. Once the sync network's curve grows, MLflow is killed with SIGKILL and started again after
some time; then the same with Prefect; then Prefect is killed while six generated videos are
refreshed. Wanted: the command ends with 0, every run is FINISHED, the flow run is Completed, and
MLflow has each point of each curve once; a refresh has a row for each video. A round takes about
8 minutes, most of them waiting.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet

from benchmarks.servers import Server, ask_prefect, servers, wait_for
from datasets.sample.make import make_sample
from tasks.registry.tracking import client
from tasks.runtime.processes import ROOT
from tests.support.talking_boxes import make_dataset

STEPS = {"syncnet.steps": 240, "stage1.steps": 60, "stage2.steps": 4, "autoencoder.steps": 6}
ROUND_S = 1500.0
VIDEOS = 6


def training(
    folder: Path, tracking: str, steps: Mapping[str, int] = STEPS
) -> tuple[list[str], Path]:
    """The command, and the file that has content once it is well under way."""
    dataset, output = make_dataset(folder / "dataset"), folder / "out"
    overrides = [f"--overrides={name}={count}" for name, count in steps.items()]
    command = ["flows.train_latentsync", str(dataset), *overrides, "--output", str(output)]
    command += ["--recipe", "debug", "--tracking-uri", tracking]
    return command, output / "syncnet" / "metrics.jsonl"


def refresh(folder: Path) -> tuple[list[str], Path]:
    """The same for a refresh."""
    make_sample(folder / "videos", clips=VIDEOS, seconds=(4.0, 5.0))
    command = ["flows.refresh_dataset", str(folder / "videos"), "--output", str(folder / "out")]
    return command, folder / "out" / "refresh.json"


def one_round(folder: Path, what: str, away: str, seconds: float) -> dict[str, Any]:
    """Run a flow once while one server is away for a while; what was found afterwards."""
    folder.mkdir(parents=True)
    both = servers(folder)
    for each in both.values():
        each.start()
    uri, api = both["mlflow"].address, both["prefect"].address
    command, under_way = training(folder, uri) if what == "training" else refresh(folder)
    began = time.monotonic()
    with (folder / "flow.log").open("wb") as log:
        flow = subprocess.Popen(
            [sys.executable, "-u", "-m", *command],
            cwd=ROOT,
            env={**both["prefect"].env, "PREFECT_API_URL": api},
            stdout=log,
            stderr=log,
        )
        wait_for(
            lambda: (
                flow.poll() is not None or (under_way.is_file() and under_way.stat().st_size > 99)
            ),
            ROUND_S,
            f"{under_way} to grow",
        )
        both[away].kill()
        time.sleep(seconds)
        both[away].start()
        code = flow.wait(ROUND_S)
    found = {"what": what, "away": away, "seconds": time.monotonic() - began, "exit": code}
    try:
        found |= (
            check_training(folder / "out", uri) if what == "training" else check_refresh(folder)
        )
        found["flow"] = states(api)
    finally:
        _kill(both)
    return found


def _kill(both: dict[str, Server]) -> None:
    for each in both.values():
        each.kill()


def check_training(output: Path, uri: str) -> dict[str, Any]:
    """Statuses of runs, and how many curves miss points or have some twice."""
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    store = client(uri)
    wrong = 0
    for stage, run in record["stages"].items():
        lines = (output / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        wanted = [json.loads(line)["step"] for line in lines]
        wrong += sorted(each.step for each in store.get_metric_history(run, "loss")) != wanted
    runs = [record["run_id"], *record["stages"].values()]
    return {
        "runs": sorted({store.get_run(run).info.status for run in runs}),
        "curves_wrong": wrong,
    }


def check_refresh(folder: Path) -> dict[str, Any]:
    """How many of the videos have no row."""
    table = pyarrow.parquet.read_table(folder / "out" / "ledger.parquet")
    return {"videos_missing": VIDEOS - len(set(table["path"].to_pylist()))}


def states(api: str) -> list[str]:
    """Names of the states of all flow runs."""
    return sorted({each["state_name"] for each in ask_prefect(api, "flow_runs/filter")})


def held(found: dict[str, Any]) -> bool:
    return bool(
        found["exit"] == 0
        and found.get("runs", ["FINISHED"]) == ["FINISHED"]
        and found.get("flow") == ["Completed"]
        and found.get("curves_wrong", 0) == found.get("videos_missing", 0) == 0
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line a round; exit code 1 if anything was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.servers_away",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each of the three")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long Prefect is away")
    parser.add_argument("--mlflow-seconds", type=float, default=180.0, help="how long MLflow is")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    results = []
    kinds = [
        ("training", "mlflow", options.mlflow_seconds),
        ("training", "prefect", options.seconds),
        ("refresh", "prefect", options.seconds),
    ]
    with tempfile.TemporaryDirectory(prefix="servers-away-") as temporary:
        for number in range(options.rounds):
            for what, away, seconds in kinds:
                folder = Path(temporary) / f"{what}-{away}-{number}"
                found = one_round(folder, what, away, seconds)
                results.append(found)
                print(f"{'held' if held(found) else 'LOST'}  {json.dumps(found)}", flush=True)
                if not held(found):
                    tail = (folder / "flow.log").read_text(errors="replace").splitlines()[-15:]
                    print("\n".join(tail), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return int(not all(held(each) for each in results))


if __name__ == "__main__":
    raise SystemExit(main())
