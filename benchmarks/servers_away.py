"""Whether a training outlives its servers: MLflow and Prefect are killed and come back later.

    python -m benchmarks.servers_away [--rounds 5] [--seconds 60] [--json FILE]     3 min a round

Each round trains the recipe `debug` on a generated dataset with servers of its own on this
machine. Once the sync network's curve grows, one of the two servers is killed with SIGKILL and
started again after some seconds; the next round takes the other. Wanted: the command ends with 0,
every run is FINISHED, the flow run is Completed, and MLflow has each point of each curve once.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.registry.tracking import client
from tasks.runtime.processes import ROOT
from tests.support.talking_boxes import make_dataset

STEPS = {"syncnet.steps": 240, "stage1.steps": 60, "stage2.steps": 4, "autoencoder.steps": 6}
START_S, ROUND_S = 180.0, 1500.0


@dataclass
class Server:
    """A server that can be killed and started again at the same address."""

    command: list[str]
    health: str
    log: Path
    env: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, stdout=output, stderr=output, env=self.env, start_new_session=True
            )
        wait_for(self.answers, START_S, f"{self.health} to answer, see {self.log}")

    def answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.health, timeout=2):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def wait_for(ready: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def servers(folder: Path) -> dict[str, Server]:
    """MLflow and Prefect with stores of their own."""
    env = {name: each for name, each in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    mlflow, prefect = free_port(), free_port()
    return {
        "mlflow": Server(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", str(mlflow), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ],
            f"http://127.0.0.1:{mlflow}/health",
            folder / "mlflow.log",
            env,
        ),
        "prefect": Server(
            [
                *(sys.executable, "-m", "prefect", "server", "start"),
                *("--host", "127.0.0.1", "--port", str(prefect)),
            ],
            f"http://127.0.0.1:{prefect}/api/health",
            folder / "prefect.log",
            env,
        ),
    }


def one_round(folder: Path, away: str, seconds: float) -> dict[str, Any]:
    """Train once while one server is away for a while; what was found afterwards."""
    folder.mkdir(parents=True)
    dataset, output = make_dataset(folder / "dataset"), folder / "out"
    both = servers(folder)
    for each in both.values():
        each.start()
    uri = both["mlflow"].health.removesuffix("/health")
    api = both["prefect"].health.removesuffix("/health")
    overrides = [f"--overrides={name}={steps}" for name, steps in STEPS.items()]
    began = time.monotonic()
    with (folder / "train.log").open("wb") as log:
        command = [sys.executable, "-u", "-m", "flows.train_latentsync", str(dataset), *overrides]
        flow = subprocess.Popen(
            [*command, "--output", str(output), "--recipe", "debug", "--tracking-uri", uri],
            cwd=ROOT,
            env={**both["prefect"].env, "PREFECT_API_URL": api},
            stdout=log,
            stderr=log,
        )
        curve = output / "syncnet" / "metrics.jsonl"
        wait_for(
            lambda: flow.poll() is not None or (curve.is_file() and curve.stat().st_size > 500),
            ROUND_S,
            f"{curve} to grow",
        )
        both[away].kill()
        time.sleep(seconds)
        both[away].start()
        code = flow.wait(ROUND_S)
    found = {"away": away, "seconds": time.monotonic() - began, "exit": code}
    try:
        found |= check(output, uri, api)
    finally:
        for each in both.values():
            each.kill()
    return found


def check(output: Path, uri: str, api: str) -> dict[str, Any]:
    """Statuses of runs and flow, and points that are missing or there twice."""
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    store = client(uri)
    wrong = 0
    for stage, run in record["stages"].items():
        lines = (output / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        wanted = [json.loads(line)["step"] for line in lines]
        wrong += sorted(each.step for each in store.get_metric_history(run, "loss")) != wanted
    runs = [record["run_id"], *record["stages"].values()]
    request = urllib.request.Request(
        f"{api}/flow_runs/filter", b"{}", {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        states = sorted({each["state_name"] for each in json.load(answer)})
    return {
        "runs": sorted({store.get_run(run).info.status for run in runs}),
        "flow": states,
        "curves_wrong": wrong,
    }


def held(found: dict[str, Any]) -> bool:
    return bool(
        found["exit"] == 0
        and found.get("runs") == ["FINISHED"]
        and found.get("flow") == ["Completed"]
        and found.get("curves_wrong") == 0
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line a round; exit code 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers_away", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="for each of the two servers")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a server is away")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory(prefix="servers-away-") as temporary:
        for number in range(options.rounds):
            for away in ("mlflow", "prefect"):
                folder = Path(temporary) / f"{away}-{number}"
                found = one_round(folder, away, options.seconds)
                results.append(found)
                print(f"{'held' if held(found) else 'LOST'}  {json.dumps(found)}", flush=True)
                if not held(found):
                    tail = (folder / "train.log").read_text(errors="replace").splitlines()[-15:]
                    print("\n".join(tail), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return int(not all(held(each) for each in results))


if __name__ == "__main__":
    raise SystemExit(main())
