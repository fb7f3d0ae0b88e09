"""A command line for a flow, made from the flow's own signature and docstring.

    main = partial(run, refresh_dataset)

    if __name__ == "__main__":
        raise SystemExit(main())

Parameters become options of the same name with dashes. A parameter without a default can
also be given by position. What the user can fix ends in one sentence and exit code 2.
"""

import argparse
import inspect
import logging
import os
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from datasets.redact import redact, redact_all
from flows.support.prefect_local import prefect_server
from tasks.runtime.failures import causes, one_line, redact_logs, sentence_for

MISTAKE = 2
INTERRUPTED = 130
TERMINATED = 143
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
    parameters = parse(flow_fn, argv, prog)
    redact_logs()
    _keep_secrets_out(flow_fn)
    if hello:
        print(hello, flush=True)
    try:
        with _interruptible(), prefect_server():
            _quieten_prefect()
            result = flow_fn(**parameters)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as ended:
        if ended.code != TERMINATED:
            raise
        print("ended by SIGTERM: run the same command again to go on", file=sys.stderr)
        return TERMINATED
    except Exception as error:
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
    required = []
    # Where values may also stand alone, an option that takes several would swallow them.
    alone = all(
        each.default is not inspect.Parameter.empty for each in signature.parameters.values()
    )
    for name, parameter in signature.parameters.items():
        text = helps.get(name, "").replace("%", "%%")
        kind = _value_type(hints[name])
        if parameter.default is inspect.Parameter.empty:
            required.append(name)
            parser.add_argument(name, nargs="?", metavar=name.upper(), type=kind, help=text)
            _add_option(parser, name, kind, hints[name], "the same, as an option", False, [])
        else:
            # None and "" stand for what the text says.
            known = parameter.default not in (None, "")
            notes = [f"default: {parameter.default}".replace("%", "%%")] if known else []
            _add_option(parser, name, kind, hints[name], text, alone, notes)
    given = vars(parser.parse_intermixed_args(argv))
    missing = [name.upper() for name in required if name not in given]
    if missing:
        parser.error(f"{' and '.join(missing)} must be given")
    return given


def argument_helps(doc: str) -> dict[str, str]:
    """Texts of the parameters in the `Args:` section of a docstring."""
    _, _, section = doc.partition("\nArgs:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if indent == 0:
            break
        if indent == 4 and ": " in line:
            name, _, text = line.strip().partition(": ")
            found[name] = text
        elif name:
            found[name] += " " + line.strip()
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
    if _is_list(hint):
        repeated = "may be given several times" + (", or with several values" if several else "")
        notes = [*notes, repeated]
        more = {"action": "extend", "nargs": "+"} if several else {"action": "append"}
    if notes:
        text += f" ({'; '.join(notes)})"
    if kind is bool:
        parser.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, help=text)
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
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
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


@contextmanager
def _interruptible() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the work in an orderly way; a second Ctrl-C ends the process
    at once.

    Nothing is left behind in either case: all processes started here die with this one.
    """

    def first(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, second)
        raise KeyboardInterrupt

    def second(signum: int, frame: object) -> None:
        os._exit(INTERRUPTED)

    def terminated(signum: int, frame: object) -> None:
        # What is still told to end is already ending.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
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
