"""Where Prefect keeps its things when nobody has set up a server, and a server to go with it.

Prefect reads its settings when it is imported, so every flow's file starts with

    from flows.support.prefect_local import local_environment

    local_environment(None)

and only then imports prefect. Someone who has set `PREFECT_API_URL`, or a profile with one,
keeps their own server and settings.
"""

import logging
import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datasets.errors import UserError

HOME = Path("runs/prefect")
"""Kept across runs: making Prefect's SQLite file takes longer than starting its server."""
STARTUP_S = 300.0
"""The first start makes the SQLite file; on a machine that is busy otherwise that takes long."""

_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(int(STARTUP_S)),
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_CLI_PROMPT": "false",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


def local_environment(home: Path | None = None) -> None:
    """Set what Prefect and Ray read from the environment, unless the user has set it.

    Args:
        home: folder of Prefect's SQLite file; None: `runs/prefect`.
    """
    if has_server():
        return
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    folder = os.environ.setdefault("PREFECT_HOME", str((home or HOME).absolute()))
    # Prefect warns instead of making the folders above its own; what else is wrong with the
    # place it says itself.
    with suppress(OSError):
        Path(folder).expanduser().mkdir(parents=True, exist_ok=True)


def has_server() -> bool:
    """Whether the user has named a Prefect server, by variable or by active profile."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    folder = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH", folder / "profiles.toml"))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    active = os.environ.get("PREFECT_PROFILE", content.get("active", ""))
    return "PREFECT_API_URL" in content.get("profiles", {}).get(active, {})


@contextmanager
def prefect_server() -> Iterator[str | None]:
    """A Prefect server for the time of the block, unless the user has one.

    Prefect would start one itself, but one that ends at the same Ctrl-C as the flow, which
    then cannot report its end, and that stays behind after a `kill -9`.

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


# It runs where the flow was called and finds what the flow finds, since relative paths among the
# settings of Prefect and of Python are of that folder.
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
    # Proxies of the environment have no business on this machine's own address.
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
    raise UserError(f"Prefect's own server ended at its start ({last}): see {log}")
