"""An error that nobody foresaw carries no secret out of a flow."""

import inspect
import logging
import traceback

import pytest

from datasets.errors import UserError
from flows.support.secrets import keep_secrets

ADDRESS = "http://ann:c4n4ry-pw@host/a.mp4?X-Amz-Signature=c4n4ry-sig"


class Quoting(Exception):
    """Its text does not come from its arguments."""

    def __init__(self, address: str) -> None:
        super().__init__("unused")
        self.address = address

    def __str__(self) -> str:
        return f"no connection to {self.address}"


def failing(error: Exception, cause: Exception | None = None) -> str:
    """What is to be seen of an error that comes out of a function."""

    @keep_secrets
    def function() -> None:
        raise error from cause

    with pytest.raises(Exception, match="host") as caught:
        function()
    found = caught.value
    return "".join(traceback.format_exception(found)) + repr(found) + str(found.args)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"no such thing: {ADDRESS}"),
        FileNotFoundError(2, "No such file", ADDRESS),
        KeyError(ADDRESS),
        Quoting(ADDRESS),
        ExceptionGroup("several at host", [ValueError(ADDRESS)]),
        RuntimeError("host", {"url": [ADDRESS]}),
    ],
)
def test_the_secrets_of_an_error_stay_inside(error: Exception) -> None:
    assert "c4n4ry" in repr(error) + str(error)
    seen = failing(error)
    assert "c4n4ry" not in seen
    assert "host" in seen


def test_the_secrets_of_what_it_came_from_stay_inside_too() -> None:
    assert "c4n4ry" not in failing(ValueError("no host"), Quoting(ADDRESS))
    assert "c4n4ry" not in failing(ValueError("no host"), OSError(ADDRESS))


def test_a_sentence_for_the_user_outlives_what_it_came_from() -> None:
    sentence, cause = UserError("host has no such list: give another"), Quoting(ADDRESS)
    with pytest.raises(UserError) as caught:
        keep_secrets(_raise)(sentence, cause)
    assert caught.value is sentence
    assert "c4n4ry" not in "".join(traceback.format_exception(caught.value))
    # Also where a library has wrapped it.
    wrapper = Quoting(ADDRESS)
    with pytest.raises(UserError) as caught:
        keep_secrets(_raise)(wrapper, sentence)
    assert caught.value is sentence
    # And any error that can be cleaned stays what it is.
    broken = OSError(5, "broken", ADDRESS)
    with pytest.raises(OSError, match="host") as found:
        keep_secrets(_raise)(broken, Quoting(ADDRESS))
    assert found.value is broken
    assert "c4n4ry" not in "".join(traceback.format_exception(found.value))


def test_an_error_without_secrets_is_itself() -> None:
    error, cause = ValueError("host is down"), OSError(5, "broken", "/a/b")
    with pytest.raises(ValueError, match="host is down") as caught:
        keep_secrets(_raise)(error, cause)
    assert caught.value is error
    assert caught.value.__cause__ is cause
    changed = OSError(5, "broken", ADDRESS)
    with pytest.raises(OSError, match="host") as found:
        keep_secrets(_raise)(changed, None)
    assert found.value is changed
    assert found.value.errno == 5


def _raise(error: Exception, cause: Exception | None) -> None:
    raise error from cause


def test_parameters_and_results_are_the_functions_own(caplog: pytest.LogCaptureFixture) -> None:
    def function(a: int, b: str = "x") -> str:
        """About it."""
        logging.getLogger("any.library").warning("asking %s", ADDRESS)
        return b * a

    kept = keep_secrets(function)
    assert inspect.signature(kept) == inspect.signature(function)
    assert kept.__doc__ == "About it."
    assert kept(2, b="y") == "yy"
    assert "asking" in caplog.text
    assert "c4n4ry" not in caplog.text
