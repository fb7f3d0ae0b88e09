"""A command line for a flow, made from the flow's own signature and docstring.

    main = partial(run, refresh_dataset)

    if __name__ == "__main__":
        raise SystemExit(main())

Parameters become options of the same name with dashes. A parameter without a default can
also be given by position. What the user can fix ends in one sentence and exit code 2.
"""

import argparse
import inspect
import json
import logging
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from datasets.errors import UserError
from datasets.redact import redact, redact_all
from flows.support.parameters import FORM, CommandForm
from flows.support.prefect_local import prefect_server
from tasks.runtime.docstrings import argument_helps
from tasks.runtime.failures import causes, one_line, redact_logs, sentence_for

MISTAKE = 2
INTERRUPTED = 130
TERMINATED = 143
ENDED = {INTERRUPTED: "interrupted", TERMINATED: "ended by SIGTERM"}
JOB_HELP = "JSON file with these parameters; what is given beside it counts more"
SCHEMA_HELP = "print the JSON schema of that file, and end"
FILES = {"job", "schema"}
"""Options about a file with parameters, beside the parameters."""
PREFECT_OWN = ("prefect.flow_runs", "prefect.task_runs", "EventsWorker", "APILogWorker")
"""Loggers through which Prefect reports on runs, and on sending those reports."""


def run(
    flow_fn: Callable[..., Any],
    argv: Sequence[str] | None = None,
    exit_code: Callable[[Any], int] = lambda result: 0,
    hello: str = "",
    prog: str = "",
) -> int:
    """Run a flow with the command line's parameters.

    Args:
        flow_fn: a function, made a flow by Prefect or not.
        argv: arguments; None: those of this process.
        exit_code: the exit code for a result, for flows whose answer may be no. The flow
            itself has still succeeded.
        hello: a line to print first, since servers take seconds to start.
        prog: what the command is called in its texts; by default `python -m flows.NAME`.

    Returns:
        Exit code: that of `exit_code`, by default 0; 2 for what the user can fix, 130 after
        Ctrl-C, 143 after SIGTERM, 1 for a defect, which shows its traceback.
    """
    given = parse(flow_fn, argv, prog)
    if "schema" in given:
        form: CommandForm = getattr(getattr(flow_fn, "fn", flow_fn), FORM)
        print(json.dumps(form.schema(), indent=2, ensure_ascii=False))
        return 0
    redact_logs()
    _keep_secrets_out(flow_fn)
    if hello:
        print(hello, flush=True)
    told: list[int] = []
    try:
        parameters = with_file(flow_fn, given)
        with _interruptible(told), prefect_server():
            _quieten_prefect()
            result = flow_fn(**parameters)
    except (KeyboardInterrupt, SystemExit) as ended:
        code = ended.code if isinstance(ended, SystemExit) else INTERRUPTED
        if code not in ENDED:
            raise
        return _ended(int(code))
    except Exception as error:
        if told:
            # Whoever tells a whole group of processes to end breaks what they do for each other.
            return _ended(told[0])
        sentence = _sentence(error)
        if sentence is None:
            print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr)
            return 1
        print(redact(sentence), file=sys.stderr)
        return MISTAKE
    return exit_code(result)


def parse(
    flow_fn: Callable[..., Any], argv: Sequence[str] | None = None, prog: str = ""
) -> dict[str, Any]:
    """The flow's parameters from the command line; what was not given is left out."""
    inner = getattr(flow_fn, "fn", flow_fn)
    signature = inspect.signature(inner)
    hints = get_type_hints(inner)
    helps = argument_helps(inspect.getdoc(inner) or "")
    parser = _Parser(
        prog=prog or _program(inner),
        description=(inspect.getdoc(inner) or "").partition("\nArgs:\n")[0].strip(),
        argument_default=argparse.SUPPRESS,
    )
    form: CommandForm | None = getattr(inner, FORM, None)
    positions = form.positions if form else ()
    required = []
    # Where values may also stand alone, an option that takes several would swallow them.
    alone = not positions and all(
        each.default is not inspect.Parameter.empty for each in signature.parameters.values()
    )
    for name, parameter in signature.parameters.items():
        text = helps.get(name, "").replace("%", "%%")
        kind = _value_type(hints[name])
        if parameter.default is inspect.Parameter.empty or name in positions:
            if not form:
                required.append(name)
            parser.add_argument(name, nargs="?", metavar=name.upper(), type=kind, help=text)
            _add_option(parser, name, kind, hints[name], "the same, as an option", False, [])
        else:
            # None and "" stand for what the text says.
            known = parameter.default not in (None, "")
            notes = [f"default: {parameter.default}".replace("%", "%%")] if known else []
            _add_option(parser, name, kind, hints[name], text, alone, notes)
    if form:
        required += form.needed
        parser.add_argument("--job", type=Path, metavar="FILE", help=JOB_HELP)
        parser.add_argument("--schema", action="store_true", help=SCHEMA_HELP)
    given = vars(parser.parse_intermixed_args(argv))
    missing = [name.upper() for name in required if name not in given and not given.keys() & FILES]
    if missing:
        parser.error(f"{' and '.join(missing)} must be given")
    return given


def _of_file(path: Path, form: CommandForm) -> dict[str, Any]:
    """The parameters in a JSON file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"the job file {path} cannot be read ({error}): it must be a JSON object, see --schema"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"the job file {path} must hold a JSON object, see --schema, got {found!r}")
    try:
        form.check(found)
    except UserError as error:
        raise UserError(f"the job file {path}: {error}") from error
    return found


def _json(text: str) -> Any:
    """An object, or a list of them, in JSON."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from error
    if not isinstance(found, dict | list):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object in braces")
    return found


class _Objects(argparse.Action):
    """Gathers JSON objects from several options, each with one or a list of them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        before = getattr(namespace, self.dest, None) or []
        found = values if isinstance(values, list) else [values]
        setattr(namespace, self.dest, [*before, *found])


def with_file(flow_fn: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a command line, with those of the file that `--job` names.

    Raises:
        UserError: the file holds something else, or not all that is needed.
    """
    if "job" not in given:
        return given
    form: CommandForm = getattr(getattr(flow_fn, "fn", flow_fn), FORM)
    path = given["job"]
    found = _of_file(path, form) | {name: each for name, each in given.items() if name != "job"}
    if missing := [name for name in form.needed if not found.get(name)]:
        raise UserError(f"the job file {path} does not say {' and '.join(missing)}: add it there")
    return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence instead of a page."""
        print(redact(f"{self.prog}: {message}; --help shows every option"), file=sys.stderr)
        raise SystemExit(MISTAKE)


def _keep_secrets_out(flow_fn: Any) -> None:
    """Prefect's server gets the parameters without the user's secrets in an address."""
    serialize = getattr(flow_fn, "serialize_parameters", None)
    if serialize is not None:
        flow_fn.serialize_parameters = lambda parameters: redact_all(serialize(parameters))


def _program(inner: Callable[..., Any]) -> str:
    module = inner.__module__
    if module == "__main__":
        module = f"flows.{Path(sys.argv[0]).stem}"
    return f"python -m {module}"


def _add_option(
    parser: argparse.ArgumentParser,
    name: str,
    kind: type,
    hint: Any,
    text: str,
    several: bool,
    notes: list[str],
) -> None:
    flag = "--" + name.replace("_", "-")
    more: dict[str, Any] = {}
    if kind is dict:
        notes = [*notes, "may be given several times"]
    elif _is_list(hint):
        repeated = "may be given several times" + (", or with several values" if several else "")
        notes = [*notes, repeated]
        more = {"action": "extend", "nargs": "+"} if several else {"action": "append"}
    if notes:
        text += f" ({'; '.join(notes)})"
    if kind is bool:
        parser.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, help=text)
    elif kind is dict:
        parser.add_argument(flag, dest=name, type=_json, action=_Objects, metavar="JSON", help=text)
    elif more:
        parser.add_argument(flag, dest=name, type=kind, metavar="VALUE", help=text, **more)
    else:
        parser.add_argument(flag, dest=name, type=kind, metavar=kind.__name__.upper(), help=text)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [each for each in get_args(hint) if each is not type(None)]
        return kinds[0] if len(kinds) == 1 else hint
    return hint


def _is_list(hint: Any) -> bool:
    return get_origin(_without_none(hint)) is list


def _value_type(hint: Any) -> type:
    kind = _without_none(hint)
    if get_origin(kind) in (list, tuple):
        kind = get_args(kind)[0]
        if is_dataclass(kind):
            return dict
    if kind not in (str, int, float, bool, Path):
        raise TypeError(f"a flow's parameter of type {hint} cannot be given on the command line")
    return kind


def _sentence(error: BaseException) -> str | None:
    sentence = sentence_for(error)
    if sentence is None and any(type(each).__name__ == "ConnectError" for each in causes(error)):
        return f"Prefect's server at {os.environ.get('PREFECT_API_URL', '')} does not answer"
    if sentence is None and one_line(error).startswith("Failed to reach API"):
        return f"{one_line(error).rstrip('.')}: start that server, or unset PREFECT_API_URL"
    return sentence


def _ended(code: int) -> int:
    print(f"{ENDED[code]}: run the same command again to go on", file=sys.stderr)
    return code


@contextmanager
def _interruptible(told: list[int]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the work in an orderly way; a second Ctrl-C ends the process
    at once.

    Nothing is left behind in either case: all processes started here die with this one.

    Args:
        told: takes the exit codes of the signals that come.
    """

    def first(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, second)
        told.append(INTERRUPTED)
        raise KeyboardInterrupt

    def second(signum: int, frame: object) -> None:
        os._exit(INTERRUPTED)

    def terminated(signum: int, frame: object) -> None:
        # What is still told to end is already ending.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        told.append(TERMINATED)
        raise SystemExit(TERMINATED)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with suppress(ValueError):
        # Only the main thread may do this; in others signals are somebody else's concern.
        signal.signal(signal.SIGINT, first)
        signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGINT, before[0])
            signal.signal(signal.SIGTERM, before[1] or signal.SIG_DFL)


def _quieten_prefect() -> None:
    """Keep Prefect's own lines about runs off the terminal; its server has them all."""

    def shown(record: logging.LogRecord) -> bool:
        own = record.name.startswith(PREFECT_OWN)
        return not (own and "prefect" in Path(record.pathname).parts)

    for handler in logging.getLogger().handlers:
        handler.addFilter(shown)
