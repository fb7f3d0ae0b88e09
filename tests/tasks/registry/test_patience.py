"""Waiting for a server: only where it does not answer, and not for ever."""

import pytest
from mlflow.exceptions import MlflowException

from datasets.errors import UserError
from tasks.registry.patience import is_away, patiently
from tests.support.fake_clock import FakeClock


def test_an_action_is_repeated_until_the_server_answers() -> None:
    fake, lines = FakeClock(), list[str]()
    left = [3]

    def action() -> str:
        if left[0]:
            left[0] -= 1
            raise MlflowException("API request to http://host/api failed with exception refused")
        return "done"

    found = patiently(
        action, "closing the runs", lines.append, now=fake.clock.now, sleep=fake.clock.sleep
    )
    assert found == "done"
    assert len(fake.sleeps) == 3
    assert "closing the runs waits for it" in lines[0]
    assert lines[1:] == ["MLflow answers again"]


def test_patience_ends() -> None:
    fake, lines = FakeClock(), list[str]()

    def action() -> None:
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError):
        patiently(
            action, "x", lines.append, patience_s=60, now=fake.clock.now, sleep=fake.clock.sleep
        )
    assert 60 <= sum(fake.sleeps) < 70
    assert len(lines) == 1


def test_what_is_refused_is_raised_at_once() -> None:
    fake = FakeClock()

    def action() -> None:
        raise UserError("no such model")

    with pytest.raises(UserError):
        patiently(action, "x", print, now=fake.clock.now, sleep=fake.clock.sleep)
    assert fake.sleeps == []


def test_a_server_that_refuses_is_not_away() -> None:
    assert is_away(MlflowException("API request to http://h failed with error code 503"))
    assert is_away(MlflowException("database is locked"))
    wrapped = UserError("the store cannot be used")
    wrapped.__cause__ = ConnectionError("refused")
    assert is_away(wrapped)
    assert not is_away(MlflowException("there is no run 5"))
    assert not is_away(ValueError("wrong"))
