"""The command `latentsync-flows`: its list, its refusals, and that it works from any folder."""

import os
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import latentsync_flows

ROOT = Path(__file__).resolve().parents[1]


def bare_environment() -> dict[str, str]:
    """Of somebody who has set nothing up; importing `flows` here has set up Prefect."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def python(code: str, cwd: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run code in a process that finds the repository as an editable install lets it."""
    return subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.append({str(ROOT)!r}); {code}"],
        cwd=cwd,
        env=bare_environment() | env,
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


@pytest.mark.parametrize("name", ["flows", "tasks", "models", "datasets"])
@pytest.mark.parametrize("command", ["weights", "lip-sync", "refresh-dataset"])
def test_a_foreign_package_is_named_in_one_sentence(
    tmp_path: Path, name: str, command: str
) -> None:
    foreign = tmp_path / "site" / name / "__init__.py"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("raise AssertionError('imported')\n", encoding="utf-8")
    code = f"import latentsync_flows as it; it.main([{command!r}, '--help'])"
    done = python(code, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert f"is {ROOT / name / '__init__.py'}, but Python finds {foreign} first" in done.stderr
    assert "environment of its own" in done.stderr


@pytest.mark.parametrize("name", ["tasks", "models", "datasets"])
def test_a_flow_as_a_module_names_it_too(tmp_path: Path, name: str) -> None:
    # A file is enough: a `models.py` in the folder comes before all packages.
    foreign = tmp_path / f"{name}.py"
    foreign.write_text("", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "flows.refresh_dataset", "--help"],
        cwd=tmp_path,
        env=bare_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert f"Python finds {foreign} first" in done.stderr


def test_a_folder_that_is_no_package_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    code = "import latentsync_flows as it; it.refuse_foreign_packages(); print('ours')"
    assert python(code, tmp_path, PYTHONPATH=str(tmp_path)).stdout == "ours\n"


def test_prefect_is_set_up_before_it_is_imported(tmp_path: Path) -> None:
    code = "import flows.lip_sync; from prefect.settings import PREFECT_HOME as home; "
    done = python(code + "print(home.value())", tmp_path)
    assert done.stdout == f"{tmp_path / 'runs' / 'prefect'}\n", done.stderr


def test_paths_are_those_of_the_caller(tmp_path: Path) -> None:
    arguments = ["refresh-dataset", "--source", "folder", "--input", "none", "--output", "out"]
    done = python(f"import latentsync_flows as it; sys.exit(it.main({arguments}))", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "none" in done.stderr
    assert (tmp_path / "runs" / "prefect" / "prefect.db").is_file()


def test_what_an_install_takes_fits_the_lock() -> None:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert about["scripts"] == {"latentsync-flows": "latentsync_flows:main"}
    assert callable(latentsync_flows.main)
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked: dict[str, str] = {
        canonicalize_name(name): version for name, version in (x.split("==") for x in lines)
    }
    # The lock is installed without checking what packages require.
    headless = locked.pop("opencv-contrib-python-headless")
    locked |= {"opencv-python": headless, "opencv-contrib-python": headless}
    named = set()
    for text in chain(about["dependencies"], *about["optional-dependencies"].values()):
        wanted = Requirement(text)
        named.add(canonicalize_name(wanted.name))
        if wanted.name != about["name"]:
            assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), text
    asked = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    asked_names = {canonicalize_name(Requirement(text).name) for text in asked}
    assert named - {about["name"], "opencv-python", "opencv-contrib-python"} == asked_names - {
        "opencv-contrib-python-headless"
    }


def test_no_wheel_is_made() -> None:
    code = f"import os; os.chdir({str(ROOT)!r}); import build_backend as it; it.build_wheel('x')"
    done = python(code, ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "pip install -e ." in done.stderr
