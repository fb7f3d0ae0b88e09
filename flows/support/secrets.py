"""Keeps secrets out of what Prefect records about a run that fails."""

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec, TypeVar

from datasets.redact import redact, redact_all
from tasks.runtime.failures import causes, redact_logs

P = ParamSpec("P")
R = TypeVar("R")


def keep_secrets(inner: Callable[P, R]) -> Callable[P, R]:
    """A flow's or task's function whose errors and log lines hold no secrets.

    Prefect copies the text of an error into the state's message and the server's database, and
    libraries quote the addresses that they were given. Put it beneath `@flow` or `@task`: it works
    for commands and for deployments alike.
    """

    @wraps(inner)
    def outer(*args: P.args, **kwargs: P.kwargs) -> R:
        redact_logs()
        try:
            return inner(*args, **kwargs)
        except Exception as error:
            if all(_clean(each) for each in causes(error)):
                raise
            # Neither its text nor what it came from can be changed, so another one stands for it.
            text = redact(f"{type(error).__name__}: {error}")
        raise RuntimeError(text)

    return outer


def _clean(error: BaseException) -> bool:
    """Remove the secrets from an error; returns whether that succeeded."""
    if _is_clean(error):
        return True
    with suppress(Exception):
        error.args = tuple(redact_all(list(error.args)))
    for name in ("filename", "filename2", "reason", "url", "__notes__"):
        with suppress(Exception):
            setattr(error, name, redact_all(getattr(error, name)))
    return _is_clean(error)


def _is_clean(error: BaseException) -> bool:
    return all(redact(text) == text for text in (str(error), repr(error)))
