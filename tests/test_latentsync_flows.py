"""The command `latentsync-flows`: its list, its refusals, and that it works from any folder."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import latentsync_flows

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run code in a process that finds the repository as an editable install lets it."""
    return subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(ROOT)!r}); {code}"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_on_a_line(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert latentsync_flows.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in latentsync_flows.COMMANDS.items():
        assert [line.split() for line in lines].count([name, *command.about.split()]) == 1
    assert max(map(len, lines)) <= 100


def test_every_flow_is_a_command_named_as_its_file() -> None:
    modules = {f"flows.{path.stem}" for path in (ROOT / "flows").glob("[!_]*.py")}
    listed = {
        name: command.module
        for name, command in latentsync_flows.COMMANDS.items()
        if command.module.startswith("flows.")
    }
    assert set(listed.values()) == modules
    for name, module in listed.items():
        assert name == module.removeprefix("flows.").replace("_", "-")


@pytest.mark.parametrize("name", latentsync_flows.COMMANDS)
def test_every_command_explains_itself_under_its_own_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        latentsync_flows.main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: latentsync-flows {name} ")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("refesh-dataset", "did you mean refresh-dataset or relabel-dataset? "),
        ("lip_sync", "did you mean lip-sync? "),
        ("zzz", ""),
    ],
)
def test_an_unknown_command_is_refused_with_the_nearest(
    given: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert latentsync_flows.main([given]) == 2
    assert capsys.readouterr().err == (
        f"latentsync-flows: there is no command '{given}': {hint}--help lists all\n"
    )


def test_the_version_is_that_of_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert latentsync_flows.main(["--version"]) == 0
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert capsys.readouterr().out == f"latentsync-flows {about['project']['version']}\n"


def test_nothing_is_loaded_or_written_before_a_command_is_chosen(tmp_path: Path) -> None:
    code = (
        "import latentsync_flows; latentsync_flows.main(['--help']); "
        "ours = {'flows', 'tasks', 'models', 'datasets', 'torch', 'prefect', 'ray', 'mlflow'}; "
        "print('loaded', sorted(ours & set(sys.modules)))"
    )
    done = python(code, tmp_path)
    assert done.stdout.endswith("loaded []\n"), done.stderr
    assert not list(tmp_path.iterdir())


def test_paths_are_those_of_the_caller(tmp_path: Path) -> None:
    arguments = ["refresh-dataset", "--source", "folder", "--input", "none", "--output", "out"]
    done = python(f"import latentsync_flows as it; sys.exit(it.main({arguments}))", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "none" in done.stderr
    assert (tmp_path / "runs" / "prefect" / "prefect.db").is_file()


def test_no_wheel_is_made() -> None:
    code = f"import os; os.chdir({str(ROOT)!r}); import build_backend as it; it.build_wheel('x')"
    done = python(code, ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "pip install -e ." in done.stderr
