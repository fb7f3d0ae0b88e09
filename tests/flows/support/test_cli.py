"""Command lines made from signatures; mistakes end in one sentence and exit code 2."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datasets.errors import UserError
from flows import promote_model
from flows.support import cli

ROOT = Path(__file__).resolve().parents[3]


def sample(
    video: str,
    output: str = "runs/out",
    steps: int = 20,
    guidance: float = 1.5,
    register: bool = True,
    overrides: list[str] | None = None,
    workers: int | None = None,
    recipe: str = "",
) -> None:
    """Do one thing well.

    Twice when asked.

    Args:
        video: with a face; 100% of it
            in one file.
        output: folder to write.
        workers: processes.
        overrides: changes, each like a.b=1.
        recipe: instead of the study's.

    Returns:
        nothing: really.
    """


def test_options_have_names_and_types_of_the_parameters() -> None:
    argv = ["a.mp4", "--steps", "3", "--guidance", "2", "--no-register", "--workers", "4"]
    argv += ["--overrides", "a.b=1", "--overrides", "c=2"]
    assert cli.parse(sample, argv) == {
        "video": "a.mp4",
        "steps": 3,
        "guidance": 2.0,
        "register": False,
        "workers": 4,
        "overrides": ["a.b=1", "c=2"],
    }


def test_an_option_takes_several_values_where_none_may_stand_alone() -> None:
    def compared(compare: list[str] | None = None, output: str = "") -> None:
        """Compare."""

    for argv in (["--compare", "a", "b"], ["--compare", "a", "--compare", "b"]):
        assert cli.parse(compared, [*argv, "--output", "c"]) == {
            "compare": ["a", "b"],
            "output": "c",
        }
    # Otherwise what stands after it would be swallowed.
    assert cli.parse(sample, ["--overrides", "a=1", "a.mp4"])["video"] == "a.mp4"


@pytest.mark.parametrize("argv", [["--steps", "3", "a.mp4"], ["--video", "a.mp4", "--steps", "3"]])
def test_what_must_be_given_goes_by_place_or_by_name(argv: list[str]) -> None:
    assert cli.parse(sample, argv) == {"video": "a.mp4", "steps": 3}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "VIDEO must be given"),
        (["a", "--steps", "many"], "invalid int value: 'many'"),
        (["a", "--speed", "3"], "unrecognized arguments: --speed"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    argv: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.parse(sample, argv)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_help_explains_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.parse(sample, ["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Do one thing well. Twice when asked." in text
    assert "with a face; 100% of it in one file." in text
    assert "folder to write. (default: runs/out)" in text
    assert "--no-register" in text
    assert "like a.b=1. (may be given several times)" in text
    assert text.endswith("instead of the study's.")
    assert "nothing" not in text


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def none() -> Iterator[None]:
        yield

    monkeypatch.setattr(cli, "prefect_server", none)


def raising(error: BaseException) -> Callable[[], None]:
    def flow() -> None:
        raise error

    return flow


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("no folder 'x': give another"), 2, "no folder 'x': give another\n"),
        (OSError(errno.ENOSPC, "No space left", "/d/f"), 2, "the disk is full while writing"),
        (KeyboardInterrupt(), 130, "interrupted: run the same command again to go on\n"),
        (RuntimeError("Failed to reach API at http://x/api"), 2, "start that server"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(raising(error), []) == code
    shown = capsys.readouterr().err
    assert text in shown
    assert shown.count("\n") == 1


@pytest.mark.usefixtures("no_server")
def test_a_defect_shows_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(raising(ZeroDivisionError("oops")), [], hello="starting") == 1
    shown = capsys.readouterr()
    assert "Traceback" in shown.err
    assert shown.out == "starting\n"


@pytest.mark.usefixtures("no_server")
def test_success_is_zero_and_signals_are_put_back() -> None:
    seen: list[tuple[str, int]] = []

    def flow(name: str, count: int = 1) -> None:
        seen.append((name, count))

    before = signal.getsignal(signal.SIGINT)
    assert cli.run(flow, ["--name", "x", "--count", "2"]) == 0
    assert seen == [("x", 2)]
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 1)])
def test_a_flow_that_says_no_may_end_with_a_code_of_its_own(answer: bool, code: int) -> None:
    assert cli.run(lambda: {"promoted": answer}, [], exit_code=promote_model.exit_code) == code
    assert cli.run(lambda: {"promoted": answer}, []) == 0


def test_the_help_of_promotion_names_its_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(promote_model.promote_model, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "exit code is 0 after a promotion and 1 after a refusal" in text


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(
    ("number", "code", "text"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")],
)
def test_what_breaks_while_everything_ends_is_no_defect(
    number: signal.Signals, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def flow() -> None:
        try:
            os.kill(os.getpid(), number)
            threading.Event().wait(60)
        finally:
            raise ConnectionError("a worker that was told to end, too, is gone")

    assert cli.run(flow, []) == code
    assert capsys.readouterr().err == f"{text}: run the same command again to go on\n"


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, signal, threading
        from contextlib import nullcontext
        from flows.support import cli
        cli.prefect_server = nullcontext

        def flow() -> None:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                threading.Event().wait()
            finally:
                print("cleaning up", flush=True)
                os.kill(os.getpid(), signal.SIGINT)
                threading.Event().wait()

        raise SystemExit(cli.run(flow, []))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PREFECT_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (130, "cleaning up\n")
