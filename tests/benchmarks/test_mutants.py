"""The mutation check on a repository of a few lines: what it catches, misses and refuses."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from benchmarks.mutants import MutationCheck, main
from benchmarks.mutants_table import Fault, locate, read_table
from benchmarks.mutants_tests import ImportGraph

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "shop/__init__.py": "from shop.inner.price import total\n",
    "shop/inner/__init__.py": "",
    "shop/inner/price.py": """
        TAX = 2


        def total(price):
            return price * TAX


        def unused(price):
            return price - 1
        """,
    "shop/till.py": """
        from shop.inner import price


        def pay(amount):
            return price.total(amount) + 1
        """,
    "shop/alone.py": "VALUE = 1\n",
    "tests/__init__.py": "",
    "tests/helper.py": "from shop.till import pay\n",
    "tests/conftest.py": "import shop.alone\n",
    "tests/test_price.py": """
        from shop import total


        def test_total():
            assert total(3) == 6


        def test_that_fails_anyway():
            assert total(1) == 5
        """,
    "tests/test_till.py": """
        from tests.helper import pay


        def test_pay():
            assert pay(3) == 7
        """,
    "tests/e2e/test_slow.py": "from shop.inner.price import total\n",
}
TABLE = """
    [[fault]]
    file = "shop/**/*.py"
    text = "price * TAX"
    instead = "price + TAX"
    wrong = "the tax is added"

    [[fault]]
    file = "**/price.py"
    text = "return price - 1"
    instead = "return price - 2"
    wrong = "nobody looks at this"
    """


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"))
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return written(tmp_path / "shop-repository", FILES)


def checked(shop: Path, table: str, *options: str) -> tuple[int, dict]:
    """Exit code and the written results."""
    path, out = shop.parent / "table.toml", shop.parent / "out.json"
    path.write_text(dedent(table))
    code = main(["--table", str(path), "--json", str(out), *options], shop)
    return code, json.loads(out.read_text())


def test_a_fault_is_caught_survives_and_leaves_the_repository_alone(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()}
    code, found = checked(shop, TABLE)
    assert code == 1
    assert (found["faults"], found["tried"], found["caught"], found["share"]) == (2, 2, 1, 0.5)
    caught, survivor = found["results"]
    assert caught["reason"] == "tests/test_price.py::test_total"
    assert caught["path"] == "shop/inner/price.py"
    assert caught["tests"] == ["tests/test_price.py"]
    assert [each["fault"]["wrong"] for each in found["survivors"]] == ["nobody looks at this"]
    assert survivor["reason"] == "every test passes"
    # A test that fails without any fault does not catch one: it is reported and left out.
    assert found["broken"] == {
        "tests/test_price.py": ["tests/test_price.py::test_that_fails_anyway"]
    }
    printed = capsys.readouterr().out
    assert "without any fault: tests/test_price.py::test_that_fails_anyway fails" in printed
    assert "survived: nobody looks at this  [shop/inner/price.py]" in printed
    assert "1 of 2 faults were caught: 50.0%, at least 95% wanted" in printed
    assert {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()} == before


def test_faults_that_cannot_be_put_in_are_told_and_fail_the_command(shop: Path) -> None:
    table = """
        [[fault]]
        file = "shop/**/*.py"
        text = "no such text"
        instead = ""
        wrong = "nothing there"

        [[fault]]
        file = "**/*.py"
        text = "def "
        instead = "def  "
        wrong = "in several files"

        [[fault]]
        file = "shop/till.py"
        text = "+ 1"
        instead = "+ ("
        wrong = "no Python"

        [[fault]]
        file = "shop/till.py"
        text = "+ 1"
        instead = "+ 2"
        wrong = "one too many"
        """
    code, found = checked(shop, table)
    assert code == 1
    assert found["share"] == 1
    outcomes = {each["fault"]["wrong"]: each["outcome"] for each in found["results"]}
    assert outcomes == {
        "nothing there": "not found",
        "in several files": "ambiguous",
        "no Python": "no Python",
        "one too many": "caught",
    }
    assert len(found["not_applied"]) == 3


def test_a_sample_is_always_the_same_and_all_caught_is_success(shop: Path) -> None:
    code, found = checked(shop, TABLE, "--sample", "1", "--own")
    assert (found["faults"], found["tried"]) == (1, 1)
    # By a fixed seed, so it is this one on every machine.
    assert found["results"][0]["fault"]["wrong"] == "nobody looks at this"
    assert code == 1
    code, found = checked(shop, TABLE, "--only", "the tax", "--own")
    assert (code, found["faults"], found["caught"]) == (0, 1, 1)


def test_tests_that_hang_count_as_noticing(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.mutants.SLACK_S", 1.0)
    table = """
        [[fault]]
        file = "shop/till.py"
        text = "return price.total(amount) + 1"
        instead = "exec('while True: pass')"
        wrong = "it never ends"
        """
    fault = read_table(written(shop.parent, {"t.toml": table}) / "t.toml")[0]
    scratch = shop.parent / "scratch"
    (result,) = MutationCheck(shop, scratch).run([fault], lambda *_: None)
    assert result.outcome == "caught"
    assert result.reason.startswith("timed out after ")


def test_a_change_of_the_same_size_within_a_second_is_really_used(shop: Path) -> None:
    """Compiled files are looked at by size and whole seconds."""
    (shop / "tests/test_price.py").unlink()
    faults = [Fault("shop/till.py", "+ 1", f"+ {number}", str(number)) for number in (2, 1, 3)]
    check = MutationCheck(shop, shop.parent / "scratch", own=True)
    outcomes = {each.fault.wrong: each.outcome for each in check.run(faults, lambda *_: None)}
    assert outcomes == {"2": "caught", "1": "survived", "3": "caught"}


def test_ending_it_shows_what_was_found_so_far(shop: Path) -> None:
    slow = "import time\nfrom shop.till import pay\ndef test(): time.sleep(600)\n"
    (shop / "tests/test_till.py").write_text(slow)
    table = written(
        shop.parent,
        {
            "t.toml": TABLE.rpartition("[[fault]]")[0]
            + """
    [[fault]]
    file = "shop/till.py"
    text = "+ 1"
    instead = "+ 2"
    wrong = "takes minutes"
    """
        },
    )
    code = (
        "import sys, signal; from pathlib import Path\n"
        "from benchmarks.mutants import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(main(['--own', '--table', {str(table / 't.toml')!r}], Path({str(shop)!r})))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [next(process.stdout), next(process.stdout)]
        assert "fails, and is left out" in lines[0]
        assert lines[1].startswith("1/2  caught")
        os.kill(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 1
    assert "interrupted" in rest
    assert "1 of 1 faults were caught" in rest
    assert "1 of 2 faults were not tried" in rest


def test_tests_are_found_by_what_they_import(shop: Path) -> None:
    graph = ImportGraph(shop)

    def tests(source: str, reach: int = 1) -> list[str]:
        return [path.name for path in graph.tests_of(Path(source), reach)]

    # The package passes the name on, so it is a direct import; slow tests are never run.
    assert tests("shop/inner/price.py") == ["test_price.py"]
    assert tests("shop/inner/price.py", reach=2) == ["test_price.py", "test_till.py"]
    # What helpers of tests import, the tests import.
    assert tests("shop/till.py") == ["test_till.py"]
    # A module that every test loads is not thereby tested.
    assert tests("shop/alone.py") == []


def test_the_mirror_of_a_file_comes_first_wherever_it_lies(shop: Path) -> None:
    written(
        shop,
        {
            "tests/shop/inner/test_price.py": "from shop.inner.price import total, unused\n",
            "tests/other/test_price.py": "from shop.inner.price import total\n",
            "tests/test_a.py": "def test():\n    from shop.inner.price import total\n",
            "tests/test_b.py": "PATCHED = 'shop.inner.price.total'\n",
        },
    )
    (shop / "tests/test_price.py").unlink()
    found = ImportGraph(shop).tests_of(Path("shop/inner/price.py"))
    assert [str(path.relative_to("tests")) for path in found] == [
        "shop/inner/test_price.py",
        "other/test_price.py",
        "test_a.py",
        "test_b.py",
    ]


def test_a_text_is_found_wherever_it_stands_but_not_in_tests(shop: Path) -> None:
    fault = Fault("**/*.py", "total", "sum", "")
    places = [str(path) for path in locate(shop, fault)]
    assert places == ["shop/__init__.py", "shop/inner/price.py", "shop/till.py"]
    assert locate(shop, Fault("shop/till.py", "TAX", "", "")) == []


@pytest.mark.parametrize(
    "text", ["", "[[fault]]\nfile = 'a'\n", "not a table", "[[fault]]\nx = 1\n"]
)
def test_what_is_no_table_ends_in_a_sentence(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.toml").write_text(text)
    assert main(["--table", str(tmp_path / "t.toml")], tmp_path) == 2
    assert "t.toml" in capsys.readouterr().err


def test_our_own_table_is_one_and_fits_the_code() -> None:
    faults = read_table(ROOT / "benchmarks" / "mutants.toml")
    assert len(faults) >= 60
    assert len(set(faults)) == len(faults)
    assert all(each.file and each.text != each.instead and each.wrong for each in faults)
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for folder in ("flows", "tasks", "models", "datasets")
        for path in (ROOT / folder).rglob("*.py")
    }
    # By the table alone, a text that moved would be found out only in a run that takes an hour.
    lost = [
        each.text
        for each in faults
        if sum(
            each.text in text
            for name, text in sources.items()
            if each.file.startswith("**") or name.split("/")[0] == each.file.split("/")[0]
        )
        != 1
    ]
    assert lost == []
