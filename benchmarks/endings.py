"""Whether trainings that are ended in any way leave nothing behind.

    python -m benchmarks.endings [--endings 15] [--seed 0] [--json FILE]      about 1 min an ending

One training of the recipe `debug` is ended again and again at random moments, each time in a way
that is drawn by the seed: Ctrl-C, SIGTERM to all of its processes, SIGTERM to the flow alone (what
Prefect's worker does to cancel a run), and SIGKILL of the flow, of the process that trains, and of
Ray's node. A training that outlives the death of its worker is told to end by SIGTERM. Wanted each
time: all processes are gone within 30 s. At the end it is started once more and must finish with
0; then no run may be RUNNING, and every curve must have each point once.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.servers import ask_prefect, servers, wait_for
from benchmarks.servers_away import ROUND_S, check_training, training
from tasks.registry.tracking import client
from tasks.runtime.processes import ROOT

WAYS = ("Ctrl-C", "SIGTERM", "cancelled", "flow killed", "worker killed", "node killed")
NAMES = {"worker killed": "ray::RayTrainWorker", "node killed": "raylet"}
"""What is killed: the beginning of a command line, or a program's name."""
STEPS = {"syncnet.steps": 1500, "stage1.steps": 300, "stage2.steps": 20, "autoencoder.steps": 60}
MARK = "LATENTSYNC_BENCHMARK"
"""Name of an environment variable by which a training's processes are told from others."""
LONGEST_S = 30.0
"""Latest moment of an ending, seconds after the first step of training."""
GONE_S, GOES_ON_S = 30.0, 20.0
"""Seconds that processes get to end, and that a training gets to end by itself after a death."""


@dataclass
class Ending:
    """One of them."""

    way: str
    after_s: float
    exit: int
    orphans: int
    """Processes that were still there after `GONE_S`."""


def family(mark: str) -> list[psutil.Process]:
    """All processes that carry the mark."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def is_called(process: psutil.Process, name: str) -> bool:
    with suppress(psutil.Error):
        return bool(process.name() == name or " ".join(process.cmdline()).startswith(name))
    return False


def end(flow: "subprocess.Popen[bytes]", way: str, mark: str) -> None:
    """End a training that is under way."""
    if way in NAMES:
        for process in family(mark):
            if is_called(process, NAMES[way]):
                with suppress(psutil.Error):
                    process.kill()
        with suppress(subprocess.TimeoutExpired):
            flow.wait(GOES_ON_S)
        if flow.poll() is None:
            flow.terminate()
    elif way == "cancelled":
        flow.terminate()
    elif way == "flow killed":
        flow.kill()
    else:
        os.killpg(flow.pid, signal.SIGINT if way == "Ctrl-C" else signal.SIGTERM)


def one_ending(
    command: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    output: Path,
    way: str,
    after_s: float,
) -> Ending:
    """Start the training, end it, and look at what is left."""
    mark = uuid.uuid4().hex
    before = steps(output)
    flow = start(command, {**env, MARK: mark}, log)
    wait_for(lambda: flow.poll() is not None or steps(output) > before, ROUND_S, "a first step")
    with suppress(subprocess.TimeoutExpired):
        flow.wait(after_s)
    if flow.poll() is None:
        end(flow, way, mark)
    code = flow.wait(ROUND_S)
    until = time.monotonic() + GONE_S
    while family(mark) and time.monotonic() < until:
        time.sleep(0.5)
    left = family(mark)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    return Ending(way, round(after_s, 1), code, len(left))


def start(command: Sequence[str], env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", *command],
            cwd=ROOT,
            env=dict(env),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def steps(output: Path) -> int:
    """Lines of all curves so far."""
    return sum(len(each.read_bytes().splitlines()) for each in output.glob("*/metrics.jsonl"))


def run(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """All endings and the last start."""
    chosen = random.Random(seed)
    ways = [WAYS[number % len(WAYS)] for number in range(count)]
    chosen.shuffle(ways)
    both = servers(folder)
    for each in both.values():
        each.start()
    try:
        uri, api = both["mlflow"].address, both["prefect"].address
        command, _ = training(folder, uri, STEPS)
        output, log = folder / "out", folder / "flow.log"
        env = {**both["prefect"].env, "PREFECT_API_URL": api}
        endings = []
        for way in ways:
            after_s = chosen.uniform(0.0, LONGEST_S)
            endings.append(one_ending(command, env, log, output, way, after_s))
            print(json.dumps(asdict(endings[-1])), flush=True)
        code = start(command, env, log).wait(ROUND_S)
        if code:
            print("\n".join(log.read_text(errors="replace").splitlines()[-15:]), flush=True)
        store = client(uri)
        (experiment,) = [each for each in store.search_experiments() if each.name == "latentsync"]
        runs = store.search_runs([experiment.experiment_id])
        flows = [each["state_name"] for each in ask_prefect(api, "flow_runs/filter")]
        return {
            "endings": [asdict(each) for each in endings],
            "orphans": sum(each.orphans for each in endings),
            "last_exit": code,
            "mlflow_running": sum(each.info.status == "RUNNING" for each in runs),
            "prefect_states": {name: flows.count(name) for name in sorted(set(flows))},
            **check_training(output, uri),
        }
    finally:
        for each in both.values():
            each.kill()


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line an ending, and what was left; exit code 1 if anything was."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.endings",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--endings", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="endings-") as temporary:
        found = run(Path(temporary), options.endings, options.seed)
    left = {name: value for name, value in found.items() if name != "endings"}
    print(json.dumps(left), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    clean = not (found["orphans"] or found["last_exit"] or found["mlflow_running"])
    running = found["prefect_states"].get("Running", 0)
    return int(not (clean and not running and found["curves_wrong"] == 0))


if __name__ == "__main__":
    raise SystemExit(main())
