"""Prefect's settings without a server of the user's, and a server that leaves nothing."""

import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import psutil
import pytest

from flows.support.environment import HOME, has_server, local_environment

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Prefect setting in the environment, and a home of one's own."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_without_a_server_prefect_lives_under_runs() -> None:
    local_environment()
    assert os.environ["PREFECT_HOME"] == str(HOME.absolute())
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]


def test_folders_above_the_home_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "new" / "runs" / "prefect"))
    local_environment()
    assert (tmp_path / "new" / "runs" / "prefect").is_dir()
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
    local_environment()
    assert "PREFECT_HOME" not in os.environ
    # Also their server may go away for a while.
    assert os.environ["PREFECT_CLIENT_MAX_RETRIES"] == "9"


@pytest.mark.parametrize(("active", "found"), [("work", True), ("none", False)])
def test_a_profile_with_a_server_counts(tmp_path: Path, active: str, found: bool) -> None:
    assert not has_server()
    folder = tmp_path / ".prefect"
    folder.mkdir()
    text = f'active = "{active}"\n[profiles.work]\nPREFECT_API_URL = "http://x/api"\n'
    (folder / "profiles.toml").write_text(text + "[profiles.none]\n", encoding="utf-8")
    assert has_server() is found


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (".env", 'PREFECT_API_URL="http://x/api"\n'),
        ("prefect.toml", '[api]\nurl = "http://x/api"\n'),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://x/api"\n'),
    ],
)
def test_a_server_in_a_file_of_the_folder_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    """Prefect itself reads these, and its word is the standard."""
    monkeypatch.chdir(tmp_path)
    assert not has_server()
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert has_server()
    code = "from prefect.settings import PREFECT_API_URL; print(PREFECT_API_URL.value())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "http://x/api"


def test_a_profile_that_a_file_names_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = '[profiles.team]\nPREFECT_API_URL = "http://x/api"\n'
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    (tmp_path / ".env").write_text(
        f"PREFECT_PROFILES_PATH={tmp_path}/mine.toml\nPREFECT_PROFILE=team\n", encoding="utf-8"
    )
    assert has_server()


def test_the_server_dies_with_a_killed_flow(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from flows.support.prefect_local import prefect_server
        from prefect.settings import PREFECT_API_URL
        with prefect_server():
            print(PREFECT_API_URL.value(), flush=True)
            sys.stdin.read()
        """
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PREFECT_HOME": str(tmp_path / "prefect")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    url = owner.stdout.readline().strip()
    with urllib.request.urlopen(f"{url}/health", timeout=30) as answer:
        assert answer.read() == b"true"
    family = psutil.Process(owner.pid).children(recursive=True)
    assert family
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate()
    assert not psutil.wait_procs(family, timeout=30)[1]
    assert (tmp_path / "prefect" / "prefect.db").is_file()
