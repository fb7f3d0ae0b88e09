"""Keeps secrets out of what Prefect records about a run that fails."""

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec, TypeVar

from datasets.redact import redact, redact_all
from tasks.runtime.failures import causes, for_the_user, redact_logs

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
            chain = list(causes(error))
            clean = [each for each in chain if _clean(each)]
            if len(clean) == len(chain):
                raise
            found = _instead(error, clean)
        # What it came from keeps its secrets, and so it is left behind.
        raise found from None

    return outer


def _instead(error: BaseException, clean: list[BaseException]) -> BaseException:
    """The error to raise where some of its chain cannot be changed: the user's sentence if there
    is one, else the error itself, or another with its text."""
    for each in clean:
        if for_the_user(each):
            return each
    return error if error in clean else RuntimeError(redact(f"{type(error).__name__}: {error}"))


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
