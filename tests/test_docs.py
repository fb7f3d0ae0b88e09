"""The documents say what is there: links lead somewhere, and command lines can be run."""

import argparse
import dataclasses
import importlib
import importlib.util
import inspect
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import pytest
import yaml

import latentsync_flows
from flows.support import cli
from tasks.ingest.verdicts import Thresholds
from tasks.weights.table import WEIGHTS
from tests.support.documents import Command, Document

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = {
    str(path.relative_to(ROOT)): Document(path)
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
}
MODULES = ("flows", "tasks", "models", "datasets", "benchmarks", "tests")
"""Packages whose modules `python -m` may name."""
OTHERS = ("cp", "export", "hf", "ray")
"""Programs in the documents that are neither ours nor of interest."""
FLOWS = {
    name: command.module
    for name, command in latentsync_flows.COMMANDS.items()
    if command.module.startswith("flows.") and name != "import-weights"
}
README_LINES = 150


def test_there_are_documents() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/flows.md", "docs/benchmarks.md"} <= {*DOCUMENTS}
    assert len(DOCUMENTS["README.md"].text.splitlines()) <= README_LINES


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tests_that_are_named_exist(name: str) -> None:
    for path, test in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", DOCUMENTS[name].text):
        assert (ROOT / path).is_file(), f"{name} names {path}"
        if test:
            text = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^def {test}\(", text, re.MULTILINE), f"{name} names {test}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    document = DOCUMENTS[name]
    for link in document.links:
        if "://" in link or link.startswith("mailto:"):
            continue
        place, _, anchor = link.partition("#")
        target = (document.path.parent / place).resolve() if place else document.path
        assert target.exists(), f"{name} links to {link}, which is not there"
        if anchor:
            assert anchor in Document(target).anchors, f"{name} links to {link}: no such heading"


def test_every_document_and_picture_is_linked_from_the_readme() -> None:
    readme = DOCUMENTS["README.md"]
    linked = {link.partition("#")[0] for link in readme.links}
    assert {*DOCUMENTS} - {"README.md"} <= linked
    pictures = {str(path.relative_to(ROOT)) for path in (ROOT / "docs/pictures").glob("*")}
    assert pictures <= linked, "a picture that nobody shows"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_of_the_repository_exist(name: str) -> None:
    for span in DOCUMENTS[name].spans:
        if re.fullmatch(rf"({'|'.join(MODULES)}|docs)/[\w/.-]+", span):
            assert (ROOT / span).exists(), f"{name} names {span}, which is not there"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_can_be_run(name: str) -> None:
    for command in DOCUMENTS[name].commands():
        try:
            check(command)
        except (AssertionError, SystemExit) as error:
            pytest.fail(f"{name}: {command}: {error}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_options_that_are_named_alone_exist(name: str) -> None:
    known = known_options()
    for span in DOCUMENTS[name].spans:
        if found := re.match(r"--[a-z][\w-]*", span):
            assert found[0] in known, f"{name} names {found[0]}, which no command has"


@pytest.mark.parametrize("name", FLOWS)
def test_all_parameters_of_a_flow_are_listed_with_their_defaults(name: str) -> None:
    rows = table_rows(DOCUMENTS["docs/flows.md"].section(name), "parameter")
    signature = inspect.signature(flow_of(FLOWS[name]))
    expected = {}
    for parameter in signature.parameters.values():
        if parameter.default is inspect.Parameter.empty:
            expected[f"`{parameter.name.upper()}`"] = "required"
        else:
            expected[f"`--{parameter.name.replace('_', '-')}`"] = shown(parameter.default)
    assert {row[0]: row[1] for row in rows} == expected
    assert [row[0] for row in rows] == [*expected], "in the order of --help"


def test_thresholds_of_a_new_dataset_are_those_of_the_code() -> None:
    rows = table_rows(DOCUMENTS["docs/flows.md"].section("refresh-dataset"), "parameter")
    said = {
        row[0].strip("`-").replace("-", "_"): found[1]
        for row in rows
        if (found := re.search(r"For a new dataset: ([\d.]+)\.", row[2]))
    }
    for field in dataclasses.fields(Thresholds):
        if field.default is not None:
            assert float(said[field.name]) == field.default, field.name


def test_the_table_of_weights_is_that_of_the_code() -> None:
    rows = table_rows(DOCUMENTS["docs/weights.md"].text, "name")
    assert rows == [[f"`{each.name}`", each.licence, each.needed_by] for each in WEIGHTS]


def test_every_benchmark_is_in_its_document() -> None:
    said = {span.split()[2] for span in DOCUMENTS["docs/benchmarks.md"].spans if "-m " in span}
    for path in (ROOT / "benchmarks").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "ArgumentParser" in text:
            assert f"benchmarks.{path.stem}" in said


def table_rows(text: str, first: str) -> list[list[str]]:
    """Cells of the table whose first column has that heading."""
    found, rows = False, []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if found and not line.startswith("|"):
            break
        if found:
            rows.append(cells)
        found = found or (line.startswith("|") and cells[0] == first)
    return rows[1:]


def shown(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if default is None or default == "":
        return ""
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def flow_of(module: str) -> Callable[..., Any]:
    """The function behind a flow's command."""
    flow = importlib.import_module(module).main.args[0]
    function: Callable[..., Any] = getattr(flow, "fn", flow)
    return function


class Parsed(Exception):
    """A command line was understood."""


@contextmanager
def only_parsing() -> Iterator[None]:
    """Commands end as soon as their arguments were parsed, with a `Parsed`."""
    whole = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> NoReturn:
        whole(self, *args, **kwargs)
        raise Parsed

    with patch.object(argparse.ArgumentParser, "parse_args", parse_args):
        yield


def check(command: Command) -> None:
    """Raise AssertionError or SystemExit where a command line of ours could not be run."""
    program, arguments = command.words[0].removeprefix(".venv/bin/"), command.arguments
    if program == "latentsync-flows":
        check_command(arguments, command.whole)
    elif program == "python" and arguments[:1] == ["-m"]:
        check_module(arguments[1], arguments[2:], command.whole)
    elif program == "make":
        check_make(arguments)
    elif program == "prefect":
        check_prefect(arguments, command.whole)
    elif program == "pip":
        check_pip(arguments)
    elif program == ".ci/run":
        assert os.access(ROOT / program, os.X_OK)
    else:
        assert not command.whole or program in OTHERS, "a program that nobody knows"


def check_command(arguments: list[str], whole: bool) -> None:
    if not arguments:
        return
    name, *rest = arguments
    assert name in latentsync_flows.COMMANDS, f"there is no command {name}"
    module = latentsync_flows.COMMANDS[name].module
    if rest or whole:
        parse(module, rest)


def check_module(name: str, arguments: list[str], whole: bool) -> None:
    if name.split(".")[0] not in MODULES:
        assert importlib.util.find_spec(name.split(".")[0]), f"there is no module {name}"
        if name == "pytest":
            files = [each for each in arguments if each.endswith(".py")]
            assert all((ROOT / each).is_file() for each in files), f"one of {files} is not there"
        return
    spec = importlib.util.find_spec(name)
    assert spec, f"there is no module {name}"
    if arguments or whole:
        parse(f"{name}.__main__" if spec.submodule_search_locations else name, arguments)


def parse(module: str, arguments: list[str]) -> None:
    """Let a command parse its arguments, and nothing more."""
    main = importlib.import_module(module).main
    if hasattr(main, "args"):
        cli.parse(main.args[0], arguments)
        return
    assert "ArgumentParser" in inspect.getsource(main), f"{module} parses nothing"
    with only_parsing(), pytest.raises(Parsed):
        main(arguments)


def check_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in arguments:
        if "=" in word:
            assert re.search(rf"^{word.partition('=')[0]} \?=", makefile, re.MULTILINE), word
        else:
            assert re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE), f"no target {word}"


def check_prefect(arguments: list[str], whole: bool) -> None:
    from cyclopts import CycloptsError
    from prefect.cli._app import _app

    if arguments[:1] == ["--no-prompt"]:
        arguments = arguments[1:]
    if not whole and len(arguments) < 2:
        return
    try:
        _app.parse_args(arguments, print_error=False, exit_on_error=False)
    except CycloptsError as error:
        raise AssertionError(str(error)) from error
    options = {before: after for before, after in pairwise(arguments) if before.startswith("-")}
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    if pool := options.get("--pool"):
        assert pool in {each["work_pool"]["name"] for each in deployments}, f"no pool {pool}"
    if arguments[:2] == ["deployment", "run"]:
        flow, _, name = arguments[2].partition("/")
        modules = {
            each["entrypoint"].partition(".py")[0].replace("/", ".")
            for each in deployments
            if each["name"] == name
        }
        assert FLOWS.get(flow) in modules, f"there is no deployment {flow}/{name}"
        known = inspect.signature(flow_of(FLOWS[flow])).parameters
        for option, pair in zip(arguments[3::2], arguments[4::2], strict=True):
            assert option == "-p", option
            assert pair.partition("=")[0] in known, f"{flow} has no parameter {pair}"


def check_pip(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if arguments == ["freeze"]:
        return
    assert arguments[:2] == ["install", "-e"], "only the editable install is offered"
    extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", arguments[2])
    assert extras, arguments[2]
    assert {*filter(None, (extras[1] or "").split(","))} <= {*project["optional-dependencies"]}


def known_options() -> set[str]:
    """All options of flows and of what has an `ArgumentParser`."""
    known = {"--no-", "--help"}
    for module in FLOWS.values():
        for name, parameter in inspect.signature(flow_of(module)).parameters.items():
            option = name.replace("_", "-")
            known.add(f"--{option}")
            if isinstance(parameter.default, bool) or "bool" in str(parameter.annotation):
                known.add(f"--no-{option}")
    for package in MODULES:
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "ArgumentParser" in text and not path.name.startswith("test_"):
                for option in re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", text):
                    known |= {option, option.replace("--", "--no-", 1)}
    # These are made in a loop.
    return known | {"--vae", "--whisper", "--syncnet"}


@pytest.mark.parametrize(
    "line",
    [
        "latentsync-flows lip-sync VIDEO AUDIO OUT.mp4 --lenght keep",
        "latentsync-flows lip-sync VIDEO AUDIO",
        "latentsync-flows lip-sink VIDEO AUDIO OUT.mp4",
        "latentsync-flows train-latentsync OUT --workers many",
        "latentsync-flows weights fetsh whisper-tiny",
        "latentsync-flows import-weights OUT --unet NAME",
        "python -m benchmarks.modles",
        "python -m benchmarks.models --sean",
        "python -m benchmarks.crop",
        "python -m tests.parity",
        "python -m models.convert a.pt",
        "python -m flows.lip_sync VIDEO AUDIO OUT.mp4 --fps fast",
        "make tests",
        "make demo DATE=/x",
        "prefect deployment run refresh-dataset/local -p sauce=folder",
        "prefect deployment run refresh/local",
        "prefect worker start --pool remote",
        "prefect server strat",
        "python -m pytest tests/test_nothing.py",
        "python -m no_such_package",
        "latentsync-flows promote-model && latentsync-flows lip-sync",
        "pip install -e '.[s4]'",
        "pip install latentsync-flows",
        "frobnicate runs/demo",
    ],
)
def test_a_command_line_that_cannot_be_run_is_noticed(line: str, tmp_path: Path) -> None:
    path = tmp_path / "document.md"
    path.write_text(f"```bash\n{line}\n```\n", encoding="utf-8")
    *_, command = Document(path).commands()
    with pytest.raises((AssertionError, SystemExit)):
        check(command)


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    path = tmp_path / "document.md"
    path.write_text(
        "# A `b.c` (d): e\n\n## Same\n\n## Same\n\n```\n# no heading\n```\n\n"
        "[a](#same) ![b](c.png)\n",
        encoding="utf-8",
    )
    document = Document(path)
    assert document.anchors == {"a-bc-d-e", "same", "same-1"}
    assert document.links == ["#same", "c.png"]
