"""A Prefect server for the duration of a flow, where the user has none."""

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets.errors import UserError
from flows.support.environment import STARTUP_S, has_server


@contextmanager
def prefect_server() -> Iterator[str | None]:
    """A Prefect server for the duration of the block, unless the user has one.

    Prefect would start one itself, but that one ends at the same Ctrl-C as the flow, which
    then cannot report its end, and it is left behind after a `kill -9`.

    Yields:
        its address; None where the user's own is used.

    Raises:
        UserError: it did not start; its log says why.
    """
    if has_server():
        yield None
        return
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    home = Path(PREFECT_HOME.value())
    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    log = home / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(port), *sys.path],
            stdout=output,
            stderr=output,
            env=os.environ | {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"},
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}/api"
        _wait_until_healthy(server, url, log)
        with temporary_settings({PREFECT_API_URL: url}):
            try:
                yield url
            finally:
                _send_last_logs()
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


# It runs in the folder of the flow and finds the same modules, since relative paths among the
# settings of Prefect and of Python refer to that folder.
_SERVE = """
import sys
sys.path[:] = sys.argv[2:]
from tasks.runtime.processes import die_with_parent
die_with_parent()
import uvicorn
uvicorn.run("prefect.server.api.server:create_app", factory=True, host="127.0.0.1",
            port=int(sys.argv[1]), log_level="error", lifespan="on")
"""


def _send_last_logs() -> None:
    """Prefect sends logs in the background and complains when its server has gone."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name).handlers:
            handler.flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + STARTUP_S
    # Proxies named in the environment must not be used for this machine's own address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end and server.poll() is None:
        try:
            with opener.open(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    if server.poll() is None:
        raise UserError(f"Prefect's own server did not answer within {STARTUP_S:g} s: see {log}")
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
    raise UserError(f"Prefect's own server ended while starting ({last}): see {log}")
