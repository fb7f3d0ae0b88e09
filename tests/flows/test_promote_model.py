"""The flow's end as automations see it, and the pause for a person, on a real Prefect server."""

import contextvars
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_HOME, temporary_settings

from datasets.errors import UserError
from flows import promote_model as flow_file
from flows.approve_promotion import approve_promotion
from flows.promote_model import exit_code, promote_model
from flows.support.approval import wait_for_approval
from flows.support.prefect_local import prefect_server
from tasks.registry.policy import Policy
from tasks.registry.versions import CHAMPION, Registry, record_evaluation
from tests.support.fake_bundle import evaluation, registered, store_uri

__all__ = ["store_uri"]

pytestmark = pytest.mark.timeout(600)

GOOD = {
    rule.metric: {"higher": 0.9, "lower": 0.01, "near_zero": 0.0}[rule.better] + (rule.bar or 0)
    for rule in Policy().rules
    if rule.better != "lower"
} | {rule.metric: 0.01 for rule in Policy().rules if rule.better == "lower"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("prefect")
    with temporary_settings({PREFECT_HOME: home}), prefect_server() as url:
        assert url
        yield url


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    sent: list[tuple[str, dict[str, Any]]] = []

    def keep(event: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
        sent.append((event, {**resource, **payload}))

    monkeypatch.setattr(flow_file, "emit_event", keep)
    return sent


def runs(*states: StateType) -> list[FlowRun]:
    """Flow runs that are in one of these states, oldest first."""
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=wanted)
    return sorted(found, key=lambda each: str(each.created))


def candidate(uri: str, name: str, folder: Path, **changes: float) -> int:
    version = registered(uri, name, folder, str(folder).encode())
    record_evaluation(name, version, uri, evaluation(**GOOD | changes))
    return version


def test_the_end_of_a_run_says_what_was_decided(
    server: str, store_uri: str, tmp_path: Path, events: list[tuple[str, dict[str, Any]]]
) -> None:
    name = "announced"
    for number, (changes, verdict) in enumerate([({}, "promoted"), ({"follows": 0.1}, "refused")]):
        version = candidate(store_uri, name, tmp_path / str(number), **changes)
        decision = promote_model(name, store_uri, str(tmp_path / "out"))
        assert decision["verdict"] == verdict
        assert exit_code(decision) == number
        last = runs(StateType.COMPLETED)[-1]
        assert last.state
        assert last.state.name == verdict.capitalize()
        event, told = events[-1]
        assert event == f"latentsync.model.{verdict}"
        assert told["prefect.resource.id"] == f"latentsync.model.{name}"
        assert told["version"] == version
        assert told["reasons"] == list(decision["reasons"])


def started(name: str, uri: str, output: Path) -> tuple[threading.Thread, dict[str, Any]]:
    """A run that asks, in a thread, and its outcome once that has ended."""
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["decision"] = promote_model(name, uri, str(output), approve=True)
        except UserError as error:
            outcome["error"] = str(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    thread.start()
    return thread, outcome


def paused(thread: threading.Thread) -> FlowRun:
    """The run that waits, once it does."""
    while not (found := runs(StateType.PAUSED)):
        thread.join(0.2)
        assert thread.is_alive(), "the run ended without waiting"
    return found[0]


def resume(run: FlowRun) -> None:
    approve_promotion(str(run.id))
    with pytest.raises(UserError, match=f"flow run {run.id} is not waiting for approval: it is "):
        approve_promotion(str(run.id))


def test_nothing_moves_before_a_person_resumes_the_run(
    server: str,
    store_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    events: list[tuple[str, dict[str, Any]]],
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    monkeypatch.setattr("flows.support.approval.POLL_S", 0.2)
    name, registry = "approved", Registry(store_uri)
    version = candidate(store_uri, name, tmp_path / "one")
    thread, outcome = started(name, store_uri, tmp_path / "out")
    run = paused(thread)
    assert registry.alias(name, CHAMPION) is None
    assert not events
    resume(run)
    thread.join()
    assert outcome["decision"]["verdict"] == "promoted"
    assert registry.alias(name, CHAMPION) == version

    # Who is champion already, or would be refused, needs nobody.
    assert promote_model(name, store_uri, str(tmp_path / "out"), approve=True)["promoted"]
    candidate(store_uri, name, tmp_path / "two", follows=0.1)
    assert not promote_model(name, store_uri, str(tmp_path / "out"), approve=True)["promoted"]

    # What has changed meanwhile was not approved.
    third = candidate(store_uri, name, tmp_path / "three")
    thread, outcome = started(name, store_uri, tmp_path / "out")
    run = paused(thread)
    record_evaluation(name, third, store_uri, evaluation(**GOOD | {"follows": 1.5}))
    resume(run)
    thread.join()
    assert "changed while approval was awaited" in outcome["error"]
    assert registry.alias(name, CHAMPION) == version


def test_without_a_server_nobody_could_answer(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr("flows.support.approval.has_server", lambda: False)
    candidate(store_uri, "alone", tmp_path / "one")
    with pytest.raises(UserError, match="none is named: set PREFECT_API_URL"):
        promote_model.fn("alone", store_uri, str(tmp_path / "out"), approve=True)


def test_an_approval_of_nothing_is_one_sentence(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="'nonsense' is not the id of a flow run"):
        approve_promotion("nonsense")
    monkeypatch.setattr("flows.support.approval.has_server", lambda: False)
    with pytest.raises(UserError, match="an approval needs the Prefect server on which the run"):
        approve_promotion(str(UUID(int=1)))
    monkeypatch.setattr("flows.support.approval.has_server", lambda: True)
    with pytest.raises(UserError, match="the Prefect server has no flow run 0000"):
        approve_promotion(str(UUID(int=1)))


def test_nobody_in_time_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    from prefect.exceptions import FlowPauseTimeout

    calls: list[int] = []

    def pause(timeout: int, **_: object) -> None:
        calls.append(timeout)
        if len(calls) == 1:
            raise httpx.ConnectError("away")
        raise FlowPauseTimeout

    monkeypatch.setattr("flows.support.approval.pause_flow_run", pause)
    monkeypatch.setattr("flows.support.approval.AWAY_S", 0.0)
    times = iter((0.0, 0.0, 60.0, 3600.0))
    with pytest.raises(UserError, match=r"nobody approved it within 2 h, and nothing was changed"):
        wait_for_approval("it", 2, print, lambda: next(times))
    # The server's absence counts.
    assert calls == [7200, 3600]
