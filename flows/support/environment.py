"""What Prefect and Ray read from the environment when nobody has set it.

Prefect reads its settings when it is imported, so `flows/__init__.py` sets them: it is imported
before any file of `flows`. A user who has named a server, in whichever of Prefect's places, keeps
it and their settings.
"""

import os
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

HOME = Path("runs/prefect")
"""Kept across runs: making Prefect's SQLite file takes longer than starting its server."""
STARTUP_S = 300.0
"""How long Prefect's own server may take to start: the first start creates the SQLite file, which
takes long on a busy machine."""

_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(int(STARTUP_S)),
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_CLI_PROMPT": "false",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


RETRIES = {"PREFECT_CLIENT_MAX_RETRIES": "9"}
"""With pauses that double, a run waits 17 minutes for a server that has gone away; Prefect's own 5
are one minute."""


def local_environment() -> None:
    """Set the variables that Prefect and Ray read, unless the user has set them."""
    for name, value in RETRIES.items():
        os.environ.setdefault(name, value)
    if has_server():
        return
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    folder = os.environ.setdefault("PREFECT_HOME", str(HOME.absolute()))
    # Prefect warns instead of creating the folders above its own; anything else wrong with the
    # place it reports itself.
    with suppress(OSError):
        Path(folder).expanduser().mkdir(parents=True, exist_ok=True)


def has_server() -> bool:
    """Whether the user has named a Prefect server: by variable, in `.env`, `prefect.toml` or
    `pyproject.toml` of the current folder, or by the active profile."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    in_file = dotenv_values(".env")
    if in_file.get("PREFECT_API_URL"):
        return True
    own, shared = _toml(Path("prefect.toml")), _toml(Path("pyproject.toml"))
    if any(
        "url" in each.get("api", {}) for each in (own, shared.get("tool", {}).get("prefect", {}))
    ):
        return True

    def setting(name: str, default: str) -> str:
        return os.environ.get(name) or in_file.get(name) or default

    folder = Path(setting("PREFECT_HOME", "~/.prefect")).expanduser()
    content = _toml(Path(setting("PREFECT_PROFILES_PATH", str(folder / "profiles.toml"))))
    active = setting("PREFECT_PROFILE", content.get("active", ""))
    return "PREFECT_API_URL" in content.get("profiles", {}).get(active, {})


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
