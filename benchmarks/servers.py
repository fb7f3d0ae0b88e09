"""Servers of MLflow and Prefect on this machine, for benchmarks of what goes wrong around flows."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_S = 180.0
"""Seconds that a server may take to start."""


@dataclass
class Server:
    """A server that can be killed and started again at the same address."""

    command: list[str]
    health: str
    """Address that answers once it serves."""
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

    @property
    def address(self) -> str:
        return self.health.removesuffix("/health")

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


def ask_prefect(api: str, what: str, filters: dict[str, Any] | None = None) -> Any:
    """The answer of Prefect's server to a POST."""
    request = urllib.request.Request(
        f"{api}/{what}", json.dumps(filters or {}).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return json.load(answer)
